"""Pictures of studies: what they draw, hostile names, gaps, single arms and seeds, and what they refuse."""
import warnings
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from alignx.errors import InputError, UsageError
from alignx.evaluate.studies import UNIT_COLUMNS, arm_table, compare_arms
from alignx.evaluate.study_rows import better, decimals, last_stage
from alignx.explore import arm_colors, arm_dots, arm_profile, difference_dots, factor_lines, gradient_lines, tradeoff
from alignx.explore.figures import covered, to_svg
from alignx.explore.palette import OKABE_ITO

METRICS = ["retrieval_top1", "mexa", "chrf_from_pivot", "off_target_from_pivot", "knowledge_novel", "loss_pivot"]
PLAIN = ["base", "SFT", "CPT + SFT", "AlignX", "AlignX without contrastive", "AlignX without language matching", "CPT on all pairs + SFT", "paper"]
HOSTILE = ["base", "_$\\frac{1}{", "<script>\nalert(1)</script> & \"'", "日本語モデル العربية বাংলা ไทย 𓀀", *(f"organisation/{'Multilingual-Model-' * 3}seed-{i}" for i in range(4))]
CASES = {
    "plain": dict(),
    "eight hostile arms": dict(arms=HOSTILE),
    "one arm, one seed": dict(arms=["AlignX"], seeds=1),
    "all alike": dict(arms=HOSTILE[:6], alike=True, seeds=1),
    "gaps": dict(gaps=True),
}


def study(arms=PLAIN, seeds=3, alike=False, gaps=False):
    "Tables of every kind: levels, differences, results by layer, levels over settings, logs."
    random, rows = np.random.default_rng(0), []
    for metric in METRICS:
        scale = {"chrf_from_pivot": 40.0, "loss_pivot": 3.0}.get(metric, 0.7)
        for place, arm in enumerate(arms):
            single = np.full(seeds, scale) if alike else scale * random.uniform(0.8, 1.2, seeds)
            half = 0.0 if alike else scale * 0.1
            value = np.nan if gaps and place == 2 else single.mean()
            rows.append((arm, "tuned", "test", metric, value, value - half, value + half, single.min(), single.max(), seeds))
    levels = pd.DataFrame(rows, columns=["arm", "model", "measure", "metric", "value", "low", "high", "lowest", "highest", "seeds"])
    if gaps:
        levels = levels[~((levels["arm"] == arms[3]) & levels["metric"].isin(METRICS[::2]))]
    differences = levels.assign(against="CPT", difference=levels["value"] - 1, low=levels["low"] - 1, high=levels["high"] - 1).drop(columns=["value", "lowest", "highest"])
    one = levels[levels["arm"] == arms[0]].drop(columns="arm")
    grid = pd.concat([one.assign(arm=f"{x} {hue}", temperature=x, hue=hue, value=one["value"] * (1 if alike else random.uniform(0.8, 1.2)), kind=str(hue)) for x in (0.01, 0.02, 0.05, 0.1, 1.0) for hue in arms])
    if gaps:
        grid.loc[grid["temperature"] == 0.05, ["value", "low", "high"]] = np.nan
    layers = [(arm, s, m, k, a, b, "retrieval_top1", 0.5 if alike else random.random()) for arm in arms for s in range(seeds) for m in ("test", "other languages") for k in range(13) for a, b in (("en", "de"), ("de", "en"))]
    results = pd.DataFrame(layers, columns=["arm", "seed", "measure", "layer", "source_lang", "target_lang", "metric", "value"]).astype({"layer": "Int64"})
    names = ["gradient_norm_lm", "gradient_norm_contrastive", "gradient_norm_language_matching", "gradient_cosine_lm_contrastive", "gradient_cosine_lm_language_matching", "gradient_cosine_contrastive_language_matching"]
    logs = pd.DataFrame([(arm, s, t, *(0.5 if alike else v for v in random.random(6))) for arm in arms[:3] for s in range(seeds) for t in range(0, 50, 5)], columns=["arm", "seed", "step", *names])
    if gaps:
        results.loc[results["layer"] == 5, "value"] = np.nan
        logs.loc[::3, names[3:]] = np.nan
    return dict(levels=levels, differences=differences, grid=grid, results=results, logs=logs, arms=arms)


