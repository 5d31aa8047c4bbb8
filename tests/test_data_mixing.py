import random
from collections import Counter

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.data import mix_directions
from alignx.data.mixing import apportion, draw, temperature_shares
from alignx.errors import InputError, UsageError


def corpus(**sizes):
    return Dataset.from_list([{"id": str(index), "domain": "d", "source": f"en {index}", "target": f"{code} {index}", "source_lang": "en", "target_lang": code} for code, size in sizes.items() for index in range(size)])


def kinds(rows):
    return Counter("from" if a == "en" else "to" if b == "en" else "between" for a, b in zip(rows["source_lang"], rows["target_lang"]))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.dictionaries(st.text(max_size=3), st.floats(0.001, 1e6), min_size=1, max_size=8))
def test_apportion_is_exact_and_fair(total, weights):
    shares = apportion(total, weights)
    assert sum(shares.values()) == total
    assert all(abs(shares[key] - total * weight / sum(weights.values())) < 1 + 1e-6 for key, weight in weights.items())


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 100), st.integers(0, 5))
def test_draw_repeats_no_sooner_than_needed(size, count, seed):
    counts = Counter(draw(list(range(size)), count, random.Random(seed)))
    assert counts.total() == count and max(counts.values(), default=0) - min([*counts.values(), count] if len(counts) == size else [0]) <= 1


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(0, 4)] * 3).filter(any), st.integers(1, 200), st.floats(0.5, 10), st.integers(0, 3))
def test_budget_and_directions_are_exact(weights, budget, temperature, seed):
    rows = corpus(de=30, ja=12, sw=3)
    mixture = mix_directions(rows, *weights, temperature=temperature, budget=budget, seed=seed)
    assert len(mixture) == budget
    expected = apportion(budget, dict(zip(("from", "to", "between"), weights)))
    assert kinds(mixture) == Counter({key: count for key, count in expected.items() if count})
    for row in mixture:
        assert row["source"] == f"{row['source_lang']} {row['id']}" and row["target"] == f"{row['target_lang']} {row['id']}" and row["source_lang"] != row["target_lang"]


def test_every_pair_once_by_default():
    rows = corpus(de=31, ja=12)
    mixture = mix_directions(rows, seed=5)
    assert sorted((row["id"], *sorted((row["source"], row["target"]))) for row in mixture) == sorted((row["id"], *sorted((row["source"], row["target"]))) for row in rows)
    assert kinds(mixture) == {"from": 22, "to": 21}


def test_seed():
    rows = corpus(de=30, ja=30)
    first, same, other = (mix_directions(rows, between=1, budget=50, seed=seed) for seed in (1, 1, 2))
    assert first[:] == same[:] and first[:] != other[:]


def test_rows_towards_the_pivot_are_turned_first():
    rows = corpus(de=3)
    turned = rows.map(lambda row: {"source": row["target"], "target": row["source"], "source_lang": "de", "target_lang": "en"})
    assert mix_directions(turned, to_pivot=0, seed=1)[:] == mix_directions(rows, to_pivot=0, seed=1)[:]


def test_temperature():
    assert temperature_shares({"a": 900, "b": 100}, 100) == {"a": 90, "b": 10}
    assert temperature_shares({"a": 900, "b": 100}, 100, 1e9) == {"a": 50, "b": 50}
    assert temperature_shares({"a": 900, "b": 100}, 100, 2) == {"a": 75, "b": 25}


def test_between_needs_equal_pivot_sentences():
    rows = corpus(de=1, ja=1)
    other = rows.map(lambda row: {"source": row["source"] + (" x" if row["target_lang"] == "ja" else "")})
    assert len(mix_directions(rows, 0, 0, 1, budget=2)) == 2
    with pytest.raises(InputError, match="multi-way"):
        mix_directions(other, 0, 0, 1, budget=2)


def test_bad_requests():
    rows = corpus(de=3)
    for wrong, message in (({"temperature": 0}, "temperature"), ({"from_pivot": -1}, "negative"), ({"budget": -1}, "negative"), ({"from_pivot": 0, "to_pivot": 0}, "positive weight")):
        with pytest.raises(UsageError, match=message):
            mix_directions(rows, **wrong)
    with pytest.raises(InputError, match="row 0: en→de is not with the pivot 'fr'"):
        mix_directions(rows, pivot="fr")
    assert len(mix_directions(rows, budget=0)) == 0 and len(mix_directions(rows.select([]))) == 0
