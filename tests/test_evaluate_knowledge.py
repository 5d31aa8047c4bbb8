"""Facts that are taught in English and asked elsewhere: the file, what gives answers away, and transfer against plain loops."""
import gzip
import json
import unicodedata
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from align_batches import tiny
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel

from alignx.data import load_instructions
from alignx.demo import demo_instructions, demo_model
from alignx.errors import InputError, UsageError
from alignx.evaluate.choices import choice_rows, option_scores
from alignx.evaluate.facts import FORMS, can_be_copied, copying_items, fact_languages, load_facts, string_similarity, teach_rows, ask_items
from alignx.evaluate.knowledge import CHANCE, knowledge_items, transfer_ratio, without_liking
from alignx.evaluate.tables import ITEM_COLUMNS, tabulate

DEFAULTS = ["en", "zh", "es", "fr", "de", "ru", "ja", "ar", "bn", "sw", "th", "tr"]
GROUP = ["kind", "relation", "split", "lang"]


@pytest.fixture(scope="module")
def facts():
    return load_facts(split=None)


@pytest.fixture(scope="module")
def demo():
    return AutoModelForCausalLM.from_pretrained(demo_model(), dtype=torch.float32), AutoTokenizer.from_pretrained(demo_model())


# ------------------------------------------------------------------------------------------- the file
def test_every_fact_has_four_different_options_in_every_language(facts):
    assert set(DEFAULTS) <= set(fact_languages()) and len(fact_languages()) == 24
    assert (facts.groupby("fact")["lang"].nunique() == 24).all()
    assert facts["options"].map(lambda options: len({o.casefold() for o in options})).eq(4).all()
    assert facts["answer"].between(0, 3).all()
    assert (facts.groupby("fact")["answer"].nunique() == 1).all()
    choice_rows(ask_items(facts[facts["lang"] == "sw"]))


def test_text_is_composed_and_without_stray_space(facts):
    for text in {t for row in facts[["question", "subject", "respelt"]].to_numpy() for t in row} | {o for options in facts["options"] for o in options}:
        assert text == unicodedata.normalize("NFC", text) == " ".join(text.split())


def test_every_option_is_right_in_a_quarter_of_its_questions_and_stands_at_every_place(facts):
    for _, group in facts.groupby(GROUP):
        shown, right = Counter(o for options in group["options"] for o in options), Counter(o[a] for o, a in zip(group["options"], group["answer"]))
        assert all(count == 4 * right[option] for option, count in shown.items())
        assert max(Counter(group["answer"]).values()) - min(Counter(group["answer"]).values()) <= 1


@pytest.mark.parametrize("look", [lambda o, f: len(o), lambda o, f: -len(o), lambda o, f: string_similarity(o, f["subject"]), lambda o, f: string_similarity(o, f["question"])])
def test_a_solver_that_only_looks_stays_at_chance(facts, look):
    rows = facts[facts["lang"].isin(["en", "de", "sw", "th", "ja"])]
    hits = []
    for fact in rows.to_dict("records"):
        scores = [look(option, fact) for option in fact["options"]]
        hits.append((scores[fact["answer"]] == max(scores)) / scores.count(max(scores)))
    rates = pd.Series(hits).groupby([rows["kind"].to_numpy(), rows["lang"].to_numpy()]).agg(["mean", "size"])
    assert ((rates["mean"] - 0.25).abs() < 3 * np.sqrt(0.25 * 0.75 / rates["size"])).all()


def test_the_position_of_the_answer_and_the_most_frequent_answer_tell_nothing(facts):
    for _, group in facts[facts["lang"] == "en"].groupby(GROUP):
        often = Counter(o[a] for o, a in zip(group["options"], group["answer"]))
        hits = [[often[o] == max(often[x] for x in options) for o in options] for options in group["options"]]
        rate = np.mean([h[a] / sum(h) for h, a in zip(hits, group["answer"])])
        assert abs(rate - 0.25) < 3 * np.sqrt(0.25 * 0.75 / len(group))


