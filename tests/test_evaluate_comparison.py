"""All pairs of languages, and models against the first, each against plain loops."""
import numpy as np
import pandas as pd
import pytest
from itertools import permutations

from alignx.errors import InputError, UsageError
from alignx.evaluate.alignment import retrieval_accuracy
from alignx.evaluate.comparison import at_layers, by_language, compare_models, overall_table
from alignx.evaluate.embeddings import embed_layers
from alignx.evaluate.language_pairs import BINS, as_matrix, language_pairs, measure_language_pairs, tuples_of
from alignx.evaluate.statistics import bootstrap_interval, paired_difference
from alignx.evaluate.tables import ITEM_COLUMNS
from evaluate_tools import byte_tokenizer, tiny_model

TEXTS = {
    "en": ["Peace.", "Everyone.", "A house", "the sea", "bread", "no"],
    "de": ["Frieden.", "Jeder.", "Ein Haus", "das Meer", "Brot", "nein"],
    "sw": ["Amani.", "Kila mtu.", "Nyumba", "bahari", None, "hapana"],
}


def rows():
    pairs = [(f"t{i}", TEXTS["en"][i], TEXTS[l][i], l) for l in ("de", "sw") for i in range(6) if TEXTS[l][i]]
    return [dict(id=i, source=s, target=t, source_lang="en", target_lang=l) for i, s, t, l in pairs]


def test_tuples_come_together_by_id():
    tuples = tuples_of(rows())
    assert list(tuples.columns) == ["en", "de", "sw"] and tuples.loc["t2", "sw"] == "Nyumba" and pd.isna(tuples.loc["t4", "sw"])
    twice = rows() + [dict(id="t9", source="Peace.", target="Friede.", source_lang="en", target_lang="de")]
    assert pd.isna(tuples_of(twice).loc["t9", "en"]) and tuples_of(twice).loc["t9", "de"] == "Friede."
    with pytest.raises(InputError, match="id"):
        tuples_of([{key: value for key, value in row.items() if key != "id"} for row in rows()])


def test_all_directions_equal_a_loop_over_pairs():
    model, tokenizer = tiny_model(), byte_tokenizer()
    measured = measure_language_pairs(model, tokenizer, rows(), layer=2, name="m")
    matrix = as_matrix(measured.table)
    for first, second in permutations(TEXTS, 2):
        common = [i for i in range(6) if TEXTS[first][i] and TEXTS[second][i]]
        a, b = (embed_layers(model, tokenizer, [TEXTS[l][i] for i in common], layers=[2])[0] for l in (first, second))
        assert matrix.loc[first, second] == pytest.approx(retrieval_accuracy(a, b))
        row = measured.table.query("source_lang == @first and target_lang == @second").iloc[0]
        assert row["n"] == len(common) and row["layer"] == 2 and row["model"] == "m"
    assert np.isnan(np.diag(matrix)).all()


def test_histograms_count_every_cosine_once():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 2100, 5))
    counts = language_pairs({"en": (list(range(2100)), a), "de": (list(range(2100)), b)}, 0).cosines.groupby("kind")["count"].sum()
    assert counts["translation"] == 2100 and abs(counts["other"] - 2100 * 2099) <= 2
    small = language_pairs({"en": ([0, 1], a[:2]), "de": ([0, 1], b[:2])}, 0).cosines
    cosine = lambda x, y: x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    for kind, values in (("translation", [cosine(a[i], b[i]) for i in range(2)]), ("other", [cosine(a[0], b[1]), cosine(a[1], b[0])])):
        assert small[small["kind"] == kind]["count"].tolist() == np.histogram(values, BINS)[0].tolist()


def test_languages_without_common_tuples_are_a_gap():
    vectors = np.random.default_rng(0).normal(size=(3, 4))
    measured = language_pairs({"en": (["a", "b", "c"], vectors), "de": (["a", "b", "c"], vectors), "yi": (["x", "y", "a"], vectors)}, 1)
    gap = measured.table.query("target_lang == 'yi' or source_lang == 'yi'")
    assert len(measured.table) == 6 and gap["n"].tolist() == [0] * 4 and gap["value"].isna().all()
    assert measured.table.query("source_lang == 'en' and target_lang == 'de'")["value"].item() == 1.0
    with pytest.raises(InputError, match="tuples in common"):
        language_pairs({"en": (["a"], vectors[:1]), "de": (["b"], vectors[:1])}, 1)


