"""Alignment metrics against double loops in float64, and the tables made of them."""
import json

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.errors import InputError, UsageError
from alignx.evaluate import alignment
from alignx.evaluate.alignment import alignment_items, alignment_table, best_layer, heldout_retrieval, margin_score, mexa_score
from alignx.evaluate.alignment import retrieval_accuracy, sentence_scores, summarise
from alignx.evaluate.tables import compare_items, tabulate
from evaluate_tools import byte_tokenizer, tiny_model


def cosine(x, y):
    return float(np.dot(x, y) / np.sqrt(np.dot(x, x) * np.dot(y, y)))


def naive(a, b):
    "Retrieval both ways, MEXA and margin as their definitions say, one pair at a time in float64."
    a, b, n = a.astype(np.float64), b.astype(np.float64), len(a)
    forward, backward, mexa, margin = [], [], [], []
    for i in range(n):
        own = cosine(a[i], b[i])
        row = [cosine(a[i], b[j]) for j in range(n) if j != i]
        column = [cosine(a[j], b[i]) for j in range(n) if j != i]
        forward.append(all(own > other for other in row))
        backward.append(all(own > other for other in column))
        mexa.append(own > max(row + column))
        margin.append(own - (sum(row) / (n - 1) + sum(column) / (n - 1)) / 2)
    return dict(forward=forward, backward=backward, mexa=mexa, margin=margin)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(2, 9), st.floats(0, 3), st.integers(0, 10**6))
def test_against_the_definitions(count, width, noise, seed):
    generator = np.random.default_rng(seed)
    a = generator.normal(size=(count, width))
    b = a + noise * generator.normal(size=a.shape)
    found, expected = sentence_scores(a, b), naive(a, b)
    for name in ("forward", "backward", "mexa"):
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_allclose(found["margin"], expected["margin"], atol=1e-12)
    assert retrieval_accuracy(a, b) == np.mean(expected["forward"]) and retrieval_accuracy(b, a) == np.mean(expected["backward"])
    assert mexa_score(a, b) == mexa_score(b, a) == np.mean(expected["mexa"])
    assert margin_score(a, b) == pytest.approx(margin_score(b, a))


def test_float32_input_in_a_narrow_cone():
    generator = np.random.default_rng(0)
    a = (generator.normal(size=(60, 64)) + 20).astype(np.float32)  # cosines near 0.997, as in real decoders
    b = (a + 0.7 * generator.normal(size=a.shape)).astype(np.float32)
    found, expected = sentence_scores(a, b), naive(a, b)
    assert np.mean(found["forward"] != expected["forward"]) == 0
    np.testing.assert_allclose(found["margin"], expected["margin"], atol=1e-6)


def test_ties_are_misses():
    a = np.eye(4)
    b = a.copy()
    b[1] = b[0]  # sentence 0 now ties with candidate 1; sentence 1 has lost its own
    assert sentence_scores(a, b)["forward"].tolist() == [0, 0, 1, 1]
    assert sentence_scores(a, b)["mexa"].tolist() == [0, 0, 1, 1]


def test_zero_vectors_score_nothing_and_make_no_nan():
    scores = sentence_scores(np.zeros((3, 4)), np.ones((3, 4)))
    assert all(np.isfinite(values).all() for values in scores.values()) and scores["forward"].sum() == 0


@pytest.mark.parametrize("shapes", [((3, 4), (2, 4)), ((1, 4), (1, 4)), ((4,), (4,))])
def test_wrong_shapes(shapes):
    with pytest.raises(InputError, match="shape"):
        sentence_scores(*map(np.ones, shapes))


def parallel(count=12, languages=("de", "sw")):
    "Rows in which only the words differ by language."
    rows = [(f"t{i}", language, f"en sentence {i * i}", f"{language} sentence {i * i}") for language in languages for i in range(count)]
    return Dataset.from_list([dict(id=i, domain="d", source=s, target=t, source_lang="en", target_lang=l) for i, l, s, t in rows])


@pytest.fixture(scope="module")
def tiny():
    return tiny_model(), byte_tokenizer()


