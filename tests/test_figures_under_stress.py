"""Every picture with long and hostile names, few and many languages and layers, gaps: nothing covered, cut off or without a glyph."""
import warnings
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest

from alignx.data.languages import DEFAULT_LANGUAGES
from alignx.errors import InputError
from alignx.explore import comparison_plots, plots, profile_plot
from alignx.explore.figures import covered, drawable_characters, new_figure, readable_names, to_png, to_svg

LONG = ["meta-llama/Llama-3.1-8B-Instruct-multilingual-continued-pretrain", "some-organisation/Llama-3.1-8B-Instruct-aligned-layer-16-seed-0", "some-organisation/Llama-3.1-8B-Instruct-aligned-layer-16-seed-1"]
HOSTILE = ["_$\\frac{1}{", "<script>\nalert(1)</script> & \"'", "日本語モデル العربية বাংলা ไทย 𓀀"]
MANY = [*DEFAULT_LANGUAGES, "zh-Hant", "pt-BR", "sr-Latn", "hi", "ta", "id", "fa", "uk", "ko", "it", "nl", "pl", "vi"]
OWN_SCRIPT = ["English", "中文", "Español", "Français", "Deutsch", "Русский", "日本語", "العربية", "বাংলা", "Kiswahili", "ไทย", "Türkçe", "हिन्दी", "தமிழ்", "한국어", "ქართული"]
CASES = {
    "plain": dict(),
    "smallest": dict(models=["base"], layers=[7], languages=DEFAULT_LANGUAGES[:2]),
    "deep": dict(models=["base"], layers=range(49)),
    "hostile names, languages in their own scripts": dict(models=HOSTILE, languages=OWN_SCRIPT),
    "long names, 25 languages": dict(models=LONG, languages=MANY),
    "all alike": dict(alike=True),
    "all at once": dict(models=LONG + HOSTILE, languages=MANY, layers=range(49), gaps=True),
}


@lru_cache(None)
def case(name):
    "Tables of every kind, with the models, languages and layers of a case."
    return tables(**CASES[name])


def tables(models=("base", "aligned", "tuned"), languages=DEFAULT_LANGUAGES, layers=range(7), gaps=False, alike=False):
    "Tables of every kind."
    random, models, languages, layers = np.random.default_rng(0), list(models), list(languages), list(layers)
    pivot, others = languages[0], languages[1:]
    strength = {(m, l): 0.5 if alike else random.uniform(0.2, 0.9) for m in models for l in [*languages, "all"]}
    hump = {layer: 1.0 if alike else np.exp(-((layer / max(max(layers), 1) - 0.55) ** 2) / 0.12) for layer in layers}

    def values(frame, *columns):
        hole = random.random(len(frame)) < (0.3 if gaps else 0)
        frame.loc[hole, list(columns)] = np.nan
        return frame

    table = pd.DataFrame([(m, k, s, t, metric, strength[m, l] * hump[k]) for m in models for l in others for k in layers for s, t in ((pivot, l), (l, pivot)) for metric in ("retrieval_top1", "margin")], columns=["model", "layer", "source_lang", "target_lang", "metric", "value"])
    perplexity = pd.DataFrame([(m, l, 100 * strength[m, l]) for m in models for l in languages], columns=["model", "language", "value"])
    profile = pd.DataFrame([(m, k, metric, strength[m, pivot] * hump[k], 0.1) for m in models for k in layers for metric in ("retrieval_top1", "retrieval_centered", "mexa", "cka", "neighbourhood_overlap", "auc", "language_probe", "mean_cosine", "isotropy")], columns=["model", "layer", "metric", "value", "chance"])
    change = pd.DataFrame([(m, models[0], l, strength[m, l], strength[m, l] - 0.5, random.choice([0.01, 0.5])) for m in models[1:] for l in [*others, "all"]], columns=["model", "against", "language", "before", "difference", "p_corrected"])
    change = values(change.assign(low=lambda t: t.difference - 0.05, high=lambda t: t.difference + 0.05), "difference", "low", "high")
    left = np.round(np.linspace(-1, 0.98, 100), 2)
    cosines = pd.concat([pd.DataFrame({"model": m, "kind": kind, "left": left, "count": np.exp(-((left - at) ** 2) / 0.02) * 1000}) for m in models for kind, at in (("other", 0.2), ("translation", 0.6))])
    square = np.where(np.eye(len(languages)) == 1, np.nan, random.random((len(languages), len(languages))))
    return dict(
        models=models, languages=languages, layers=layers, pivot=pivot, profile=values(profile, "value").assign(low=lambda t: t.value - 0.03, high=lambda t: t.value + 0.03),
        table=values(table, "value").assign(low=lambda t: t.value - 0.05, high=lambda t: t.value + 0.05), perplexity=values(perplexity, "value"), cosines=cosines, gains=change.assign(metric="retrieval_top1"),
        price=change.assign(metric="perplexity", change=change["difference"]), matrices={m: pd.DataFrame(square * strength[m, pivot], languages, languages) for m in models[:4]},
        logs=[{"step": s, **{f"{name}loss": 5 / s for name in ("", "lm_", "contrastive_", "language_matching_", "replay_of_english_")}} for s in range(1, 40)] + [{"step": 20, "eval_loss": 2.0}, {"step": 30, "loss": np.nan}],
    )


