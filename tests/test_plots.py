"""Plots: what they draw, that they reproduce, and what they refuse."""
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from alignx.data.languages import DEFAULT_LANGUAGES
from alignx.errors import InputError, UsageError
from alignx.explore import plots
from alignx.explore.figures import spread
from alignx.explore.palette import PALETTE, language_colors, language_markers, model_colors


def table(models=("base", "aligned", "tuned"), languages=("de", "sw", "zh"), layers=range(4)):
    rows = []
    for m, model in enumerate(models):
        for i, language in enumerate(languages):
            for layer in layers:
                value = 0.1 * (m + 1) + 0.05 * i + 0.02 * layer
                for source, target in (("en", language), (language, "en")):
                    rows.append((model, layer, source, target, "retrieval_top1", value + 0.01 * (source == "en")))
                rows += [(model, layer, "en", language, metric, value * factor) for metric, factor in (("mexa", 0.5), ("margin", -0.1))]
    frame = pd.DataFrame(rows, columns=["model", "layer", "source_lang", "target_lang", "metric", "value"])
    return frame.assign(low=frame["value"] - 0.02, high=frame["value"] + 0.02)


LOGS = [{"step": s, "loss": 5 / s, "contrastive_loss": 1 / s, "learning_rate": 1e-4} for s in range(1, 40)] + [{"step": 39, "eval_loss": 0.3}, {"step": 39, "train_loss": 1.0}]
PERPLEXITY = pd.DataFrame([("base", "de", 30.0), ("base", "sw", 80.0), ("tuned", "de", 25.0), ("tuned", "sw", 60.0)], columns=["model", "language", "value"])
DRAW = {
    "layer_curves": lambda t: plots.layer_curves(t, layer=2),
    "language_curves": lambda t: plots.language_curves(t, "base", layer=2),
    "retrieval_by_language": lambda t: plots.retrieval_by_language(t, 2),
    "language_heatmap": plots.language_heatmap,
    "perplexity_change": lambda t: plots.perplexity_change(PERPLEXITY),
    "training_losses": lambda t: plots.training_losses(LOGS),
}


