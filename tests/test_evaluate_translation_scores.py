"""Scores of translations: sacrebleu's numbers, intervals, paired tests, checks with controls, COMET's files."""
import json
import math

import numpy as np
import pandas as pd
import pytest
import sacrebleu

from alignx.data import DEFAULT_LANGUAGES, load_parallel
from alignx.demo import demo_corpus
from alignx.errors import InputError, UsageError
from alignx.evaluate.comet import read_comet, write_comet
from alignx.evaluate.statistics import bootstrap_interval
from alignx.evaluate.tables import COLUMNS, ITEM_COLUMNS, check_items, compare_items
from alignx.evaluate.translation import both_directions
from alignx.evaluate.translation_checks import CHECKS, copied, loop_length, off_target, translation_items, translation_table
from alignx.evaluate.translation_scores import _draws, bleu_scores, bleu_tokenizer, chrf_scores, compare_translations, corpus_score, score_counts, score_table, signatures


@pytest.fixture(scope="module")
def outputs():
    "Real sentences in both directions; hypotheses are references with words dropped, doubled and swapped."
    chosen = load_parallel(demo_corpus(), languages=["en", "de", "zh", "th", "ru"], split="test").filter(lambda row: len(row["source"]) >= 25)
    table = both_directions(chosen).to_pandas().rename(columns={"target": "reference"})
    random = np.random.default_rng(0)

    def damaged(text):
        words = text.split() if " " in text else list(text)
        words = [word for word in words for _ in range(random.choice([0, 1, 1, 1, 2]))]
        return (" " if " " in text else "").join(words)

    return table.assign(hypothesis=[damaged(text) for text in table["reference"]], stopped="eos")


def value(table, metric, pair):
    return table[(table["metric"] == metric) & (table["source_lang"] == pair[0]) & (table["target_lang"] == pair[1])].iloc[0]


def theirs(metric, language):
    return sacrebleu.CHRF(word_order=2) if metric == "chrf" else sacrebleu.BLEU(tokenize=bleu_tokenizer(language), force=True)


def test_corpus_scores_are_sacrebleus_to_the_last_bit(outputs):
    table = score_table(outputs, "m")
    assert len(table) == 2 * 8 and list(table.columns) == [*COLUMNS, "n"] and table["layer"].isna().all()
    for pair, part in outputs.groupby(["source_lang", "target_lang"]):
        for metric in ("chrf", "bleu"):
            row = value(table, metric, pair)
            assert row["value"] == theirs(metric, pair[1]).corpus_score(part["hypothesis"].tolist(), [part["reference"].tolist()]).score
            assert row["low"] < row["value"] < row["high"] and row["n"] == len(part)


