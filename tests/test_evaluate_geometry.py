"""CKA, isotropy and the probe against their sources written out in float64, and against what a sceptic would try."""
import numpy as np
import pytest

from alignx.errors import InputError, UsageError
from alignx.evaluate.geometry import debiased_cka, iso_score, language_probe, linear_cka, mean_cosine


def cloud(count=15, width=6, seed=0):
    generator = np.random.default_rng(seed)
    a = generator.normal(size=(count, width)) + 1
    return a, a @ generator.normal(size=(width, width)) + generator.normal(size=a.shape)


def naive_hsic_biased(k, l):
    "trace(K H L H), element by element."
    n = len(k)
    h = np.eye(n) - 1 / n
    return sum(k[i, j] * h[j, m] * l[m, o] * h[o, i] for i in range(n) for j in range(n) for m in range(n) for o in range(n))


def naive_hsic_unbiased(k, l):
    "The mean of h(i, j, q, r) over all ordered tuples of four different sentences (Song et al., 2012, eq. 4)."
    n, total, count = len(k), 0.0, 0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])
                        count += 1
    return total / count


def naive_cka(a, b, hsic):
    k, l = a @ a.T, b @ b.T
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def naive_jackknife(values):
    n, mean = len(values), sum(values) / len(values)
    return np.sqrt((n - 1) / n * sum((value - mean) ** 2 for value in values))


def test_published_cka():
    a, b = cloud(7)
    assert linear_cka(a, b) == pytest.approx(naive_cka(a, b, naive_hsic_biased))


@pytest.mark.parametrize("width", [3, 20])
def test_debiased_cka(width):
    a, b = cloud(9, width)
    assert debiased_cka(a, b).value == pytest.approx(naive_cka(a, b, naive_hsic_unbiased))


@pytest.mark.parametrize("function, least", [(debiased_cka, -1), (lambda a, b: mean_cosine(a), -1), (lambda a, b: iso_score(a), 0)])
@pytest.mark.parametrize("width", [4, 40])
def test_intervals_are_the_jackknife(function, least, width):
    a, b = cloud(14, width)
    found = function(a, b)
    error = naive_jackknife([function(np.delete(a, i, 0), np.delete(b, i, 0)).value for i in range(14)])
    assert found.n == 14
    assert found.high == pytest.approx(min(1, found.value + 1.959964 * error)) and found.low == pytest.approx(max(least, found.value - 1.959964 * error))


def test_mean_cosine_pair_by_pair():
    a, _ = cloud()
    pairs = [a[i] @ a[j] / np.sqrt(a[i] @ a[i] * (a[j] @ a[j])) for i in range(15) for j in range(15) if i != j]
    assert mean_cosine(a).value == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("width", [6, 40])
def test_iso_score_step_by_step(width):
    "Algorithm 1 of Rudman et al. (2022)."
    a, _ = cloud(15, width)
    _, axes = np.linalg.eigh(np.cov(a.T))
    variances = np.diag(np.cov((a @ axes).T))
    scaled = np.sqrt(width) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(scaled - 1) / np.sqrt(2 * (width - np.sqrt(width)))
    dimensions = (width - defect**2 * (width - np.sqrt(width))) ** 2 / width
    assert iso_score(a).value == pytest.approx((dimensions - 1) / (width - 1))


def test_controls_of_cka():
    generator = np.random.default_rng(0)
    a, b = cloud(60, 30)
    assert debiased_cka(a, a).value == pytest.approx(1) and linear_cka(a, a) == pytest.approx(1)
    turned = a @ np.linalg.qr(generator.normal(size=(30, 30)))[0] * 7 + 100
    assert debiased_cka(a, turned).value == pytest.approx(1)
    shuffled = [debiased_cka(a, b[generator.permutation(60)]).value for _ in range(200)]
    assert abs(np.mean(shuffled)) < 4 * np.std(shuffled) / np.sqrt(200)
    order = generator.permutation(60)
    assert debiased_cka(a[order], b[order]).value == pytest.approx(debiased_cka(a, b).value)


def test_what_cannot_be_measured_is_a_gap_and_no_zero():
    a, b = cloud(4)
    flat = np.tile(np.arange(3.0), (20, 1))
    for gap in (debiased_cka(a, b), debiased_cka(flat, cloud(20, 3)[0]), iso_score(flat), iso_score(np.random.default_rng(0).normal(size=(9, 1)))):
        assert np.isnan([gap.value, gap.low, gap.high]).all() and gap.n == 0
    assert mean_cosine(flat).value == pytest.approx(1)
    for function in (mean_cosine, iso_score):
        with pytest.raises(InputError, match="at least 3"):
            function(a[:2])
    with pytest.raises(InputError, match="4 sentences and 3"):
        debiased_cka(a, b[:3])
    a[0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        debiased_cka(a, b)


def probe_data(strength, tuples=60, seed=0):
    generator = np.random.default_rng(seed)
    meaning, marks = generator.normal(size=(tuples, 8)), generator.normal(size=(4, 8))
    vectors = np.concatenate([meaning + 0.5 * generator.normal(size=meaning.shape) + strength * mark for mark in marks])
    return vectors, np.repeat(list("wxyz"), tuples), np.tile([f"t{i}" for i in range(tuples)], 4)


def test_probe_names_marked_languages_and_is_at_chance_without_marks():
    assert language_probe(*probe_data(10))["value"].mean() == 1
    found = [language_probe(*probe_data(0, seed=seed))["value"].mean() for seed in range(30)]
    assert abs(np.mean(found) - 0.25) < 4 * np.std(found) / np.sqrt(30)


def test_probe_keeps_tuples_together_and_ignores_order():
    vectors, languages, ids = probe_data(0.5)
    found = language_probe(vectors, languages, ids)
    assert (found.groupby("id").size() == 4).all() and found["id"].nunique() == 30
    order = np.random.default_rng(0).permutation(len(ids))
    again = language_probe(vectors[order], languages[order], ids[order])
    assert found.equals(again)
    assert set(language_probe(vectors, languages, ids, seed=1)["id"]) != set(found["id"])


def test_probe_cannot_be_won_by_remembering_tuples():
    "Each tuple is one point, the same in all languages; a probe tested on translations of what it learnt would still be at chance, one tested on the same sentences not."
    generator = np.random.default_rng(0)
    vectors = np.tile(generator.normal(size=(50, 200)), (4, 1))
    found = language_probe(vectors, np.repeat(list("wxyz"), 50), np.tile(np.arange(50), 4))
    assert found.groupby("id")["value"].sum().max() <= 1  # of four equal vectors at most one is named rightly


def test_probe_requests():
    vectors, languages, ids = probe_data(1)
    with pytest.raises(UsageError, match="at least 2 languages"):
        language_probe(vectors[:60], languages[:60], ids[:60])
    with pytest.raises(InputError, match="1 tuples cannot be split"):
        language_probe(vectors, languages, ["same"] * len(ids))
    lonely = language_probe(np.r_[vectors, vectors[:1]], [*languages, "v"], [*ids, "t0"])
    assert set(lonely["language"]) == set("wxyz")  # one sentence cannot be on both sides