DRAW = {
    "layer_curves": lambda c: plots.layer_curves(c["table"], layer=c["layers"][-1], floor=c["table"][c["table"].model == c["models"][0]].assign(model="random weights", value=lambda t: t.value / 5)),
    "language_curves": lambda c: plots.language_curves(c["table"], layer=c["layers"][len(c["layers"]) // 2]),
    "retrieval_by_language": lambda c: plots.retrieval_by_language(c["table"], c["layers"][0]),
    "language_heatmap": lambda c: plots.language_heatmap(c["table"]),
    "margin_heatmap": lambda c: plots.language_heatmap(c["table"], "margin"),
    "perplexity_change": lambda c: plots.perplexity_change(c["perplexity"]),
    "training_losses": lambda c: plots.training_losses(c["logs"]),
    "profile_plot": lambda c: profile_plot(c["profile"], floor=c["profile"][c["profile"].model == c["models"][0]]),
    "language_matrices": lambda c: comparison_plots.language_matrices(c["matrices"]),
    "gains_by_language": lambda c: comparison_plots.gains_by_language(c["gains"]),
    "price_by_language": lambda c: comparison_plots.price_by_language(c["price"], c["pivot"]),
    "cosine_histograms": lambda c: comparison_plots.cosine_histograms(c["cosines"]),
    "scores_by_language": lambda c: comparison_plots.scores_by_language(c["table"][c["table"].layer == c["layers"][0]], "retrieval_top1", c["pivot"], chance=0.1),
}
NEEDS_TWO_MODELS = {"gains_by_language", "price_by_language"}


def draw(name, drawn):
    if name in NEEDS_TWO_MODELS and len(CASES[drawn].get("models", "abc")) < 2:
        pytest.skip("one model has nothing to be compared with")
    return DRAW[name](case(drawn))


@pytest.mark.parametrize("name", DRAW)
@pytest.mark.parametrize("drawn", CASES)
def test_nothing_is_covered_cut_off_or_without_a_glyph(name, drawn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw(name, drawn)
        assert covered(figure) == []
    assert figure.get_figwidth() <= 16 and figure.get_figheight() <= 16


@pytest.mark.parametrize("name", ["layer_curves", "language_heatmap", "scores_by_language"])
def test_the_worst_case_is_still_small_and_valid(name):
    from xml.etree import ElementTree

    figure = draw(name, "all at once")
    ElementTree.fromstring(to_svg(figure))
    assert len(to_png(figure)) < 160_000


def test_a_picture_says_every_digit_that_was_drawn():
    figure, axis = new_figure(4, 3)
    axis.set(ylim=(0.08, 0.115), yticks=[0.0825, 0.095, 0.1125])
    axis.text(0.5, 0.1, "2.71828")
    svg = to_svg(figure)
    assert all(f">{text}<" in svg for text in ("0.0825", "0.0950", "0.1125", "2.71828"))


def test_a_letter_that_no_font_has_never_reaches_the_figure():
    figure = DRAW["layer_curves"](case("hostile names, languages in their own scripts"))
    words = "".join(text.get_text() for axis in figure.axes for text in axis.texts)
    assert "?" in words and all(ord(letter) in drawable_characters() for letter in words)


@pytest.mark.parametrize("name", ["gains_by_language", "retrieval_by_language", "perplexity_change", "scores_by_language"])
def test_a_legend_leaves_no_model_out(name):
    figure = draw(name, "hostile names, languages in their own scripts")
    written = [text.get_text().strip() for text in figure.legends[0].get_texts()]
    assert written == list(readable_names(HOSTILE).values())[name in NEEDS_TWO_MODELS :]


@pytest.mark.parametrize("call", [
    lambda c: plots.layer_curves(c["table"].iloc[:0]),
    lambda c: plots.layer_curves(c["table"].assign(value=np.nan)),
    lambda c: plots.perplexity_change(c["perplexity"].iloc[:0]),
    lambda c: plots.perplexity_change(c["perplexity"].assign(value=np.nan)),
    lambda c: plots.retrieval_by_language(pd.concat([c["table"], c["table"]]), 0),
    lambda c: profile_plot(c["profile"].iloc[:0]),
    lambda c: comparison_plots.cosine_histograms(c["cosines"].iloc[:0]),
    lambda c: comparison_plots.gains_by_language(c["gains"].iloc[:0]),
    lambda c: comparison_plots.price_by_language(c["price"].iloc[:0]),
    lambda c: comparison_plots.scores_by_language(c["table"].iloc[:0], "retrieval_top1"),
    lambda c: comparison_plots.language_matrices({"base": pd.DataFrame(np.nan, ["en"], ["en"])}),
])  # fmt: skip
def test_nothing_to_draw_is_said_in_one_line(call):
    with pytest.raises(InputError) as found:
        call(case("plain"))
    assert "\n" not in str(found.value)