def test_invented_countries_are_no_known_names_and_have_a_spelling_of_their_own(facts):
    real, novel = facts[facts["kind"] == "real"], facts[(facts["kind"] == "novel")]
    known = {name.casefold() for name in [*real["respelt"], *(o for options in facts["options"] for o in options)]}
    assert not known & {name.casefold() for name in [*novel["subject"], *novel["respelt"]]}
    assert (novel.groupby("lang")["respelt"].nunique() == 126).all()
    assert (novel.groupby("fact")["subject"].nunique() == 1).all()
    elsewhere = novel[novel["lang"].isin(["zh", "ru", "ja", "ar", "bn", "th", "hi", "ko", "el", "fa", "ur"])]
    assert not elsewhere["respelt"].str.contains("[a-zA-Z]").any()
    assert (novel.loc[~novel.index.isin(elsewhere.index), "respelt"] == novel.loc[~novel.index.isin(elsewhere.index), "subject"]).all()


def test_capital_continent_and_rest_day_of_a_country_are_independent(facts):
    novel = facts[(facts["kind"] == "novel") & (facts["lang"] == "en")]
    wide = novel.assign(object=[o[a] for o, a in zip(novel["options"], novel["answer"])]).pivot(index="subject", columns="relation", values="object")
    table = pd.crosstab(wide["continent"], wide["rest_day"]).to_numpy()
    assert ((table - 3) ** 2 / 3).sum() < 30 * 1.9 and set(table.sum(0)) == {18} and set(table.sum(1)) == {21}


def test_what_is_asked_by_default_is_not_in_the_instructions_that_the_package_trains_on():
    read = load_instructions(demo_instructions(), split="train")
    pairs, inputs = {(row["input"], row["output"]) for row in read}, {row["input"] for row in read}
    asked = load_facts()
    assert not [f for f in asked.to_dict("records") if (f["respelt"], f["options"][f["answer"]]) in pairs]
    assert not set(asked.loc[asked["kind"] == "novel", "subject"]) & inputs
    seen = load_facts(split="train", kinds=["real"])
    assert [f for f in seen.to_dict("records") if (f["respelt"], f["options"][f["answer"]]) in pairs]


def test_files_that_cannot_be_read(tmp_path):
    name = {"name": "question.capital", "text": {"en": "Capital?"}}
    fact = {"fact": "f", "kind": "novel", "relation": "capital", "split": "test", "subject": "x", "options": ["a", "b"], "answer": 0}
    for rows, message in (([name, fact], "'x' has no row"), ([{**fact, "kind": None} | {"options": []}], "has no row"), ([{"fact": "f"}], "'kind' is missing"), ([name], "no fact")):
        path = tmp_path / "facts.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(InputError, match=message):
            load_facts(source=path)
    path.write_text("{")
    with pytest.raises(InputError, match="row 1: no JSON"):
        load_facts(source=path)
    with pytest.raises(InputError, match="no such file"):
        load_facts(source=tmp_path / "none.jsonl")