DRAW = {
    "levels": lambda s: arm_dots(s["levels"], {metric: f"{metric}, in words that are rather long for a title" for metric in METRICS}, baseline=s["arms"][0]),
    "levels of one metric": lambda s: arm_dots(s["levels"], ["mexa"], transforms={"mexa": lambda x: 100 * x}),
    "differences": lambda s: difference_dots(s["differences"], METRICS, transforms={"loss_pivot": lambda d: 100 * np.expm1(d)}),
    "tradeoff": lambda s: tradeoff(s["levels"], "loss_pivot", "mexa", transforms={"loss_pivot": np.exp}),
    "tradeoff of differences": lambda s: tradeoff(s["differences"], "loss_pivot", "mexa", y_table=s["levels"].assign(arm=s["levels"]["arm"])),
    "numbers": lambda s: factor_lines(s["grid"], "temperature", METRICS[:4], hue="hue", logx=True, baseline=s["levels"][s["levels"]["arm"] == s["arms"][0]]),
    "numbers on a linear axis": lambda s: factor_lines(s["grid"][s["grid"]["hue"] == s["arms"][0]], "temperature", METRICS[:2]),
    "categories": lambda s: factor_lines(s["grid"][s["grid"]["temperature"] == 0.1], "hue", METRICS[:2]),
    "categories in colours": lambda s: factor_lines(s["grid"].assign(temperature=s["grid"]["temperature"].map("t{}".format)), "temperature", METRICS[:1], hue="hue"),
    "profile": lambda s: arm_profile(s["results"], layer={arm: 6 for arm in s["arms"][1:]}),
    "gradients": lambda s: gradient_lines(s["logs"], window=3),
}


@pytest.mark.parametrize("name", DRAW)
@pytest.mark.parametrize("case", CASES)
def test_nothing_is_covered_cut_off_or_without_a_glyph(name, case):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = DRAW[name](study(**CASES[case]))
        assert covered(figure) == []
    assert figure.get_figwidth() <= 17 and figure.get_figheight() <= 16
    svg = to_svg(figure)
    ElementTree.fromstring(svg)
    assert "mathdefault" not in svg and len(svg) < 250_000


def dots(axis):
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines if line.get_marker() == "o"]


def test_levels_are_drawn_where_the_table_has_them_with_interval_and_outermost_seeds():
    table = study()["levels"]
    axis = arm_dots(table, METRICS, arms=["AlignX", "base"]).axes[1]
    own = table[table["metric"] == "mexa"].set_index("arm").loc[["AlignX", "base"]]
    assert dots(axis) == [(own["value"].iloc[0], 0), (own["value"].iloc[1], 1)]
    intervals = [segment[:, 0].tolist() for lines in axis.collections for segment in lines.get_segments()]
    assert intervals == own[["low", "high"]].to_numpy().tolist()
    ticks = [line.get_xdata() for line in axis.lines if line.get_marker() == "|"]
    assert np.allclose(ticks, own[["lowest", "highest"]])
    assert axis.yaxis_inverted() and [label.get_text() for label in axis.figure.axes[0].get_yticklabels()] == ["AlignX", "base"]


def test_a_single_seed_has_no_ticks_of_seeds_and_a_gap_says_so():
    axis = arm_dots(study(seeds=1)["levels"], ["mexa"]).axes[0]
    assert not [line for line in axis.lines if line.get_marker() == "|"]
    figure = arm_dots(study(gaps=True)["levels"], METRICS)
    assert [text.get_text() for text in figure.axes[0].texts].count("not measured") == 2


def test_an_arm_keeps_its_colour_in_every_picture():
    s, colors = study(), arm_colors(PLAIN)
    assert set(list(colors.values())[1:]) == set(OKABE_ITO[:7]) and colors["base"] == "#767676"
    some = s["levels"][s["levels"]["arm"].isin(["AlignX", "SFT"])]
    for figure in (arm_dots(some, METRICS, colors=colors), tradeoff(some, "mexa", "loss_pivot", colors=colors)):
        for axis in figure.axes:
            assert [to_hex(line.get_color()).upper() for line in axis.lines if line.get_marker() == "o"] == [colors["SFT"], colors["AlignX"]]


