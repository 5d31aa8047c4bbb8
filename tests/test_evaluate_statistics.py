"""Bootstrap intervals and paired differences against direct computation."""
import numpy as np
import pytest

from alignx.errors import InputError, UsageError
from alignx.evaluate.statistics import bootstrap_interval, bootstrap_ratio, paired_difference


def test_equals_a_plain_loop_over_draws():
    values = np.random.default_rng(3).random(37)
    generator = np.random.default_rng(5)
    means = [values[generator.integers(37, size=37)].mean() for _ in range(300)]
    expected = np.quantile(means, [0.05, 0.95])
    np.testing.assert_allclose(bootstrap_interval(values, resamples=300, confidence=0.9, seed=5), expected)


def test_many_items_are_drawn_in_blocks_with_the_same_result():
    values = np.random.default_rng(0).random(100_000)
    generator = np.random.default_rng(1)
    means = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(90)]
    np.testing.assert_allclose(bootstrap_interval(values, resamples=90, seed=1), np.quantile(means, [0.025, 0.975]))


def test_columns_equal_single_scores():
    values = np.random.default_rng(0).random((50, 3))
    low, high = bootstrap_interval(values, seed=2)
    np.testing.assert_allclose([bootstrap_interval(column, seed=2) for column in values.T], np.transpose([low, high]))


def test_width_agrees_with_the_normal_approximation():
    values = np.random.default_rng(0).normal(size=4000)
    low, high = bootstrap_interval(values, resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(4000), rel=0.06)


def test_seed_matters_and_confidence_widens():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values, seed=0) != bootstrap_interval(values, seed=1)
    narrow, wide = (bootstrap_interval(values, confidence=c) for c in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf], np.ones((2, 2, 2)), 3.0])
def test_values_without_an_honest_interval(values):
    with pytest.raises(InputError):
        bootstrap_interval(values)


@pytest.mark.parametrize("options", [dict(resamples=0), dict(confidence=0), dict(confidence=95)])
def test_impossible_requests(options):
    with pytest.raises(UsageError):
        bootstrap_interval([1.0, 2.0], **options)


def test_paired_difference_is_antisymmetric_and_narrower_than_unpaired():
    generator = np.random.default_rng(0)
    before = generator.normal(size=200)
    after = before + generator.normal(0.05, 0.1, 200)
    there, back = paired_difference(before, after), paired_difference(after, before)
    assert there.difference == pytest.approx(after.mean() - before.mean()) == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low)) and there.p_value == back.p_value < 0.01
    low, high = bootstrap_interval(before)
    assert there.high - there.low < (high - low) / 4


def test_p_value_of_noise_is_uniform():
    generator = np.random.default_rng(0)
    values = [paired_difference(generator.normal(size=60), generator.normal(size=60), resamples=200).p_value for _ in range(200)]
    assert 0.01 <= np.mean(np.array(values) < 0.05) <= 0.11
    assert 0 < min(values) and max(values) <= 1


def test_unpaired_items_are_refused():
    with pytest.raises(InputError, match="same items"):
        paired_difference([1, 2, 3], [1, 2])


def test_a_ratio_draws_both_sums_together():
    generator = np.random.default_rng(0)
    above, below = generator.random(25), generator.integers(0, 9, 25)
    again = np.random.default_rng(7)
    ratios = [above[chosen].sum() / below[chosen].sum() for chosen in (again.integers(25, size=25) for _ in range(150))]
    low, high, draws = bootstrap_ratio(above, below, resamples=150, seed=7)
    np.testing.assert_allclose(draws, ratios)
    np.testing.assert_allclose((low, high), np.quantile(ratios, [0.025, 0.975]))


@pytest.mark.parametrize("above, below", [([1.0], [0.0]), ([1.0, 2.0], [1.0]), ([1.0], [-1.0]), ([], [])])
def test_no_ratio_without_a_denominator(above, below):
    with pytest.raises(InputError):
        bootstrap_ratio(above, below)