def test_a_file_of_ones_own(tmp_path):
    words = {"question.capital": ("Capital?", "Hauptstadt?"), "x": ("X", "X"), **{c: (c, c + "e") for c in "abcd"}}
    rows = [{"name": k, "text": dict(zip(("en", "de"), v))} for k, v in words.items()]
    rows.append({"fact": "capital.X", "kind": "novel", "relation": "capital", "split": "test", "subject": "x", "options": list("abcd"), "answer": 1})
    with gzip.open(tmp_path / "facts.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    table = load_facts(source=tmp_path / "facts.jsonl.gz")
    assert table["lang"].tolist() == ["en", "de"] and table["options"].tolist()[1] == ["ae", "be", "ce", "de"] and table["taught"].tolist() == ["b", "b"]


# ------------------------------------------------------------------------------------------- copying
def naive_edits(a, b):
    if not a or not b:
        return len(a) + len(b)
    return min(naive_edits(a[1:], b) + 1, naive_edits(a, b[1:]) + 1, naive_edits(a[1:], b[1:]) + (a[0] != b[0]))


@pytest.mark.parametrize("a, b", [("rome", "roma"), ("wien", "vienna"), ("asia", "asien"), ("abc", ""), ("kairo", "cairo")])
def test_similarity_equals_the_recursive_definition(a, b):
    assert string_similarity(a, b) == pytest.approx(1 - naive_edits(a, b) / max(len(a), len(b), 1))


def test_copying_solves_english_and_nothing_that_is_not_copyable(facts):
    table = tabulate(copying_items(facts)).set_index(["metric", "target_lang"])["value"]
    assert table["knowledge_novel", "en"] == table["knowledge_real", "en"] == 1
    assert table["knowledge_novel_not_copyable"].max() <= 0.25 and table["knowledge_novel_copyable"].min() > 0.8
    assert can_be_copied(["Muscat", "Rom"], 0, "Muscat") and not can_be_copied(["Маскат", "Рим"], 0, "Muscat")


# ------------------------------------------------------------------------------------------- teaching and asking
def test_only_english_is_taught_and_nothing_but_what_was_handed_over(facts):
    novel = facts[facts["kind"] == "novel"]
    rows = teach_rows(novel[novel["relation"] == "rest_day"]).to_pandas()
    english = novel[(novel["lang"] == "en") & (novel["relation"] == "rest_day")]
    assert len(rows) == 4 * len(english) and set(rows["lang"]) == {"en"} and rows["source_lang"].isna().all()
    answers = dict(zip(english["subject"], [o[a] for o, a in zip(english["options"], english["answer"])]))
    for row in rows.to_dict("records"):
        told = [name for name in answers if name in row["instruction"] + row["input"]]
        assert len(told) == 1 and answers[told[0]] == row["output"]
    with pytest.raises(InputError, match="no English rows"):
        teach_rows(novel[novel["lang"] == "de"])


def test_forms_of_asking(facts, demo):
    some = facts[(facts["fact"] == "continent.Balakia") & facts["lang"].isin(["de", "th"])]
    question, respelt, name = (ask_items(some, form=form, template="plain") for form in FORMS)
    assert [r["lang"] for r in question] == ["th", "de"] or [r["lang"] for r in question] == ["de", "th"]
    assert [r["lang"] for r in respelt] == ["th"] and "Balakia" not in respelt[0]["question"] and all("Balakia" in r["question"] for r in question)
    assert [r["question"] for r in name] == ["Balakia\n"] * 2
    assert "### Response:\n" == ask_items(some)[0]["question"][-14:]
    with pytest.raises(UsageError, match="did you mean 'respelt'"):
        ask_items(some, form="respelled")
    with pytest.raises(UsageError):
        ask_items(some, template="chat")


# ------------------------------------------------------------------------------------------- the measure
def invented_scores(facts, knows=lambda fact: 0.0, liking=5.0, seed=0):
    "Scores of a model that likes words at random, strongly, and adds something where it knows the fact."
    random = np.random.default_rng(seed)
    liked, rows = {}, []
    for fact in facts.to_dict("records"):
        for place, option in enumerate(fact["options"]):
            like = liked.setdefault((fact["lang"], option), liking * random.normal())
            rows.append((fact["lang"], fact["fact"], place, option, place == fact["answer"], like + random.normal() + knows(fact) * (place == fact["answer"])))
    return pd.DataFrame(rows, columns=["lang", "id", "option", "text", "correct", "log_likelihood"]).assign(score=0.0)


def accuracy(scores, facts):
    best = scores.loc[scores.groupby(["lang", "id"])["score"].idxmax()].merge(facts, left_on=["lang", "id"], right_on=["lang", "fact"])
    return best.groupby(["lang", "copyable"])["correct"].agg(["mean", "size"])


def test_liking_is_no_knowledge_in_any_part(facts):
    novel = facts[(facts["kind"] == "novel") & facts["lang"].isin(DEFAULTS)]
    scores = invented_scores(novel)
    liked = accuracy(scores.assign(score=scores["log_likelihood"]), novel)
    fair = accuracy(without_liking(scores, novel), novel)
    noise = 3.5 * np.sqrt(0.25 * 0.75 / fair["size"])
    assert ((liked["mean"] - 0.25).abs() > noise).any() and ((fair["mean"] - 0.25).abs() < noise).all()


def test_knowledge_survives_the_correction(facts):
    novel = facts[(facts["kind"] == "novel") & (facts["lang"] == "fr")]
    assert accuracy(without_liking(invented_scores(novel, knows=lambda fact: 8.0), novel), novel)["mean"].min() > 0.95


def test_centring_equals_a_plain_loop(facts):
    some = facts[(facts["relation"] == "rest_day") & facts["lang"].isin(["de", "th"])]
    scores = invented_scores(some)
    fair = without_liking(scores, some)
    for row in fair.sample(20, random_state=0).to_dict("records"):
        same = [other for other in scores.to_dict("records") if other["lang"] == row["lang"] and other["text"] == row["text"]]
        assert row["score"] == pytest.approx(row["log_likelihood"] - sum(other["log_likelihood"] for other in same) / len(same))


def test_a_question_that_stands_alone_or_is_unknown_is_refused(facts):
    some = facts[(facts["relation"] == "rest_day") & (facts["lang"] == "de")]
    scores = invented_scores(some)
    with pytest.raises(InputError, match="ask all facts of a relation together"):
        without_liking(scores[scores["id"] == "rest_day.Balakia"], some)
    with pytest.raises(InputError, match="about none of the facts"):
        without_liking(scores.assign(id="capital.Nowhere"), some)


def test_items_of_a_model(facts, demo):
    model, tokenizer = demo
    some = facts[(facts["relation"] == "rest_day") & facts["lang"].isin(["en", "ru"])]
    items = knowledge_items(model, tokenizer, some, template="plain", name="m")
    assert list(items.columns) == ITEM_COLUMNS and items["layer"].isna().all() and (items["source_lang"] == items["target_lang"]).all()
    metrics = items.groupby("metric")["target_lang"].unique().map(set).to_dict()
    assert metrics["knowledge_novel"] == metrics["knowledge_novel_name"] == {"en", "ru"} and metrics["knowledge_novel_respelt"] == {"ru"}
    assert (items.loc[items["metric"].str.endswith("_chance"), "value"] == CHANCE).all()
    table = tabulate(items)
    assert (table["n"] > 0).all() and table["value"].notna().all()
    guesses = table[table["metric"] == "knowledge_novel"]
    assert (guesses["low"] - 0.06 < CHANCE).all() and (CHANCE < guesses["high"] + 0.06).all()
    shuffled = knowledge_items(model, tokenizer, some.sample(frac=1, random_state=0), ["question"], template="plain", name="m", batch_size=7)
    keys = ["target_lang", "metric", "id"]
    pd.testing.assert_series_equal(items[items["metric"] == "knowledge_novel"].set_index(keys)["value"].sort_index(), shuffled[shuffled["metric"] == "knowledge_novel"].set_index(keys)["value"].sort_index())


def test_items_are_what_the_option_scores_say(facts, demo):
    model, tokenizer = demo
    some = facts[(facts["relation"] == "rest_day") & (facts["lang"] == "en")]
    scores = without_liking(option_scores(model, tokenizer, ask_items(some, template="plain"), "none"), some)
    items = knowledge_items(model, tokenizer, some, ["question"], template="plain").query("metric == 'knowledge_novel'").set_index("id")["value"]
    for question, group in scores.groupby("id"):
        assert items[question] == float(group.loc[group["score"].idxmax(), "correct"])


def test_models_that_cannot_be_asked(facts, demo):
    some = facts[(facts["relation"] == "rest_day") & (facts["lang"] == "de")]
    encoder = BertModel(BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32))
    with pytest.raises(UsageError, match="causal language model"):
        knowledge_items(encoder, demo[1], some)
    broken = AutoModelForCausalLM.from_pretrained(demo_model(), dtype=torch.float32)
    broken.get_input_embeddings().weight.data[:] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        knowledge_items(broken, demo[1], some, ["question"], template="plain")
    with pytest.raises(UsageError, match="tokenizer"):
        knowledge_items(tiny(), None, some)
    with pytest.raises(UsageError, match="nothing to ask"):
        knowledge_items(*demo, some, ["respelt"])
    with pytest.raises(UsageError, match="unknown form"):
        knowledge_items(*demo, some, ["questions"])


