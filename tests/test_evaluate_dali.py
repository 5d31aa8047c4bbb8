"""DALI against a loop over items, layers and pairs, written from its definition."""
import itertools
import math

import numpy as np
import pandas as pd
import pytest

from alignx.errors import InputError, UsageError
from alignx.evaluate.choices import rank_options
from alignx.evaluate.dali import accuracy_by_alignment, dali_chance, dali_items, dali_scores
from alignx.evaluate.embeddings import embed_layers
from alignx.evaluate.tables import tabulate
from evaluate_tools import byte_tokenizer, tiny_model

WORDS = {"en": ["one", "two", "three"], "de": ["eins", "zwei", "drei"], "zh": ["一", "二", "三"]}
ROWS = [
    {"id": number, "lang": lang, "question": f"{lang} {number}: ", "options": words[:count], "answer": number % count, "task": "count" if number < 3 else None}
    for number, count in enumerate([2, 3, 2, 3])
    for lang, words in WORDS.items()
]


def cosine(x, y):
    "The definition, in float64."
    return sum(a * b for a, b in zip(x, y)) / math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))


def naive(a, b, strong):
    "min over matching pairs above max over all others, one cosine at a time."
    own = [cosine(x, y) for x, y in zip(a.tolist(), b.tolist())]
    others = [cosine(a[i].tolist(), b[j].tolist()) for i, j in itertools.permutations(range(len(a)), 2)]
    if strong:
        others += [cosine(side[i].tolist(), side[j].tolist()) for side in (a, b) for i, j in itertools.combinations(range(len(a)), 2)]
    return all(value > max(others) for value in own)


@pytest.mark.parametrize("strong", [False, True])
@pytest.mark.parametrize("options", [2, 3, 4])
def test_equals_the_loop(options, strong):
    random = np.random.default_rng(options)
    a = random.normal(size=(3, 40, options, 5))
    b = a + 0.5 * random.normal(size=a.shape)
    scores = dali_scores(a, b, strong)
    expected = [[naive(a[layer, item], b[layer, item], strong) for item in range(40)] for layer in range(3)]
    assert scores.shape == (3, 40) and scores.tolist() == expected
    assert 0 < scores.mean() < 1
    assert (dali_scores(b, a, strong) == scores).all()


def test_strong_is_a_part_of_plain_and_order_of_options_does_not_matter():
    random = np.random.default_rng(0)
    a = random.normal(size=(500, 3, 4))
    b = a + 0.4 * random.normal(size=a.shape)
    assert (dali_scores(a, b) >= dali_scores(a, b, strong=True)).all() and dali_scores(a, b).sum() > dali_scores(a, b, strong=True).sum() > 0
    turned = [2, 0, 1]
    assert (dali_scores(a[:, turned], b[:, turned]) == dali_scores(a, b)).all()


def test_controls():
    random = np.random.default_rng(0)
    a = random.normal(size=(200, 2, 8))
    assert dali_scores(a, a).all() and dali_scores(a, a, strong=True).all()
    assert not dali_scores(np.ones((5, 2, 8)), np.ones((5, 2, 8))).any()
    assert not dali_scores(np.zeros((5, 2, 8)), np.zeros((5, 2, 8))).any()
    assert not dali_scores(a, a[:, ::-1]).any()


@pytest.mark.parametrize("strong, size", [(False, 4), (True, 6)])
def test_chance_is_what_random_orders_give(strong, size):
    hits = [min(order[:2]) > max(order[2:]) for order in itertools.permutations(range(size))]
    assert dali_chance(2, strong) == pytest.approx(sum(hits) / len(hits))
    assert dali_chance(4) == pytest.approx(1 / 1820)