def test_table_has_exactly_the_contract_columns_and_rows(tiny):
    table = alignment_table(*tiny, parallel(), name="mine", resamples=50)
    assert list(table.columns) == ["model", "layer", "source_lang", "target_lang", "metric", "value", "low", "high"]
    assert set(table["model"]) == {"mine"} and sorted(set(table["layer"])) == [0, 1, 2, 3]
    seen = set(map(tuple, table[["layer", "source_lang", "target_lang", "metric"]].to_numpy()))
    pairs = [("en", "de", "mexa"), ("en", "de", "margin"), ("en", "de", "retrieval_top1"), ("de", "en", "retrieval_top1")]
    pairs += [tuple(x.replace("de", "sw") for x in pair) for pair in pairs]
    assert seen == {(layer, *pair) for layer in range(4) for pair in pairs} and len(table) == len(seen)
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_values_equal_the_metrics(tiny):
    from alignx.evaluate.embeddings import embed_layers

    rows = parallel(languages=["de"])
    a, b = (embed_layers(*tiny, rows[side]) for side in ("source", "target"))
    table = alignment_table(*tiny, rows, layers=[2, 1], resamples=10).set_index(["layer", "source_lang", "metric"])["value"]
    for layer in (1, 2):
        assert table[layer, "en", "retrieval_top1"] == retrieval_accuracy(a[layer], b[layer])
        assert table[layer, "de", "retrieval_top1"] == retrieval_accuracy(b[layer], a[layer])
        assert table[layer, "en", "mexa"] == mexa_score(a[layer], b[layer])
        assert table[layer, "en", "margin"] == pytest.approx(margin_score(a[layer], b[layer]), abs=1e-6)