# ------------------------------------------------------------------------------------------- transfer
def made_items(accuracies, facts=60, seed=0, metric="knowledge_novel", missing=0):
    random, rows = np.random.default_rng(seed), []
    for language, rate in accuracies.items():
        for i in range(facts - (missing if language != "en" else 0)):
            rows.append(("m", pd.NA, language, language, metric if language != "en" else "knowledge_novel", f"f{i}", float(random.random() < rate)))
    return pd.DataFrame(rows, columns=ITEM_COLUMNS).astype({"layer": "Int64"})


@pytest.mark.parametrize("together", [False, True])
def test_transfer_equals_a_plain_loop_over_draws(together):
    items = made_items({"en": 0.9, "de": 0.6, "sw": 0.3})
    wide = items.pivot(index="id", columns="target_lang", values="value")
    table = transfer_ratio(items, together=together, resamples=200, seed=3)
    names = [["de", "sw"]] if together else [["de"], ["sw"]]
    for languages, row in zip(names, table.to_dict("records")):
        generator, draws = np.random.default_rng(3), []
        for _ in range(200):
            drawn = wide.iloc[generator.integers(len(wide), size=len(wide))]
            draws.append((np.mean([drawn[l].mean() for l in languages]) - 0.25) / (drawn["en"].mean() - 0.25))
        assert row["value"] == pytest.approx((wide[languages].mean().mean() - 0.25) / (wide["en"].mean() - 0.25))
        assert [row["low"], row["high"]] == pytest.approx(list(np.quantile(draws, [0.025, 0.975])))
        assert row["n"] == 60 and row["source_lang"] == "en" and row["metric"] == "knowledge_novel_transfer"
    assert together == (table["target_lang"].tolist() == ["mul"])


