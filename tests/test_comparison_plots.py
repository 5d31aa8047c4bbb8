"""Pictures of a comparison: what they draw, in which order, and what they refuse."""
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from alignx.errors import InputError
from alignx.explore import comparison_plots as pictures
from alignx.explore.figures import to_svg
from alignx.explore.plots import layer_curves
from test_plots import table as alignment_table

LANGUAGES = ["en", "de", "sw"]


def matrix(value):
    return pd.DataFrame(np.where(np.eye(3) == 1, np.nan, value), LANGUAGES, LANGUAGES)


def gains():
    rows = [(m, "base", "mexa", l, b, d, d - 0.02, d + 0.02, p) for m, shift in (("aligned", 0.1), ("tuned", 0.0)) for l, b, d, p in (("de", 0.5, shift, 0.01), ("sw", 0.1, -shift, 0.5), ("all", 0.3, shift / 2, 0.2))]
    return pd.DataFrame(rows, columns=["model", "against", "metric", "language", "before", "difference", "low", "high", "p_corrected"])


def changes(metric="perplexity"):
    rows = [("tuned", "base", l, metric, b, c, c - 0.01, c + 0.01, 0.01) for l, b, c in (("en", 30.0, 0.03), ("de", 40.0, -0.01), ("sw", 90.0, 0.2))]
    return pd.DataFrame(rows, columns=["model", "against", "language", "metric", "before", "change", "low", "high", "p_corrected"])


def scores():
    rows = [(m, s, t, "chrf++", v) for m, v in (("base", 10.0), ("tuned", 14.0)) for s, t in (("en", "de"), ("de", "en"), ("en", "sw"), ("sw", "en"))]
    return pd.DataFrame(rows, columns=["model", "source_lang", "target_lang", "metric", "value"]).assign(low=lambda t: t.value - 1, high=lambda t: t.value + 1)


def cosines():
    left = np.round(np.arange(-1, 1, 0.02), 2)
    return pd.concat([pd.DataFrame({"model": m, "kind": k, "left": left, "count": np.where(np.isclose(left, at), 8, 0)}) for m in ("base", "tuned") for k, at in (("translation", 0.8), ("other", 0.4))])


DRAW = {
    "matrices": lambda: pictures.language_matrices({"base": matrix(0.2), "tuned": matrix(0.5)}),
    "one matrix": lambda: pictures.language_matrices({"base": matrix(0.2)}),
    "gains": lambda: pictures.gains_by_language(gains(), "mexa"),
    "price": lambda: pictures.price_by_language(changes(), "en"),
    "scores": lambda: pictures.scores_by_language(scores(), "chrf++", "en", chance=2.0),
    "cosines": lambda: pictures.cosine_histograms(cosines()),
}


@pytest.mark.parametrize("name", DRAW)
def test_figures_are_reproducible_and_small(name):
    first, second = (to_svg(DRAW[name]()) for _ in range(2))
    assert first == second and first.startswith("<svg") and len(first) < 80_000


def test_matrices_share_a_scale_and_the_difference_is_last_minus_first():
    axes = [axis for axis in DRAW["matrices"]().axes if axis.get_title(loc="left")]
    assert [axis.get_title(loc="left") for axis in axes] == ["base\nretrieval top-1", "tuned\nretrieval top-1", "tuned\n− base"]
    ranges = [axis.collections[0].get_clim() for axis in axes]
    assert ranges[0] == ranges[1] == (0, 0.5) and ranges[2] == pytest.approx((-0.3, 0.3))
    assert np.nanmean(np.ma.filled(axes[2].collections[0].get_array().astype(float), np.nan)) == pytest.approx(0.3)


def test_gains_are_sorted_by_the_baseline_and_hollow_where_they_may_be_chance():
    axis = DRAW["gains"]().axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["all  0.30", "sw  0.10", "de  0.50"]
    dots = [line for line in axis.lines if line.get_linestyle() == "None"]
    assert [to_hex(line.get_markerfacecolor()) for line in dots[1::2]] == ["#ffffff"] * 2
    assert dots[0].get_xdata().tolist() == pytest.approx([0.05, -0.1, 0.1]) and dots[1].get_xdata().tolist() == pytest.approx([0.05, -0.1])


def test_the_price_is_in_per_cent_with_the_pivot_apart():
    axis = DRAW["price"]().axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["en", "sw", "de"]
    assert axis.lines[0].get_xdata().tolist() == pytest.approx([3.0, 20.0, -1.0])
    assert "bits per byte" in pictures.price_by_language(changes("bits_per_byte")).axes[0].get_xlabel()


def test_scores_have_a_panel_for_each_direction_or_one():
    assert [axis.get_title(loc="left") or axis.get_title() for axis in DRAW["scores"]().axes] == ["en → x", "x → en"]
    alone = scores().assign(source_lang=lambda t: t.target_lang).drop_duplicates(["model", "source_lang"])
    figure = pictures.scores_by_language(alone, "chrf++")
    assert len(figure.axes) == 1 and len(figure.axes[0].get_yticks()) == 3


def test_a_gap_has_no_dot():
    gap = scores().assign(value=lambda t: t.value.where(t.target_lang != "sw"))
    axis = pictures.scores_by_language(gap, "chrf++", "en").axes[0]
    drawn = [line.get_xdata() for line in axis.lines if line.get_linestyle() == "None"]
    assert len(drawn) == 2 and all(np.isnan(values).sum() == 1 for values in drawn)


def test_cosines_say_their_means():
    texts = [text.get_text() for text in DRAW["cosines"]().axes[0].texts]
    assert texts == ["unrelated: mean 0.41", "translations: mean 0.81"]


def test_the_floor_is_drawn_and_labelled():
    floor = alignment_table(models=("random weights",))
    axis = layer_curves(alignment_table(), layer=2, floor=floor).axes[0]
    assert "--" in [line.get_linestyle() for line in axis.lines] and "random weights" in [text.get_text() for text in axis.texts]


@pytest.mark.parametrize("call, said", [
    (lambda: pictures.language_matrices({"a": matrix(0.1), "b": matrix(0.1).iloc[:2, :2]}), "measure both on the same"),
    (lambda: pictures.gains_by_language(gains(), "mexas"), "mexa"),
    (lambda: pictures.scores_by_language(scores(), "chrf"), "chrf"),
    (lambda: pictures.price_by_language(changes().iloc[:0]), "at least two models"),
    (lambda: pictures.language_matrices({}), "no model"),
])  # fmt: skip
def test_refusals(call, said):
    with pytest.raises(InputError, match=said):
        call()
