"""All metrics of a model from one pass: the same values as one by one, gaps by name, nothing that depends on the company."""
import numpy as np
import pandas as pd
import pytest
import torch

from alignx.demo import demo_corpus, demo_model
from alignx.errors import InputError, UsageError
from alignx.evaluate import alignment, measuring
from alignx.evaluate.alignment import alignment_table
from alignx.evaluate.embeddings import embed_layers
from alignx.evaluate.geometry import debiased_cka, iso_score, language_probe, mean_cosine
from alignx.evaluate.measuring import ALL_METRICS, center_by_language, measure_alignment
from alignx.evaluate.profile import chance_levels, floor_measures, floor_table, profile_table, random_weights
from alignx.evaluate.similarity import mexa_layers, neighbourhood_overlap, retrieval_accuracy, sentence_scores
from evaluate_tools import byte_tokenizer, tiny_model
from test_evaluate_alignment import parallel

KEYS = ["layer", "source_lang", "target_lang", "metric"]


@pytest.fixture(scope="module")
def tiny():
    return tiny_model(), byte_tokenizer()


@pytest.fixture(scope="module")
def measured(tiny):
    return measure_alignment(*tiny, parallel(), resamples=50)


def lookup(table, layer, source, target, metric):
    rows = table[(table["layer"].isna() if layer is None else table["layer"].eq(layer)) & table["source_lang"].eq(source) & table["target_lang"].eq(target) & table["metric"].eq(metric)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_every_number_equals_its_function(tiny, measured):
    rows = parallel()
    for language in ("de", "sw"):
        some = parallel(languages=[language])
        a, b = (embed_layers(*tiny, some[side]) for side in ("source", "target"))
        for layer in range(4):
            value = lambda metric, source="en", target=language: lookup(measured.table, layer, source, target, metric)["value"]
            scores, centred = sentence_scores(a[layer], b[layer]), [x[layer] - x[layer].mean(0) for x in (a, b)]
            assert value("retrieval_top1") == scores["forward"].mean() and value("retrieval_top1", language, "en") == scores["backward"].mean()
            for metric in ("mexa", "margin", "auc", "cosine"):
                assert value(metric) == pytest.approx(scores[metric].mean(), abs=1e-6)
            assert value("neighbourhood_overlap") == pytest.approx(neighbourhood_overlap(a[layer], b[layer]).mean(), abs=1e-6)
            assert value("retrieval_centered") == retrieval_accuracy(*centred) and value("retrieval_centered", language, "en") == retrieval_accuracy(*centred[::-1])
            assert value("cka") == pytest.approx(debiased_cka(a[layer], b[layer]).value, abs=1e-5)
            assert value("mean_cosine", language) == pytest.approx(mean_cosine(b[layer]).value, abs=1e-5)
            assert value("isotropy", language) == pytest.approx(iso_score(b[layer]).value, abs=1e-5)
        assert lookup(measured.table, None, "en", language, "mexa_layers")["value"] == pytest.approx(mexa_layers(a, b))
    texts = {"en": parallel(languages=["de"])["source"], "de": parallel(languages=["de"])["target"], "sw": parallel(languages=["sw"])["target"]}
    vectors = np.concatenate([embed_layers(*tiny, text, layers=[2])[0] for text in texts.values()])
    probe = language_probe(vectors, np.repeat(list(texts), 12), [f"t{i}" for i in range(12)] * 3).groupby("language")["value"].mean()
    assert all(lookup(measured.table, 2, language, language, "language_probe")["value"] == probe[language] for language in texts)
    assert set(measured.table["metric"]) == set(ALL_METRICS) and not measured.table.duplicated(KEYS).any()


def test_the_three_old_metrics_are_the_old_table(tiny, measured):
    old = alignment_table(*tiny, parallel(), resamples=50).sort_values(KEYS, ignore_index=True)
    new = measured.table[measured.table["metric"].isin(alignment.METRICS)].sort_values(KEYS, ignore_index=True)[list(old.columns)]
    pd.testing.assert_frame_equal(old, new, check_dtype=False)


def test_each_language_passes_once(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(measuring, "embed_layers", lambda model, tokenizer, texts, **_: seen.append(texts) or np.random.rand(2, len(texts), 4))
    measure_alignment(*tiny, parallel(), resamples=5)
    assert len(seen) == 3 and len(set(sum(seen, []))) == sum(map(len, seen)) == 36


def test_nothing_depends_on_batch_size_padding_side_or_order(tiny, measured):
    model, tokenizer = tiny
    order = measured.table.sort_values(KEYS, ignore_index=True)
    for other in (
        measure_alignment(model, tokenizer, parallel(), batch_size=5, resamples=50),
        measure_alignment(model, byte_tokenizer(padding_side="left"), parallel(), resamples=50),
        measure_alignment(model, tokenizer, parallel().shuffle(seed=3), resamples=50),
    ):
        found = other.table.sort_values(KEYS, ignore_index=True)
        pd.testing.assert_frame_equal(found[KEYS + ["n"]], order[KEYS + ["n"]])
        np.testing.assert_allclose(found["value"], order["value"], atol=2e-5)


def test_centred_measures_are_those_of_centred_vectors(tiny):
    some = parallel(languages=["de"])
    found = measure_alignment(*tiny, some, metrics=["margin", "mean_cosine"], centered=True, layers=[2], resamples=5).table
    vectors = embed_layers(*tiny, [*some["source"], *some["target"]], layers=[2])
    a, b = np.split(center_by_language(vectors, ["en"] * 12 + ["de"] * 12)[0], 2)
    assert lookup(found, 2, "en", "de", "margin")["value"] == pytest.approx(sentence_scores(a, b)["margin"].mean(), abs=1e-5)
    assert lookup(found, 2, "de", "de", "mean_cosine")["value"] == pytest.approx(mean_cosine(b).value, abs=1e-5)
    np.testing.assert_allclose(a.mean(0), 0, atol=1e-6)
    with pytest.raises(InputError, match="one for each sentence"):
        center_by_language(vectors, ["en"])


def test_a_language_without_sentences_is_a_named_gap_and_no_zero(tiny):
    table = measure_alignment(*tiny, parallel(), languages=["en", "de", "xx"], resamples=5).table
    missing = table[table["source_lang"].eq("xx") | table["target_lang"].eq("xx")]
    assert set(missing["metric"]) == set(ALL_METRICS) and (missing["n"] == 0).all() and missing[["value", "low", "high"]].isna().all(axis=None)
    assert "sw" not in set(table["target_lang"]) and (table["n"] > 0).sum() == len(table) - len(missing)
    assert len(missing) == 4 * (2 * 2 + 5 + 1 + 3) + 1  # by layer: both ways, pairs, cka, language metrics; and mexa_layers


def test_too_few_sentences_leave_gaps_where_a_metric_needs_more(tiny):
    table = measure_alignment(*tiny, parallel(count=3, languages=["de"]), layers=[1], resamples=5).table.set_index(["metric", "source_lang"])
    assert np.isnan(table.loc[("cka", "en"), "value"]) and table.loc[("cka", "en"), "n"] == 0
    assert table.loc[("retrieval_top1", "en"), "n"] == 3


def test_requests_and_data_that_make_no_sense(tiny):
    with pytest.raises(UsageError, match="did you mean 'mexa'"):
        measure_alignment(*tiny, parallel(), metrics=["mexxa"])
    with pytest.raises(UsageError, match="no pair between de, sw"):
        measure_alignment(*tiny, parallel(), languages=["de", "sw"])
    with pytest.raises(InputError, match="only one distinct"):
        measure_alignment(*tiny, parallel(count=1))
    broken = tiny_model()
    broken.model.norm.weight.data[0] = float("nan")
    with pytest.raises(InputError, match="model.norm.weight.*broken"):
        measure_alignment(broken, tiny[1], parallel())
    with pytest.raises(UsageError, match="no tokenizer"):
        measure_alignment(tiny[0], None, parallel())


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "xlmr", "t5", "bloom"])
def test_random_weights_share_nothing_but_the_shape(kind):
    model = tiny_model(kind, seed=5)
    state = torch.random.get_rng_state()
    fresh, again, other = random_weights(model), random_weights(model), random_weights(model, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state) and not fresh.training and type(fresh) is type(model)
    for (name, old), new, same, different in zip(model.named_parameters(), fresh.parameters(), again.parameters(), other.parameters()):
        assert old.shape == new.shape and torch.equal(new, same)
        if old.ndim > 1:
            assert not torch.equal(old, new) and not torch.equal(new, different), name