@pytest.mark.parametrize("metric, formula", [("chrf", chrf_scores), ("bleu", bleu_scores)])
def test_many_draws_at_once_are_what_sacrebleu_says_of_each(outputs, metric, formula):
    part = outputs[outputs["target_lang"] == "zh"]
    counts = score_counts(metric, part["hypothesis"].tolist(), part["reference"].tolist(), "zh")
    draws = np.concatenate([_draws(counts, 50, 1), counts, np.zeros((1, counts.shape[1]), int), score_counts(metric, ["", "a", "a b", "x"], ["a b c", "a", "", "y"], "zh")])
    scorer = theirs(metric, "zh")
    expected = [scorer._compute_score_from_stats([int(count) for count in row]).score for row in draws]
    assert np.allclose(formula(draws), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("metric, formula", [("chrf", chrf_scores), ("bleu", bleu_scores)])
def test_a_draw_scores_the_sentences_that_it_drew(outputs, metric, formula):
    part = outputs[(outputs["source_lang"] == "en") & (outputs["target_lang"] == "de")]
    hypotheses, references = part["hypothesis"].tolist(), part["reference"].tolist()
    counts = score_counts(metric, hypotheses, references, "de")
    generator = np.random.default_rng(5)
    drawn = generator.integers(len(counts), size=(3, len(counts)))
    for scores, places in zip(formula(_draws(counts, 3, 5)), drawn):
        naive = theirs(metric, "de").corpus_score([hypotheses[place] for place in places], [[references[place] for place in places]]).score
        assert math.isclose(scores, naive, rel_tol=1e-12)


def test_nothing_depends_on_the_order_of_rows_or_on_the_other_directions(outputs):
    table = translation_table(outputs, resamples=100).sort_values(["source_lang", "target_lang", "metric"], ignore_index=True)
    shuffled = translation_table(outputs.sample(frac=1, random_state=3), resamples=100).sort_values(["source_lang", "target_lang", "metric"], ignore_index=True)
    pd.testing.assert_frame_equal(table, shuffled, rtol=1e-12)
    alone = translation_table(outputs[(outputs["source_lang"] == "en") & (outputs["target_lang"] == "de")], resamples=100).sort_values("metric", ignore_index=True)
    pd.testing.assert_frame_equal(table[(table["source_lang"] == "en") & (table["target_lang"] == "de")].reset_index(drop=True), alone)


def test_tokenizers_and_signatures_by_language():
    assert [bleu_tokenizer(code) for code in ("de", "zh", "zh-Hant", "yue", "th", "km", "ar", "hi")] == ["13a", "zh", "zh", "zh", "char", "char", "13a", "13a"]
    assert bleu_tokenizer("ja") in ("ja-mecab", "char") and bleu_tokenizer("ko") in ("ko-mecab", "13a")
    found = signatures(["de", "zh", "th"])
    assert "nw:2" in found["chrf"] and [found["bleu"][code].split("tok:")[1].split("|")[0] for code in ("de", "zh", "th")] == ["13a", "zh", "char"]
    assert all(f"version:{sacrebleu.__version__}" in text for text in (found["chrf"], *found["bleu"].values()))
    assert json.loads(json.dumps(found)) == found


def test_references_as_hypotheses_are_perfect_and_sources_are_copies_in_the_wrong_language():
    rows = both_directions(load_parallel(demo_corpus(), languages=list(DEFAULT_LANGUAGES), split="test").filter(lambda row: len(row["source"]) >= 20)).to_pandas()
    rows = rows.rename(columns={"target": "reference"})
    perfect = translation_table(rows.assign(hypothesis=rows["reference"]), resamples=50)
    assert np.allclose(perfect.loc[perfect["metric"].isin(["chrf", "bleu"]), ["value", "low", "high"]], 100)
    for metric, wanted in (("off_target", 0), ("empty", 0), ("looping", 0), ("copied", 0), ("length_ratio", 1)):
        assert np.allclose(perfect.loc[perfect["metric"] == metric, "value"], wanted, atol=0.03), metric
    sources = translation_table(rows.assign(hypothesis=rows["source"]), resamples=50)
    assert (sources.loc[sources["metric"] == "copied", "value"] == 1).all()
    assert (sources.loc[sources["metric"] == "off_target", "value"] > 0.95).all()
    assert (sources.loc[sources["metric"] == "off_target", "n"] >= 20).all(), "decided on enough sentences to mean something"


def test_off_target_abstains_where_it_cannot_tell():
    for text, target, expected in (
        ("", "de", None), ("123 456 — 789!", "de", None), ("Berlin", "de", None), ("北京", "zh", None), ("Guten Tag", "de", None),
        ("Все люди рождаются свободными", "de", 1), ("Все люди", "en", 1), ("สวัสดีชาวโลก", "th", 0), ("All human beings are born free", "de", 1),
        ("Alle Menschen sind frei und gleich geboren", "de", 0), ("すべての人間は、生れながらにして自由であり", "zh", 1), ("人人生而自由,在尊严和权利上一律平等", "zh", 0),
        ("人人生而自由,在尊严和权利上一律平等", "ja", 1), ("All human beings are born free", "dv", 1), ("wszyscy ludzie rodzą się wolni", "szl", None),
    ):
        found = off_target(text, target, "en")
        assert math.isnan(found) if expected is None else found == expected, (text, target)


def naive_loop(text):
    "The longest end of a text that has a period of at most a third of its length."
    text = " ".join(text.split())
    for start in range(len(text)):
        end = text[start:]
        if len(end) >= 12 and any(all(end[i] == end[i - period] for i in range(period, len(end))) for period in range(1, len(end) // 3 + 1)):
            return len(end)
    return 0


def test_loops_are_found_as_the_definition_says():
    random = np.random.default_rng(0)
    texts = ["abcabcabcabc", "x" * 12, "x" * 11, "no loop here", "go on and on and on and on", "ab" * 5 + "a", "the end\n the end\t the  end the", "", "ab", "loop loop loop loop loop!"]
    texts += ["".join(random.choice(list("ab "), size=random.integers(5, 40))) for _ in range(300)]
    texts += ["".join(random.choice(list("abcd"), size=8)) + "".join(random.choice(list("abcd"), size=random.integers(1, 9))) * random.integers(1, 6) for _ in range(200)]
    found = [loop_length(text) for text in texts]
    assert found == [naive_loop(text) for text in texts]
    assert 50 < sum(length > 0 for length in found) < 450
    assert loop_length("😀" * 12) == 12, "characters, not the units of an encoding"


def test_copies_count_unless_copying_is_right():
    assert copied(" all  HUMAN beings", "All human beings", "Alle Menschen") == 1
    assert copied("Alle", "All", "Alle") == 0 and math.isnan(copied("Berlin", "Berlin", "berlin"))


def test_items_hold_sentence_scores_and_missing_values(outputs):
    part = outputs[(outputs["source_lang"] == "en") & (outputs["target_lang"] == "de")].reset_index(drop=True)
    part = part.assign(hypothesis=[None, "", " ", *part["hypothesis"][3:]])
    items = check_items(translation_items(part, "m"))
    assert list(items.columns) == ITEM_COLUMNS and set(items["metric"]) == {"chrf", *CHECKS} and items["layer"].isna().all()
    wide = items.pivot(index="id", columns="metric", values="value").loc[part["id"]]
    assert wide.iloc[0].isna().all()
    for row in (1, 2):
        assert wide.iloc[row][["chrf", "length_ratio", "looping", "copied"]].eq(0).all() and wide.iloc[row]["empty"] == 1 and math.isnan(wide.iloc[row]["off_target"])
    scorer = sacrebleu.CHRF(word_order=2)
    for place in range(3, 12):
        assert math.isclose(wide.iloc[place]["chrf"], scorer.sentence_score(part["hypothesis"][place], [part["reference"][place]]).score, rel_tol=1e-12, abs_tol=1e-12)
        assert wide.iloc[place]["length_ratio"] == len(part["hypothesis"][place].strip()) / len(part["reference"][place].strip())
    table = translation_table(part, "m", resamples=50)
    assert value(table, "chrf", ("en", "de"))["n"] == len(part) - 1 and value(table, "empty", ("en", "de"))["value"] == (part["hypothesis"][1:].str.strip() == "").mean() > 0
    assert compare_items(items, items.assign(model="n"), resamples=50)["difference"].eq(0).all()


def test_one_sentence_has_a_score_and_no_interval_and_none_has_neither(outputs):
    one = outputs.head(1)
    row = value(score_table(one), "chrf", ("en", one["target_lang"].item()))
    assert row["value"] > 0 and math.isnan(row["low"]) and math.isnan(row["high"]) and row["n"] == 1
    table = translation_table(one.assign(hypothesis=None))
    assert table["value"].isna().all() and (table["n"] == 0).all() and len(table) == 2 + len(CHECKS)
    short = outputs.head(3).assign(id=range(3), reference="Deutschland", hypothesis="Deutschland", target_lang="de")
    assert math.isnan(value(score_table(short), "bleu", ("en", "de"))["value"]) and value(score_table(short), "chrf", ("en", "de"))["value"] == pytest.approx(100)


def test_paired_comparison_against_a_loop_over_draws(outputs):
    part = outputs[(outputs["source_lang"] == "en") & (outputs["target_lang"].isin(["de", "zh"]))]
    better = part.assign(hypothesis=[reference if place % 3 == 0 else hypothesis for place, (reference, hypothesis) in enumerate(zip(part["reference"], part["hypothesis"]))])
    table = compare_translations(part, better, resamples=40, seed=2)
    assert list(table["metric"]) == ["chrf", "bleu"] * 2 and (table["difference"] > 0).all()
    for row in table.itertuples():
        first, second = (each[each["target_lang"] == row.target_lang].sort_values("id") for each in (part, better))
        scorer = theirs(row.metric, row.target_lang)
        drawn = np.random.default_rng(2).integers(len(first), size=(40, len(first)))
        score = lambda frame, places: scorer.corpus_score(frame["hypothesis"].iloc[places].tolist(), [frame["reference"].iloc[places].tolist()]).score
        differences = np.array([score(second, places) - score(first, places) for places in drawn])
        assert np.allclose([row.low, row.high], np.quantile(differences, [0.025, 0.975]), rtol=1e-9)
        assert row.p_value == pytest.approx(min(1, 2 * (min((differences <= 0).sum(), (differences >= 0).sum()) + 1) / 41))
        assert math.isclose(row.difference, row.after - row.before) and row.items == len(first)
    assert (table["p_corrected"] >= table["p_value"]).all()


def test_a_paired_interval_is_narrower_than_two_apart(outputs):
    part = outputs[(outputs["source_lang"] == "en") & (outputs["target_lang"] == "de")]
    better = part.assign(hypothesis=[reference if place == 0 else hypothesis for place, (reference, hypothesis) in enumerate(zip(part["reference"], part["hypothesis"]))])
    paired = value(compare_translations(part, better, resamples=500), "chrf", ("en", "de"))
    single = value(score_table(part), "chrf", ("en", "de"))
    assert paired["high"] - paired["low"] < (single["high"] - single["low"]) / 2


def test_comparison_names_what_does_not_fit_and_keeps_gaps(outputs):
    part = outputs.head(20)
    for other, message in ((part.head(19), "is in one table only"), (part.assign(reference="x"), "not the same source and reference"), (part.head(0), "no rows")):
        with pytest.raises(InputError, match=message):
            compare_translations(part, other)
    table = compare_translations(part, part.assign(hypothesis=None))
    assert table[["difference", "p_value", "p_corrected"]].isna().all().all() and (table["items"] == 0).all()
    with pytest.raises(UsageError, match="resamples"):
        score_table(part, resamples=0)


def test_intervals_cover_as_often_as_they_say():
    "A score that is a mean in disguise: with one-token sentences the rate of exact matches is BLEU's first precision."
    matches = np.random.default_rng(0).random(400) < 0.3
    counts = np.zeros((400, 24), int)
    counts[:, 0], counts[:, 1], counts[:, 2] = 1, 1, matches
    low, high = np.quantile(chrf_scores(_draws(counts, 1000, 0)), [0.025, 0.975])
    assert np.allclose([low, high], 100 * np.array(bootstrap_interval(matches.astype(float), 1000, seed=0)))


# COMET


@pytest.fixture
def table():
    return pd.DataFrame({"id": ["a", "b", "c"], "source_lang": "en", "target_lang": ["de", "de", "zh"], "source": ["One\ntwo.", "Three.", "Four."],
                         "reference": ["Eins zwei.", "Drei.", "四。"], "hypothesis": ["Eins\u2028\r\nzwei", None, ""]})


def written(folder, table, **changes):
    "What comet-score would write about the files in `folder`."
    lines = [(folder / name).read_text(encoding="utf-8").split("\n")[:-1] for name in ("src.txt", "hyp.txt", "ref.txt")]
    entries = [{"src": source, "mt": hypothesis, "ref": reference, "COMET": 0.5 + place / 10, **changes} for place, (source, hypothesis, reference) in enumerate(zip(*lines))]
    path = folder / "scores.json"
    path.write_text(json.dumps({"hyp.txt": entries}), encoding="utf-8")
    return path, entries


def test_comet_there_and_back(tmp_path, table):
    paths = write_comet(table, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["src.txt", "hyp.txt", "ref.txt"]
    assert [path.read_bytes().decode() for path in paths] == ["One two.\nFour.\n", "Eins zwei\n\n", "Eins zwei.\n四。\n"]
    items = check_items(read_comet(written(paths[0].parent, table)[0], table, "m"))
    assert items["value"].tolist()[::2] == [0.5, 0.6] and math.isnan(items["value"][1]) and set(items["metric"]) == {"comet"} and items["id"].tolist() == ["a", "b", "c"]


def test_comet_without_references_and_with_several_systems(tmp_path, table):
    write_comet(table, tmp_path)
    path, entries = written(tmp_path, table)
    for entry in entries:
        del entry["ref"]
    path.write_text(json.dumps({"hyp.txt": entries, "other.txt": entries[:1]}), encoding="utf-8")
    assert read_comet(path, table, system="hyp.txt")["value"].notna().sum() == 2
    with pytest.raises(UsageError, match="choose one"):
        read_comet(path, table)
    with pytest.raises(UsageError, match="unknown system 'hyp'; did you mean 'hyp.txt'"):
        read_comet(path, table, system="hyp")


def test_comet_refuses_scores_of_something_else_and_names_the_file(tmp_path, table):
    write_comet(table, tmp_path)
    path, entries = written(tmp_path, table)
    cases = [({"hyp.txt": entries[:1]}, "1 scores for 2 translations"), ({"hyp.txt": entries[::-1]}, "sentence 0: 'src' is 'Four.'"), (entries, "expected a list of sentences"), ({}, "expected a list"),
             ({"hyp.txt": [{**entry, "COMET": None} for entry in entries]}, "no number"), ({"hyp.txt": [{**entry, "COMET": float("nan")} for entry in entries]}, "no number"), ({"hyp.txt": [1, 2]}, "no number")]
    for content, message in cases:
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(InputError, match=f"scores.json.*{message}"):
            read_comet(path, table)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="scores.json: cannot be read as JSON"):
        read_comet(path, table)
    with pytest.raises(InputError, match="no such file"):
        read_comet(tmp_path / "none.json", table)
    with pytest.raises(InputError, match="no sentence has a hypothesis"):
        write_comet(table.assign(hypothesis=None), tmp_path)