def test_items_of_a_model_equal_the_loop():
    model, tokenizer = tiny_model(), byte_tokenizer()
    items = dali_items(model, tokenizer, ROWS, name="m")
    by = items.assign(metric=items["metric"].str.rpartition("/")[2]).set_index(["metric", "target_lang", "layer", "id"])["value"]
    rows = {(row["lang"], row["id"]): row for row in ROWS}
    for lang, number in itertools.product(("de", "zh"), range(4)):
        sides = [embed_layers(model, tokenizer, [row["question"] + option for option in row["options"]], pooling="last") for row in (rows["en", number], rows[lang, number])]
        for layer in range(4):
            assert by["dali", lang, layer, number] == naive(sides[0][layer], sides[1][layer], False)
            assert by["dali_strong", lang, layer, number] == naive(sides[0][layer], sides[1][layer], True)
    assert set(items["metric"]) == {f"{task}{metric}{chance}" for task in ("", "count/") for metric in ("dali", "dali_strong") for chance in ("", "_chance")}
    assert set(items["source_lang"]) == {"en"} and set(items["target_lang"]) == {"de", "zh"}
    chance = items[items["metric"].str.endswith("dali_chance") & (items["target_lang"] == "de")].set_index("id")["value"]
    assert chance.to_dict() == {0: 1 / 6, 1: 1 / 84, 2: 1 / 6, 3: 1 / 84} and items["layer"].isna().sum() == 2 * 2 * 4


def test_batch_size_order_and_layers_change_nothing():
    model, tokenizer = tiny_model(), byte_tokenizer()
    items = dali_items(model, tokenizer, ROWS)
    keys = [column for column in items if column != "value"]
    other = dali_items(model, tokenizer, ROWS[::-1], batch_size=1)
    pd.testing.assert_frame_equal(*(table.sort_values(keys, ignore_index=True) for table in (items, other)))
    some = dali_items(model, tokenizer, ROWS, layers=[2])
    pd.testing.assert_frame_equal(some[some["layer"] == 2].reset_index(drop=True), items[items["layer"] == 2].reset_index(drop=True))


def test_accuracy_of_both_groups_is_the_mean_over_their_items():
    model, tokenizer = tiny_model(), byte_tokenizer()
    items, ranked = dali_items(model, tokenizer, ROWS), rank_options(model, tokenizer, ROWS)
    split = accuracy_by_alignment(items, ranked)
    right = ranked[ranked["metric"].str.endswith("accuracy")].set_index(["target_lang", "id"])["value"]
    aligned = items[items["metric"].str.endswith("dali")]
    for hit, name in ((1, "accuracy_aligned"), (0, "accuracy_unaligned")):
        part = split[split["metric"].str.endswith(name)]
        assert len(part) == len(aligned)
        chosen = aligned[aligned["value"] == hit]
        assert sorted(part["value"].dropna()) == sorted(right[lang, number] for lang, number in zip(chosen["target_lang"], chosen["id"]))
    table = tabulate(split)
    assert (table.loc[table["n"] == 0, "value"].isna()).all() and table["n"].max() > 0


def test_bad_input():
    model, tokenizer = tiny_model(), byte_tokenizer()
    with pytest.raises(UsageError, match="unknown pivot 'EN'"):
        dali_items(model, tokenizer, ROWS, pivot="EN")
    with pytest.raises(InputError, match="no question is there in 'en' and in another language"):
        dali_items(model, tokenizer, [row for row in ROWS if row["lang"] == "en"])
    with pytest.raises(InputError, match="question 0 in 'de': its options do not match those in 'en'"):
        dali_items(model, tokenizer, [ROWS[0], {**ROWS[1], "answer": 1}])
    with pytest.raises(InputError, match="DALI compares two arrays"):
        dali_scores(np.ones((3, 1, 4)), np.ones((3, 1, 4)))
    items = dali_items(model, tokenizer, ROWS)
    with pytest.raises(InputError, match="have no accuracy"):
        accuracy_by_alignment(items, rank_options(model, tokenizer, ROWS[:3]))
    with pytest.raises(UsageError, match="unknown metric 'mexa'"):
        accuracy_by_alignment(items, items, "mexa")