def test_every_sentence_is_embedded_once(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(alignment, "embed_layers", lambda model, tokenizer, texts, **_: seen.extend(texts) or np.random.rand(2, len(texts), 4))
    rows = list(parallel()) + [dict(row, source=row["target"].replace("de", "fr"), source_lang="fr") for row in parallel(languages=["de"])]
    alignment_items(*tiny, rows)
    assert len(seen) == len(set(seen)) == 4 * 12


def test_row_order_does_not_change_a_value_and_the_seed_fixes_the_intervals(tiny):
    rows = parallel()
    order = ["layer", "source_lang", "target_lang", "metric"]
    first, again = (alignment_table(*tiny, rows, resamples=60).sort_values(order, ignore_index=True) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    shuffled = alignment_table(*tiny, rows.shuffle(seed=1), resamples=60).sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(first[order + ["value"]], shuffled[order + ["value"]])


def test_items_that_cannot_be_told_apart_leave(tiny):
    rows = list(parallel(languages=["de"]))
    rows.append(dict(rows[0], id="twin", source="something else"))  # same target as item t0
    rows.append(dict(rows[1], id="twin2", target="noch etwas"))  # same source as item t1
    assert set(alignment_items(*tiny, rows)["id"]) == {f"t{i}" for i in range(12)}


def test_rows_without_id_are_counted(tiny):
    rows = parallel(languages=["de"]).remove_columns(["id", "domain"])
    assert set(alignment_items(*tiny, rows, layers=[0])["id"]) == set(range(12))


@pytest.mark.parametrize(
    "rows, message",
    [
        ([], "at least one row"),
        ([{"source": "a", "target": "b"}], "source_lang, target_lang"),
        (list(parallel(count=1)), "only one distinct"),
        ([dict(row, id="same") for row in parallel()], "'same' occurs twice"),
    ],
)
def test_rows_that_cannot_be_scored(tiny, rows, message):
    with pytest.raises(InputError, match=message):
        alignment_table(*tiny, rows)


def fake_table(values, model="base"):
    rows = []
    for layer, value in enumerate(values):
        for source, target in (("en", "de"), ("de", "en")):
            rows.append((model, layer, source, target, "retrieval_top1", value))
        rows += [(model, layer, "en", "de", "mexa", value / 2), (model, layer, "en", "de", "margin", value / 4)]
    table = pd.DataFrame(rows, columns=["model", "layer", "source_lang", "target_lang", "metric", "value"])
    return table.assign(low=table["value"], high=table["value"])


def test_best_layer_takes_the_lower_of_equals():
    assert best_layer(fake_table([0.1, 0.6, 0.6, 0.2])) == 1
    assert best_layer(fake_table([0.1, 0.3 - 1e-16 + 0.3, 0.6, 0.2])) == 1
    with pytest.raises(UsageError, match="one model"):
        best_layer(pd.concat([fake_table([1]), fake_table([1], "tuned")]))
    with pytest.raises(InputError, match="retrieval_top1"):
        best_layer(fake_table([1]).query("metric == 'mexa'"))


def test_summary_is_plain_json():
    summary = summarise(fake_table([0.1, 0.8]), 1)
    expected = {"retrieval_top1": {"de": {"from_pivot": 0.8, "to_pivot": 0.8}}, "retrieval_top1_mean": 0.8, "mexa_mean": 0.4, "margin_mean": 0.2}
    assert json.loads(json.dumps(summary)) == expected


def test_summary_of_what_was_not_measured_is_none_and_not_nan():
    table = fake_table([0.1, 0.8])
    some = summarise(table[table["metric"] != "margin"], 1)
    assert some["margin_mean"] is None and some["mexa_mean"] == 0.4
    assert summarise(table.assign(value=float("nan")), 1)["retrieval_top1_mean"] is None


def test_summary_reports_each_direction_by_the_language_that_is_not_the_pivot():
    table = fake_table([0.5])
    table.loc[(table["metric"] == "retrieval_top1") & (table["source_lang"] == "de"), "value"] = 0.2
    assert summarise(table, 0)["retrieval_top1"] == {"de": {"from_pivot": 0.5, "to_pivot": 0.2}}
    assert summarise(table, 0)["retrieval_top1_mean"] == pytest.approx(0.35)


def test_summary_wants_a_pivot_when_there_are_several():
    table = fake_table([0.5])
    both = pd.concat([table, table.replace({"en": "fr"})])
    with pytest.raises(UsageError, match="pivot"):
        summarise(both, 0)
    assert set(summarise(both, 0, pivot="fr")["retrieval_top1"]) == {"de"}
    with pytest.raises(UsageError, match="layer 9"):
        summarise(table, 9)


def test_comparison_finds_the_difference_and_pairs_by_id(tiny):
    items = alignment_items(*tiny, parallel())
    better = items.assign(value=items["value"] + 0.1, model="after").sample(frac=1, random_state=0)
    result = compare_items(items, better, resamples=100)
    assert list(result.columns) == ["layer", "metric", "items", "difference", "low", "high", "p_value", "p_corrected"]
    np.testing.assert_allclose(result[["difference", "low", "high"]], 0.1)
    assert (result["items"] == 12).all() and len(result) == 4 * 3
    assert len(compare_items(items, better, by=["layer", "source_lang", "target_lang", "metric"], resamples=10)) == 4 * 8
    with pytest.raises(InputError, match="one table only"):
        compare_items(items, better[better["id"] != "t3"])


def test_tabulate_keeps_models_apart(tiny):
    items = alignment_items(*tiny, parallel())
    both = tabulate(pd.concat([items, items.assign(model="tuned", value=0.0)]), resamples=20)
    assert (both.loc[both["model"] == "tuned", "value"] == 0).all()
    assert both["model"].value_counts().nunique() == 1


def test_heldout_measure_is_the_mean_of_the_definitions(tiny):
    "Against sentences embedded one by one and double loops, over both languages and both directions."
    from alignx.evaluate.embeddings import embed_layers

    rows, expected = parallel(), {layer: [] for layer in range(4)}
    for language in ("de", "sw"):
        some = parallel(languages=[language])
        a, b = (np.concatenate([embed_layers(*tiny, [text]) for text in some[side]], axis=1) for side in ("source", "target"))
        for layer in range(4):
            scores = naive(a[layer], b[layer])
            expected[layer] += [np.mean(scores["forward"]), np.mean(scores["backward"])]
    tiny[0].train()
    found = heldout_retrieval(rows, tiny[1], batch_size=5)(tiny[0])
    assert tiny[0].training and found == pytest.approx({f"retrieval_layer_{layer}": np.mean(values) for layer, values in expected.items()}, abs=1e-12)
    tiny[0].eval()
    german = heldout_retrieval(rows, tiny[1], languages=["en", "de"])(tiny[0])
    assert german == pytest.approx({f"retrieval_layer_{layer}": np.mean(values[:2]) for layer, values in expected.items()}, abs=1e-12)


def test_heldout_measure_names_a_language_that_is_not_there(tiny):
    with pytest.raises(UsageError, match="unknown language 'ed'"):
        heldout_retrieval(parallel(), tiny[1], languages=["en", "ed"])
    with pytest.raises(UsageError, match="no pair between de, sw; the pairs are en-de, en-sw"):
        heldout_retrieval(parallel(), tiny[1], languages=["de", "sw"])