def test_random_weights_keep_the_precision_and_refuse_other_modules():
    assert random_weights(tiny_model().to(torch.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(UsageError, match="expected a transformers model, got Linear"):
        random_weights(torch.nn.Linear(2, 2))


def test_profile_is_a_mean_over_languages_with_chance(measured):
    profile = profile_table(measured, resamples=50)
    assert not profile.duplicated(["layer", "metric"]).any() and set(profile["metric"]) == set(ALL_METRICS)
    for row in profile.itertuples():
        assert row.value == pytest.approx(measured.table[measured.table["metric"].eq(row.metric) & (measured.table["layer"].eq(row.layer) | pd.isna(row.layer))]["value"].mean())
    at = profile.dropna(subset="layer").query("layer == 1").set_index("metric")["chance"]
    assert at["retrieval_top1"] == pytest.approx(1 / 12) and at["mexa"] == pytest.approx(1 / 23) and at["language_probe"] == pytest.approx(1 / 3)
    assert at["neighbourhood_overlap"] == pytest.approx(5 / 11) and at["auc"] == 0.5 and at["cka"] == 0 and np.isnan(at["isotropy"])
    with pytest.raises(InputError, match="nothing was measured"):
        profile_table(measuring.AlignmentMeasures(measured.items.iloc[:0], measured.table.iloc[:0]))


def test_the_floor_of_the_embedded_model_is_far_above_chance():
    "Shared names and digits: an untrained network finds many German and Turkish translations."
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alignx.data import load_parallel

    model, tokenizer = AutoModelForCausalLM.from_pretrained(demo_model(), dtype=torch.float32), AutoTokenizer.from_pretrained(demo_model())
    rows = load_parallel(demo_corpus(), languages=["en", "de", "tr"], split="test")
    table = floor_table(model, tokenizer, rows, metrics=["retrieval_top1"], layers=[0, 3], resamples=100)
    assert set(table["model"]) == {"random weights"}
    table = table.assign(chance=chance_levels(table))
    assert (table.groupby(["source_lang", "target_lang"])["low"].max() > 10 / 340).all() and np.allclose(table["chance"], 1 / 340)
    untrained, trained = (x.table.query("layer == 3")["value"].mean() for x in (floor_measures(model, tokenizer, rows, metrics=["auc"], layers=[3]), measure_alignment(model, tokenizer, rows, metrics=["auc"], layers=[3])))
    assert trained > untrained + 0.05