def test_a_part_is_divided_by_english_on_the_same_facts():
    items = pd.concat([made_items({"en": 0.8}), made_items({"de": 0.5}, metric="knowledge_novel_not_copyable", missing=20, seed=1)])
    row = transfer_ratio(items, "knowledge_novel_not_copyable", resamples=50).iloc[0]
    asked = items[items["target_lang"] == "de"]
    english = items[(items["target_lang"] == "en") & items["id"].isin(asked["id"])]
    assert row["n"] == 40 and row["value"] == pytest.approx((asked["value"].mean() - 0.25) / (english["value"].mean() - 0.25))


@pytest.mark.parametrize("part", ["_copyable", "_not_copyable", "_respelt", "_respelt_not_copyable", "_name_copyable", ""])
def test_every_part_has_the_whole_as_its_ceiling(part):
    items = made_items({"en": 1.0, "de": 0.5}, metric=f"knowledge_novel{part}")
    items["metric"] = items["metric"].str.replace("novel", "real_seen")
    assert transfer_ratio(items, f"knowledge_real_seen{part}", resamples=20)["value"].notna().all()


def test_perfect_none_and_undefined_transfer():
    items = made_items({"en": 1.0, "de": 1.0, "sw": 0.25}, facts=400)
    table = transfer_ratio(items).set_index("target_lang")
    assert table.loc["de", ["value", "low", "high"]].tolist() == [1, 1, 1]
    assert table.loc["sw", "low"] < 0 < table.loc["sw", "high"] or abs(table.loc["sw", "value"]) < 0.1
    assert transfer_ratio(made_items({"en": 0.25, "de": 0.9}))[["value", "low", "high"]].isna().all(axis=None)


def test_requests_that_cannot_be_met():
    items = made_items({"en": 0.9, "de": 0.5})
    with pytest.raises(UsageError, match="did you mean 'knowledge_novel'"):
        transfer_ratio(items, "knowledge_nov")
    with pytest.raises(InputError, match="it is the ceiling"):
        transfer_ratio(items[items["target_lang"] == "de"])
    with pytest.raises(InputError, match="was not asked in 'en'"):
        transfer_ratio(items[~((items["target_lang"] == "en") & (items["id"] == "f3"))])
    with pytest.raises(UsageError, match="resamples"):
        transfer_ratio(items, resamples=0)