def test_the_real_tables_of_a_study_go_in_as_they_are():
    random = np.random.default_rng(0)
    rows = [(arm, seed, model, measure, metric, l, i, level + random.normal(0, 0.02), 1.0) for arm, model, level in (("base", "base", 0.2), ("CPT", "aligned", 0.3), ("CPT", "tuned", 0.4), ("AlignX", "aligned", 0.6), ("AlignX", "tuned", 0.7))
            for seed in range(1 if arm == "base" else 2) for measure in ("test", "other") for metric in ("retrieval_top1", "loss_pivot") for l in ("de", "sw") for i in range(8)]  # fmt: skip
    units = pd.DataFrame(rows, columns=UNIT_COLUMNS)
    levels, changes = last_stage(arm_table(units, resamples=50)), last_stage(compare_arms(units, "base", resamples=50))
    both = [("test", "retrieval_top1"), ("other", "retrieval_top1")]
    assert [round(x, 1) for x, _ in dots(arm_dots(levels, both).axes[0])] == [0.2, 0.4, 0.7]
    assert [round(x, 1) for x, _ in dots(difference_dots(changes, both).axes[1])] == [0.2, 0.5]
    placed = dots(tradeoff(changes, ("test", "loss_pivot"), both[0], y_table=levels).axes[0])
    assert [(round(x, 1), round(y, 1)) for x, y in placed] == [(0.2, 0.4), (0.5, 0.7), (0.0, 0.2)]
    with pytest.raises(InputError, match="name one, as in"):
        arm_dots(levels, ["retrieval_top1"])


def test_a_difference_is_hollow_where_its_interval_holds_zero_and_the_line_is_where_no_difference_is():
    table = pd.DataFrame([("a", "m", "x", 0.1, -0.1, 0.3), ("b", "m", "x", 0.2, 0.1, 0.3)], columns=["arm", "metric", "against", "difference", "low", "high"])
    for transform, zero in ((None, 0.0), (np.exp, 1.0), (lambda d: -d, 0.0)):
        axis = difference_dots(table, ["m"], transforms={} if transform is None else {"m": transform}).axes[0]
        marked = [line for line in axis.lines if line.get_marker() == "o"]
        assert [line.get_markerfacecolor() == "white" for line in marked] == [True, False]
        assert [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "None"] == [zero]


def test_settings_are_sorted_by_number_and_categories_keep_their_order():
    grid = study()["grid"]
    own = grid[(grid["hue"] == "SFT") & (grid["metric"] == "mexa")].sort_values("temperature", ascending=False)
    line = next(line for line in factor_lines(own, "temperature", ["mexa"]).axes[0].lines if line.get_marker() == "o")
    assert line.get_xdata().tolist() == [0.01, 0.02, 0.05, 0.1, 1.0] and np.allclose(line.get_ydata(), own["value"][::-1])
    axis = factor_lines(own.assign(temperature=own["temperature"].astype(str)), "temperature", ["mexa"]).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1.0", "0.1", "0.05", "0.02", "0.01"]
    flags = own.iloc[:2].assign(centred=[True, False])
    assert [label.get_text() for label in factor_lines(flags, "centred", ["mexa"]).axes[0].get_xticklabels()] == ["True", "False"]


def test_large_numbers_on_a_logarithmic_axis_are_written_at_their_places():
    grid = study()["grid"].query("hue == 'SFT' and metric == 'mexa'").assign(pairs=[1000, 10_000, 100_000, 300_000, 1_000_000])
    axis = factor_lines(grid, "pairs", ["mexa"], logx=True).axes[0]
    written = {label.get_text(): place for label, place in zip(axis.get_xticklabels(), axis.get_xticks())}
    assert {"1,000", "10,000", "100,000"} <= set(written) and all(float(label.replace(",", "")) == place for label, place in written.items())


def test_a_profile_is_the_mean_over_pairs_then_over_seeds_and_rings_the_aligned_layer():
    results = study(arms=["AlignX"])["results"]
    axis = arm_profile(results, layer={"AlignX": 4}).axes[0]
    mean, ring = (line for line in axis.lines if line.get_marker() == "o")
    own = results[results["measure"] == "test"]
    naive = [np.mean([own[(own["layer"] == k) & (own["seed"] == s)]["value"].mean() for s in range(3)]) for k in range(13)]
    assert np.allclose(mean.get_ydata(), naive) and (ring.get_xdata()[0], ring.get_ydata()[0]) == pytest.approx((4, naive[4]))
    dotted = [line for line in arm_profile(results, layer=4).axes[1].lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in dotted] == [4]