def items(models=("base", "tuned"), count=25, missing=()):
    generator, parts = np.random.default_rng(1), []
    for name in models:
        for layer in (1, 2):
            for metric in ("retrieval_top1", "margin"):
                for other in ("de", "sw"):
                    for source, target in (("en", other), (other, "en"))[: 2 if metric == "retrieval_top1" else 1]:
                        ids = [f"t{i}" for i in range(count) if (other, i) not in missing]
                        parts.append(pd.DataFrame({"model": name, "layer": layer, "source_lang": source, "target_lang": target, "metric": metric, "id": ids, "value": generator.random(len(ids))}))
    return pd.concat(parts)[ITEM_COLUMNS].astype({"layer": "Int64"})


def test_a_language_is_the_mean_of_its_directions():
    table, found = items(), by_language(items(), "en")
    for row in found.sample(20, random_state=0).itertuples():
        same = table[(table["model"] == row.model) & (table["layer"] == row.layer) & (table["metric"] == row.metric) & (table["id"] == row.id)]
        values = same[(same["source_lang"] == row.source_lang) | (same["target_lang"] == row.source_lang)]["value"]
        assert row.value == pytest.approx(values.mean()) and len(values) == (2 if row.metric == "retrieval_top1" else 1)
    with pytest.raises(InputError, match="'en'"):
        by_language(items(), "eng")


@pytest.mark.parametrize("missing", [(), (("sw", 3), ("sw", 4))])
def test_comparison_against_plain_loops(missing):
    chosen = at_layers(items(missing=missing), {"base": 2, "tuned": 1})
    table = compare_models(chosen, "en", resamples=200).set_index(["metric", "language"])
    languages = by_language(chosen, "en")
    for metric in ("retrieval_top1", "margin"):
        sides = [languages[(languages["model"] == name) & (languages["metric"] == metric)] for name in ("base", "tuned")]
        for other in ("de", "sw"):
            a, b = (side[side["source_lang"] == other].sort_values("id")["value"].to_numpy() for side in sides)
            alone = paired_difference(a, b, 200)
            row = table.loc[(metric, other)]
            assert (row["difference"], row["low"], row["high"], row["p_value"]) == pytest.approx((alone.difference, alone.low, alone.high, alone.p_value))
            assert row["before"] == pytest.approx(a.mean()) and row["after"] == pytest.approx(b.mean()) and row["n"] == len(a)
        assert table.loc[(metric, "all"), "p_corrected"] == table.loc[(metric, "all"), "p_value"]
        assert table.loc[(metric, "all"), "before"] == pytest.approx(overall_table(chosen, "en", 10).query("metric == @metric and model == 'base'")["value"].item())
    order = compare_models(chosen, "en", resamples=10).query("metric == 'margin'")
    assert order["language"].iloc[-1] == "all" and order["before"].iloc[0] >= order["before"].iloc[1]


def test_overall_draws_tuples_with_all_their_languages():
    chosen = at_layers(items(models=["base"]), {"base": 2})
    row = overall_table(chosen, "en", resamples=300).query("metric == 'retrieval_top1'").iloc[0]
    languages = by_language(chosen, "en").query("metric == 'retrieval_top1'")
    means = languages.groupby("id")["value"].mean()
    assert row["n"] == 25 and row["value"] == pytest.approx(means.mean()) and (row["low"], row["high"]) == pytest.approx(bootstrap_interval(means.to_numpy(), 300))


def test_refusals():
    with pytest.raises(UsageError, match="two or more"):
        compare_models(at_layers(items(["base"]), {"base": 1}), "en")
    with pytest.raises(UsageError, match="layer 7"):
        at_layers(items(), {"base": 7})
    with pytest.raises(InputError, match="same rows"):
        chosen = at_layers(items(), {"base": 1, "tuned": 1})
        compare_models(chosen[~((chosen["model"] == "tuned") & (chosen["id"] == "t3"))], "en")
    with pytest.raises(UsageError, match="one model"):
        as_matrix(pd.DataFrame({"model": ["a", "b"], "source_lang": ["en", "en"], "target_lang": ["de", "de"], "value": [0, 1]}))
