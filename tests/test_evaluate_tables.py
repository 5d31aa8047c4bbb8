"""Tables of items against plain loops: means, gaps, intervals, corrections, paired comparisons."""
import numpy as np
import pandas as pd
import pytest

from alignx.errors import InputError, UsageError
from alignx.evaluate.statistics import bootstrap_interval, paired_difference
from alignx.evaluate.tables import COLUMNS, GROUP, check_items, compare_items, correct_p_values, gaps, tabulate


def make_items(model="a", layers=(0, 4, None), metrics=("chrf", "mexa"), languages=("de", "sw"), count=30, seed=0, missing=0.0):
    generator = np.random.default_rng(seed)
    rows = []
    for layer in layers:
        for metric in metrics:
            for language in languages:
                for number in range(count):
                    value = np.nan if generator.random() < missing else generator.random()
                    rows.append((model, layer, "en", language, metric, f"s{number}", value))
    return pd.DataFrame(rows, columns=[*GROUP, "id", "value"]).astype({"layer": "Int64"})


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_every_number_of_the_table_against_a_loop(missing):
    items = make_items(missing=missing)
    table = tabulate(items, resamples=200, seed=3)
    assert list(table.columns) == [*COLUMNS, "n"] and len(table) == 3 * 2 * 2
    for row in table.itertuples():
        same = items["layer"].isna() if row.layer is pd.NA else items["layer"] == row.layer
        values = items[same & (items["metric"] == row.metric) & (items["target_lang"] == row.target_lang)].sort_values("id")["value"].dropna()
        assert row.n == len(values) and row.value == pytest.approx(values.mean(), abs=1e-12)
        assert (row.low, row.high) == pytest.approx(bootstrap_interval(values.to_numpy(), 200, seed=3), abs=1e-12)


def test_order_of_rows_changes_nothing():
    items = make_items(missing=0.2)
    shuffled = items.sample(frac=1, random_state=1)
    order = [*GROUP]
    both = [tabulate(part, 50).sort_values(order).reset_index(drop=True) for part in (items, shuffled)]
    pd.testing.assert_frame_equal(*both)


def test_a_group_without_values_is_a_gap_and_not_a_zero():
    items = make_items(layers=(None,), metrics=("comet",), missing=1.0)
    table = tabulate(items)
    assert table["n"].tolist() == [0, 0] and table[["value", "low", "high"]].isna().all(axis=None)
    named = gaps("a", "comet", [("en", "yi")])
    assert list(named.columns) == [*COLUMNS, "n"] and named["n"].tolist() == [0] and named["value"].isna().all()
    joined = pd.concat([table, named], ignore_index=True)
    assert joined["layer"].dtype == "Int64" and joined["n"].dtype.kind == "i"


def test_tables_survive_parquet(tmp_path):
    table = tabulate(make_items(missing=0.1), 20)
    table.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), table, check_column_type=False)


@pytest.mark.parametrize("spoil, said", [
    (lambda items: items.drop(columns="id"), "missing the columns id"),
    (lambda items: items.iloc[:0], "no rows"),
    (lambda items: pd.concat([items, items.tail(1)]), "'s29' of mexa, en→sw, model 'a' is there twice"),
])  # fmt: skip
def test_what_is_no_table_of_items(spoil, said):
    with pytest.raises(InputError, match=said):
        check_items(spoil(make_items()))


def holm_by_definition(p):
    order = sorted(range(len(p)), key=lambda i: p[i])
    result = [0.0] * len(p)
    for place, i in enumerate(order):
        result[i] = min(1.0, max((len(p) - k) * p[j] for k, j in enumerate(order[: place + 1])))
    return result


def bh_by_definition(p):
    order = sorted(range(len(p)), key=lambda i: p[i])
    result = [0.0] * len(p)
    for place, i in enumerate(order):
        result[i] = min(1.0, min(len(p) * p[j] / (k + 1) for k, j in enumerate(order) if k >= place))
    return result


@pytest.mark.parametrize("seed", range(5))
def test_corrections_by_their_definitions(seed):
    p = np.random.default_rng(seed).random(9) ** 3
    assert correct_p_values(p, "holm") == pytest.approx(holm_by_definition(list(p)))
    assert correct_p_values(p, "bh") == pytest.approx(bh_by_definition(list(p)))
    assert (correct_p_values(p, "none") == p).all()


def test_holm_keeps_false_alarms_of_a_family_below_the_level():
    p = np.random.default_rng(0).random((2000, 11))
    raw, holm = (np.mean([(correct_p_values(row, name) < 0.05).any() for row in p]) for name in ("none", "holm"))
    assert raw > 0.4 and holm < 0.065


def test_impossible_corrections():
    with pytest.raises(UsageError, match="holm"):
        correct_p_values([0.1], "bonferoni")
    for wrong in ([1.2], [np.nan], [[0.1]]):
        with pytest.raises(InputError, match="p values"):
            correct_p_values(wrong)
    assert len(correct_p_values([])) == 0


def test_comparison_by_language_forms_one_family_for_each_metric_and_layer():
    before = make_items()
    after = before.assign(model="b", value=before["value"] + np.random.default_rng(1).normal(0.02, 0.1, len(before)))
    table = compare_items(before, after, by=["layer", "metric", "source_lang", "target_lang"], resamples=300)
    assert len(table) == 12
    for _, family in table.groupby(["layer", "metric"], dropna=False):
        assert family["p_corrected"].tolist() == pytest.approx(holm_by_definition(family["p_value"].tolist()))
    row = table.iloc[0]
    chosen = [part[(part["layer"] == row["layer"]) & (part["metric"] == row["metric"]) & (part["target_lang"] == row["target_lang"])].sort_values("id")["value"] for part in (before, after)]
    alone = paired_difference(*(part.to_numpy() for part in chosen), resamples=300)
    assert (row["difference"], row["low"], row["p_value"]) == pytest.approx((alone.difference, alone.low, alone.p_value))


def test_items_without_a_value_in_either_model_leave_the_comparison():
    before, after = make_items(layers=(None,), metrics=("chrf",), languages=("de",)), make_items("b", layers=(None,), metrics=("chrf",), languages=("de",), seed=1)
    before.loc[3, "value"], after.loc[7, "value"] = np.nan, np.nan
    table = compare_items(before, after)
    kept = [i for i in range(30) if i not in (3, 7)]
    assert table["items"].tolist() == [28] and table["difference"][0] == pytest.approx((after["value"] - before["value"])[kept].mean())
    with pytest.raises(InputError, match="no item has a value"):
        compare_items(before, after.assign(value=np.nan))


def test_two_models_in_one_table_are_not_compared():
    items = make_items()
    with pytest.raises(UsageError, match="'a', 'b'"):
        compare_items(pd.concat([items, items.assign(model="b")]), items)