def test_gradients_average_seeds_then_steps():
    logs = study(arms=["AlignX"], seeds=2)["logs"]
    thick = [line for line in gradient_lines(logs, window=3).axes[0].lines if line.get_linewidth() > 1]
    mean = logs.groupby("step")["gradient_norm_lm"].mean().to_numpy()
    naive = [mean[max(k - 1, 0) : k + 2].mean() for k in range(len(mean))]
    assert np.allclose(thick[0].get_ydata(), naive)


def test_labels_at_the_ends_of_lines_on_a_logarithmic_axis_stand_beside_them():
    logs = study(arms=["AlignX"], seeds=1)["logs"].assign(gradient_norm_lm=100.0, gradient_norm_contrastive=10.0, gradient_norm_language_matching=1.0)
    axis = gradient_lines(logs).axes[0]
    for label, norm in (("LM", 100.0), ("contrastive", 10.0), ("matching", 1.0)):
        text = next(text for text in axis.texts if text.get_text() == label)
        assert text.xyann[1] == pytest.approx(axis.transAxes.inverted().transform(axis.transData.transform((0, norm)))[1])


def test_directions_and_decimals():
    assert [better(name) for name in ("loss", "loss_pivot", "looping_to_pivot", "copied", "knowledge_novel_not_copyable", "mean_cosine")] == ["lower", "lower", "lower", "lower", "higher", ""]
    assert [decimals(values) for values in ([20.08, 20.5], [0.5, 0.6], [1234.0, 5.0], [])] == [2, 3, 0, 2]
    axis = arm_dots(study()["levels"], ["mexa"], directions={"mexa": "lower"}).axes[0]
    assert axis.get_xlabel() == "← lower is better"


@pytest.mark.parametrize("call, error, words", [
    (lambda s: arm_dots(s["levels"].iloc[:0], ["mexa"]), InputError, "missing rows"),
    (lambda s: arm_dots(s["levels"], []), InputError, "none to show"),
    (lambda s: arm_dots(s["levels"].assign(value=np.nan), ["mexa"]), InputError, "no value of 'mexa' is a number"),
    (lambda s: arm_dots(pd.concat([s["levels"], s["levels"]]), ["mexa"]), InputError, "last_stage"),
    (lambda s: arm_dots(s["levels"], ["mexo"]), UsageError, "did you mean 'mexa'"),
    (lambda s: arm_dots(s["levels"], ["mexa"], arms=["Alignx"]), UsageError, "did you mean 'AlignX'"),
    (lambda s: arm_dots(s["levels"], ["mexa"], baseline="basis"), UsageError, "did you mean 'base'"),
    (lambda s: difference_dots(s["levels"], ["mexa"]), InputError, "pass what compare_arms returns"),
    (lambda s: difference_dots(s["differences"].assign(against=s["differences"]["arm"]), ["mexa"]), InputError, "not one arm to compare with"),
    (lambda s: tradeoff(s["levels"], "mexa", "loss_pivot", y_table=s["levels"].assign(arm="other")), InputError, "twice"),
    (lambda s: tradeoff(s["levels"], "mexa", "loss_pivot", y_table=s["levels"][s["levels"]["arm"] == "SFT"].assign(arm="other")), InputError, "no arm has both"),
    (lambda s: factor_lines(s["grid"], "temperatur", ["mexa"]), UsageError, "did you mean 'temperature'"),
    (lambda s: factor_lines(s["grid"], "temperature", ["mexa"]), InputError, "apart by hue"),
    (lambda s: factor_lines(s["grid"].assign(temperature=np.nan), "temperature", ["mexa"], hue="hue"), InputError, "no row has a value"),
    (lambda s: factor_lines(s["grid"].assign(temperature=lambda t: t["temperature"] - 0.01), "temperature", ["mexa"], hue="hue", logx=True), UsageError, "logarithmic"),
    (lambda s: last_stage(s["levels"].drop(columns="model")), InputError, "missing model"),
    (lambda s: arm_profile(s["results"].drop(columns="seed")), InputError, "missing seed"),
    (lambda s: arm_profile(s["results"], arms=["none"]), UsageError, "unknown arm"),
    (lambda s: arm_profile(s["results"].assign(layer=pd.NA)), InputError, "metric of layers"),
    (lambda s: gradient_lines(s["logs"][["step"]]), InputError, "diagnostics_steps"),
    (lambda s: gradient_lines(s["logs"].drop(columns="arm")), InputError, "there twice"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_said_in_one_line(call, error, words):
    with pytest.raises(error, match=words) as found:
        call(study())
    assert "\n" not in str(found.value)
