import hashlib
import random
from collections import Counter

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.data import mix_directions
from alignx.data.mixing import apportion, capped_shares, draw, temperature_shares
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


def test_the_same_on_every_machine():
    mixture = mix_directions(corpus(de=40, ja=25, sw=7), 2, 1, 1, temperature=2, budget=120, seed=11)
    text = "\n".join(f"{row['source']}|{row['target']}" for row in mixture)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "db79e2cd91713c55", "another version of Python or of a library draws other rows"


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 1000), min_size=1), st.integers(0, 500), st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 100)), st.floats(0.5, 5))
def test_capped_shares_keep_the_caps_and_give_what_they_leave(counts, total, caps, temperature):
    shares = capped_shares(counts, total, temperature, caps)
    assert list(shares) == list(counts) and all(shares[key] <= caps.get(key, total) for key in counts)
    assert sum(shares.values()) == min(total, sum(caps.get(key, total) for key in counts))


def test_pair_budgets():
    rows = corpus(de=30, ja=30, sw=3)
    mixture = mix_directions(rows, 1, 1, 1, budget=90, pair_budget={"de-en": 10, "sw-ja": 1})
    pairs = Counter("-".join(sorted(pair)) for pair in zip(mixture["source_lang"], mixture["target_lang"]))
    assert len(mixture) == 90 and pairs["de-en"] == 10 and pairs["ja-sw"] == 1
    assert len(mix_directions(rows, pair_budget=4)) == 12, "without a budget there are as many as the caps leave"
    assert len(mix_directions(rows, 0, 1, 0, pair_budget={"en-ja": 0})) == 63
    for wrong, message in (({"pair_budget": 4, "budget": 50}, "leaves 12 rows"), ({"pair_budget": {"en-jp": 1}}, "did you mean"), ({"pair_budget": {"en-ja": -1}}, "not a number of rows")):
        with pytest.raises(UsageError, match=message):
            mix_directions(rows, **wrong)


def test_rows_of_a_selection_and_ids_that_are_not_unique():
    rows = corpus(de=20, ja=20, sw=20)
    part = rows.select([59, 3, 23, 43, 2, 22])
    for row in mix_directions(part, 1, 1, 2, budget=40):
        assert row["source"] == f"{row['source_lang']} {row['id']}" and row["target"] == f"{row['target_lang']} {row['id']}"