@pytest.mark.parametrize("name", DRAW)
def test_figures_are_reproducible_small_and_without_outside_references(name, recwarn):
    first, second = (plots.to_svg(DRAW[name](table())) for _ in range(2))
    assert first == second and len(first) < 60_000
    root = ElementTree.fromstring(first)
    assert root.tag.endswith("svg") and "metadata" not in first
    links = [value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not [w for w in recwarn if "glyph" in str(w.message).lower()]


@pytest.mark.parametrize("metric", ["retrieval_top1", "mexa", "margin"])
@pytest.mark.parametrize("size", [((("base",)), ("de",), [0]), (("base", "mine"), ("de", "sw"), range(33))])
def test_every_metric_and_size(metric, size):
    t = table(*size)
    for figure in (plots.layer_curves(t, metric), plots.language_curves(t, metric=metric), plots.retrieval_by_language(t, 0, metric), plots.language_heatmap(t, metric)):
        assert isinstance(figure, Figure) and len(plots.to_svg(figure)) > 1000


def test_the_caller_s_matplotlib_style_is_left_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.to_svg(plots.layer_curves(table()))
    assert dict(matplotlib.rcParams) == before


def test_curves_hold_the_means_and_mark_the_layer():
    axis = plots.layer_curves(table(), layer=2).axes[0]
    lines = {to_hex(line.get_color()): line for line in axis.lines if line.get_linestyle() == "-"}
    rows = table().query("metric == 'retrieval_top1'")
    for model, color in model_colors(["base", "aligned", "tuned"]).items():
        np.testing.assert_allclose(lines[color.lower()].get_ydata(), rows[rows["model"] == model].groupby("layer")["value"].mean())
    assert [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == ":"] == [2]
    assert {"base", "aligned", "tuned"} <= {text.get_text() for text in axis.texts}


def test_dots_hold_the_values_and_are_sorted_by_the_baseline():
    t = table()
    t.loc[(t["model"] == "base") & (t["target_lang"] == "zh"), "value"] = 0.001  # now the hardest from English
    t.loc[(t["model"] == "base") & (t["source_lang"] == "zh"), "value"] = 0.001
    figure = plots.retrieval_by_language(t, 1)
    order = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert order == ["zh", "de", "sw"]
    rows = t.query("metric == 'retrieval_top1' and layer == 1 and model == 'tuned'")
    for axis, here, there in ((figure.axes[0], "source_lang", "target_lang"), (figure.axes[1], "target_lang", "source_lang")):
        own = rows[rows[here] == "en"].set_index(there)["value"].reindex(order)
        drawn = next(line for line in axis.lines if line.get_label() == "tuned")
        np.testing.assert_allclose(drawn.get_xdata(), own)


def test_heatmap_panels_share_one_scale_and_order():
    figure = plots.language_heatmap(table())
    meshes = [axis.collections[0] for axis in figure.axes[:3]]
    assert {mesh.get_clim() for mesh in meshes} == {(0, 1)}
    assert [axis.get_title(loc="left") for axis in figure.axes[:3]] == ["base", "aligned", "tuned"]
    mean = table().query("metric == 'retrieval_top1' and model == 'aligned'")
    mean = mean.assign(language=np.where(mean["source_lang"] == "en", mean["target_lang"], mean["source_lang"])).groupby(["language", "layer"])["value"].mean()
    np.testing.assert_allclose(np.ravel(meshes[1].get_array()), mean.unstack().loc[["zh", "sw", "de"]].to_numpy().ravel())


def test_losses_have_a_panel_each_and_their_evaluations():
    figure = plots.training_losses(LOGS)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["loss", "contrastive loss"]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [5 / s for s in range(1, 40)])
    assert figure.axes[0].lines[-1].get_ydata()[0] == 0.3


def test_labels_never_overlap_and_stay_inside():
    for heights in ([0.5] * 8, [0, 0, 0, 1, 1], [0.1, 0.4, 0.9], [0.99, 1.0]):
        apart = spread(heights, 0.06)
        assert (np.diff(apart) >= 0.06 - 1e-9).all() and apart.min() >= 0 and apart.max() <= 1 + 1e-9
    np.testing.assert_allclose(spread([0.1, 0.4, 0.9], 0.06), [0.1, 0.4, 0.9])
    np.testing.assert_allclose(spread([0.5, 0.5], 0.1), [0.45, 0.55])


def test_colours_are_fixed_distinct_and_independent_of_company():
    colors = language_colors(DEFAULT_LANGUAGES)
    assert len(set(colors.values())) == len(DEFAULT_LANGUAGES) == len(set(language_markers(DEFAULT_LANGUAGES).values()))
    many = [a + b for a in "bkmpt" for b in "aeiou"] + list(DEFAULT_LANGUAGES)
    assert all(language_colors([code])[code] == color for code, color in language_colors(many).items())
    assert len(set(PALETTE)) == 16 and all(re.fullmatch("#[0-9A-F]{6}", color) for color in PALETTE)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: plots.layer_curves(table(), "retrieval"), "did you mean 'retrieval_top1'"),
        (lambda: plots.retrieval_by_language(table(), 9), "unknown layer 9"),
        (lambda: plots.language_curves(table(), "tune"), "did you mean 'tuned'"),
        (lambda: plots.layer_curves(pd.DataFrame({"model": []})), "alignment table"),
        (lambda: plots.layer_curves(pd.concat([table(), table().replace({"en": "fr", "de": "ru"})])), "pivot"),
        (lambda: plots.training_losses([{"step": 1}]), "logging_steps"),
        (lambda: plots.perplexity_change(PERPLEXITY.drop(columns="value")), "value"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_second_pivot_is_a_usage_error():
    with pytest.raises(UsageError):
        plots.language_heatmap(pd.concat([table(), table().replace({"en": "fr", "de": "ru"})]))
