"""Benchmarks through lm-eval on small local sets in the columns of the real ones; nothing is downloaded."""
import json
import logging
import sys

import datasets
import numpy as np
import pandas as pd
import pytest
import sacrebleu
import torch

from alignx.errors import InputError, UsageError
from alignx.evaluate.choices import option_scores
from alignx.evaluate.harness import FAMILIES, family_tasks, local_splits, run_tasks
from alignx.evaluate.summaries import summary_languages, summary_scores, summary_tokens
from alignx.evaluate.tables import tabulate
from evaluate_tools import byte_tokenizer, tiny_model

lm_eval = pytest.importorskip("lm_eval")

RIGHTS = [  # from the Universal Declaration of Human Rights
    ("Everyone has the right to life", "liberty and the security of person"),
    ("No one shall be held in slavery", "the slave trade shall be prohibited"),
    ("All are equal before the law", "all are entitled to equal protection"),
    ("Everyone has the right to rest", "reasonable limitation of working hours"),
    ("Everyone has the right to education", "education shall be free"),
    ("Everyone has duties to the community", "the free development of personality"),
]


def documents(family):
    "Six rows in the columns of a family's data on the Hub."
    rows = []
    for k, (first, second) in enumerate(RIGHTS):
        other = RIGHTS[k - 1][1]
        rows.append({
            "xnli": {"premise": first, "hypothesis": second, "label": k % 3},
            "xcopa": {"premise": first + ".", "choice1": second, "choice2": other, "question": ("cause", "effect")[k % 2], "label": k % 2, "idx": k, "changed": False},
            "xstorycloze": {"story_id": str(k), **{f"input_sentence_{n}": f"{first} {n}." for n in (1, 2, 3, 4)}, "sentence_quiz1": second, "sentence_quiz2": other, "answer_right_ending": 1 + k % 2},
            "pawsx": {"id": k, "sentence1": first + ".", "sentence2": second + ".", "label": k % 2},
            "belebele": {"flores_passage": first, "question": "What follows?", **{f"mc_answer{n + 1}": RIGHTS[(k + n) % 6][1] for n in range(4)}, "correct_answer_num": str(1 + k % 4)},
            "xlsum": {"id": str(k), "url": "", "title": first, "summary": second, "text": f"{first}: {second}."},
        }[family])
    return rows


SPLIT = {"xnli": "validation", "xcopa": "test", "xstorycloze": "eval", "pawsx": "test", "belebele": "test", "xlsum": "test"}
LANGUAGE = {"xnli": "de", "xcopa": "sw", "xstorycloze": "ar", "pawsx": "fr", "belebele": "sw", "xlsum": "sw"}
CONFIGURATION = {**LANGUAGE, "belebele": "swh_Latn", "xlsum": "swahili"}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    "Folders of all families; belebele as Parquet."
    root = tmp_path_factory.mktemp("benchmarks")
    for family in FAMILIES:
        folder = root / family / CONFIGURATION[family]
        folder.mkdir(parents=True)
        if family == "belebele":
            pd.DataFrame(documents(family)).to_parquet(folder / "test-00000-of-00001.parquet")
        else:
            write(folder / f"{SPLIT[family]}.jsonl", documents(family))
    return {family: root / family for family in FAMILIES}


def write(path, rows):
    "Rows as JSON lines."
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")


def run(local, family, **options):
    "One family in its language, on a tiny model."
    return run_tasks(tiny_model(), byte_tokenizer(), [family], options.pop("languages", [LANGUAGE[family]]), local=local, **options)


def test_a_language_has_one_code_in_every_family():
    assert {family: len(family_tasks(family)) for family in FAMILIES} == {"xnli": 15, "xcopa": 11, "xstorycloze": 11, "pawsx": 7, "belebele": 122, "xlsum": 45}
    assert family_tasks("belebele")["zh"] == "belebele_zho_Hans" and family_tasks("belebele")["ar"] == "belebele_arb_Arab"
    assert all(family_tasks(family)["zh"] for family in FAMILIES) and "th" not in family_tasks("pawsx")
    assert set(summary_languages().values()) >= {"swahili", "serbian_latin", "chinese_simplified"}


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "xlsum"])
def test_every_family_gives_an_item_per_question_and_its_chance(local, family):
    items = run(local, family, name="m")
    hits = items[items["metric"] == f"{family}/acc"]
    chance = items.loc[items["metric"] == f"{family}/acc_chance", "value"]
    assert len(hits) == len(chance) == 6 and set(hits["value"]) <= {0, 1}
    assert set(chance) == {{"xnli": 1 / 3, "belebele": 1 / 4}.get(family, 1 / 2)}
    assert set(items["source_lang"]) == set(items["target_lang"]) == {LANGUAGE[family]} and items["layer"].isna().all() and set(items["model"]) == {"m"}
    assert (f"{family}/acc_norm" in set(items["metric"])) == (family == "belebele")
    assert tabulate(items)["n"].eq(6).all()


@pytest.mark.parametrize("family, prompt, choices", [
    ("xstorycloze", lambda row: " ".join(row[f"input_sentence_{n}"] for n in (1, 2, 3, 4)) + " ", lambda row: [row["sentence_quiz1"], row["sentence_quiz2"]]),
    ("belebele", lambda row: f"P: {row['flores_passage']}\nQ: {row['question']}\nA: {row['mc_answer1']}\nB: {row['mc_answer2']}\nC: {row['mc_answer3']}\nD: {row['mc_answer4']}\nAnswer: ", lambda row: list("ABCD")),
    ("xnli", lambda row: " ", lambda row: [f"{row['premise']}, richtig? {word}, {row['hypothesis']}" for word in ("Ja", "Auch", "Nein")]),
])
def test_hits_are_those_of_our_own_ranking_with_the_prompt_of_the_benchmark(local, family, prompt, choices):
    rows = [{"id": str(k), "lang": LANGUAGE[family], "question": prompt(row), "options": choices(row), "answer": 0} for k, row in enumerate(documents(family))]
    scores = option_scores(tiny_model(), byte_tokenizer(), rows, "none", max_length=128).pivot(index="id", columns="option", values="score").to_numpy()
    gold = {"xnli": "label", "xstorycloze": "answer_right_ending", "belebele": "correct_answer_num"}[family]
    right = [int(row[gold]) - (family != "xnli") for row in documents(family)]
    items = run(local, family)
    assert items.loc[items["metric"] == f"{family}/acc", "value"].tolist() == [float(best == answer) for best, answer in zip(scores.argmax(1), right)]


def test_equals_simple_evaluate(local):
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from pathlib import Path

    def rows(**unused):
        return datasets.DatasetDict({split: datasets.Dataset.from_list(documents("pawsx")) for split in ("train", "validation", "test")})

    manager = TaskManager(include_path=[Path(lm_eval.tasks.__file__).parent / "paws-x"], include_defaults=False)
    task = manager.load([{"group": "g", "task": [{"task": "paws_fr", "custom_dataset": rows}]}])["tasks"]["paws_fr"]
    theirs = simple_evaluate(model=HFLM(pretrained=tiny_model(), tokenizer=byte_tokenizer()), tasks=[task], task_manager=manager, bootstrap_iters=0)
    items = run(local, "pawsx")
    hits = items.loc[items["metric"] == "pawsx/acc", "value"]
    assert hits.mean() == theirs["results"]["paws_fr"]["acc,none"] and hits.tolist() == [sample["acc"] for sample in theirs["samples"]["paws_fr"]]


def test_batch_size_and_limit(local):
    whole = run(local, "xcopa")
    pd.testing.assert_frame_equal(whole, run(local, "xcopa", batch_size=1))
    some = run(local, "xcopa", limit=2)
    pd.testing.assert_frame_equal(some, whole[whole["id"].isin(["0", "1"])].reset_index(drop=True))


def test_examples_in_the_prompt_come_from_the_training_split(tmp_path):
    write(tmp_path / "de" / "validation.jsonl", documents("xnli"))
    write(tmp_path / "de" / "train.jsonl", documents("xnli")[:2])
    seen = []
    model = tiny_model()
    model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(args[0].shape[1] if args else kwargs["input_ids"].shape[1]), with_kwargs=True)
    lengths = []
    for shots in (None, 1):
        seen.clear()
        run_tasks(model, byte_tokenizer(), ["xnli"], ["de"], local={"xnli": tmp_path}, num_fewshot=shots)
        lengths.append(max(seen))
    assert lengths[1] > lengths[0]


def test_a_language_that_a_family_lacks_is_a_gap_and_not_a_zero(local):
    items = run(local, "xnli", languages=["de", "bn"])
    row = tabulate(items).set_index("target_lang").loc["bn"]
    assert row["n"] == 0 and np.isnan(row["value"]) and row["metric"] == "xnli/acc"
    assert run(local, "xnli", languages=["bn", "bn"])["value"].isna().tolist() == [True]


def test_summaries_are_written_greedily_and_scored(local):
    model, tokenizer = tiny_model(), byte_tokenizer()
    items = run(local, "xlsum", limit=2)
    assert set(items["metric"]) == {"xlsum/rouge_l", "xlsum/chrf"} and len(items) == 4 and items["value"].between(0, 100).all()
    row = documents("xlsum")[0]
    ids = tokenizer(row["text"] + "\n\nTL;DR:", return_tensors="pt")["input_ids"][:, -64:]
    with torch.no_grad():
        written = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=64)
    text = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).split("\n")[0].strip()
    found = items[items["id"] == "0"].set_index("metric")["value"].to_dict()
    assert {key.removeprefix("xlsum/"): value for key, value in found.items()} == pytest.approx(summary_scores(row["summary"], text))


def longest_common(a, b):
    "Length of the longest common subsequence, by the textbook recursion."
    if not a or not b:
        return 0
    return longest_common(a[:-1], b[:-1]) + 1 if a[-1] == b[-1] else max(longest_common(a[:-1], b), longest_common(a, b[:-1]))


@pytest.mark.parametrize("summary, written", [
    ("free education for all", "education is for all of us"), ("人人有权", "人有受教育权"), ("हर बच्चे का", "बच्चे का हर"), ("Ёлка", "ёлка и"), ("ทุกคน", "คนทุก"),
])
def test_rouge_is_the_textbook_measure_in_every_script(summary, written):
    a, b = summary_tokens(summary), summary_tokens(written)
    common = longest_common(a, b)
    scores = summary_scores(summary, written)
    assert common and scores["rouge_l"] == pytest.approx(100 * 2 * common / (len(a) + len(b)))
    assert scores["chrf"] == sacrebleu.sentence_chrf(written, [summary]).score


def test_tokens_of_summaries():
    assert summary_tokens("Don't, STOP 12!") == ["don", "t", "stop", "12"]
    assert summary_tokens("बच्चे") == ["बच्चे"] and summary_tokens("東京タワー") == list("東京タワー")
    assert summary_scores("x", "")["rouge_l"] == 0 and summary_scores("سلام", "سلام")["rouge_l"] == 100


def test_layouts_of_folders(tmp_path):
    rows, columns = documents("xnli"), FAMILIES["xnli"].columns
    for name in ("a/de/test.jsonl", "b/de.jsonl", "c/data/de.json", "d/de/test-00000-of-00002.jsonl", "d/de/test-00001-of-00002.jsonl"):
        write(tmp_path / name, rows)
    (tmp_path / "e").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "e" / "de.parquet")
    for name in "abcde":
        splits = local_splits(tmp_path / name, ["nope", "de"], columns)
        assert list(splits["test"])[:6] == rows and len(splits["test"]) == (12 if name == "d" else 6)


def test_strings_of_digits_stay_strings(tmp_path):
    write(tmp_path / "deu_Latn.jsonl", documents("belebele"))
    assert local_splits(tmp_path, ["deu_Latn"], FAMILIES["belebele"].columns)["test"]["correct_answer_num"][0] == "1"


def test_bad_folders_are_named(tmp_path, local):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        run({"xnli": tmp_path / "nowhere"}, "xnli")
    with pytest.raises(InputError, match="no data for 'de'; expected de/SPLIT.jsonl"):
        run({"xnli": tmp_path}, "xnli")
    with pytest.raises(InputError, match="test.jsonl: missing the columns premise, hypothesis, label"):
        write(tmp_path / "de" / "test.jsonl", documents("xlsum"))
        run({"xnli": tmp_path}, "xnli")
    with pytest.raises(InputError, match="test.jsonl: cannot be read as jsonl"):
        (tmp_path / "de" / "test.jsonl").write_text("{")
        run({"xnli": tmp_path}, "xnli")
    with pytest.raises(InputError, match=r"xcopa \(sw\): lm-eval could not use the data in .* \(KeyError: 'why'\); compare it"):
        write(tmp_path / "sw" / "test.jsonl", [{**row, "question": "why"} for row in documents("xcopa")])
        run({"xcopa": tmp_path}, "xcopa")


def test_without_the_hub_the_error_says_what_to_do(monkeypatch):
    def offline(*args, **options):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(InputError, match=r"xnli \(de\): lm-eval could not use its data on the Hub \(ConnectionError: .*pass local={'xnli': folder}"):
        run({}, "xnli")


def test_data_that_is_a_program_is_read_from_its_parquet_copy(monkeypatch):
    asked = []

    def load(path, name, **options):
        asked.append((path, name, options.get("revision")))
        if "revision" not in options:
            raise RuntimeError("Dataset scripts are no longer supported, but found xstory_cloze.py")
        return datasets.DatasetDict({split: datasets.Dataset.from_list(documents("xstorycloze")) for split in ("train", "eval")})

    monkeypatch.setattr(datasets, "load_dataset", load)
    items = run({}, "xstorycloze")
    assert len(items) == 12 and [row[2] for row in asked] == [None, "refs/convert/parquet"] and asked[0][0] == asked[1][0]


def test_bad_requests(local):
    with pytest.raises(UsageError, match="unknown task family 'xnly'; did you mean 'xnli'"):
        run_tasks(tiny_model(), byte_tokenizer(), ["xnly"], ["de"])
    with pytest.raises(UsageError, match="unknown task family 'XNLI'"):
        run_tasks(tiny_model(), byte_tokenizer(), ["xnli"], ["de"], local={"XNLI": "."})
    with pytest.raises(UsageError, match="expected a list of families"):
        run_tasks(tiny_model(), byte_tokenizer(), "xnli", ["de"])
    with pytest.raises(UsageError, match="limit: expected"):
        run(local, "xnli", limit=0)
    with pytest.raises(UsageError, match="unknown language"):
        run(local, "xnli", languages=["xx-nothing"])
    with pytest.raises(UsageError, match="need the model's tokenizer, got None"):
        run_tasks(tiny_model(), None, ["xnli"], ["de"], local=local)
    for kind in ("bert", "xlmr", "t5"):
        with pytest.raises(UsageError, match="causal language model"):
            run_tasks(tiny_model(kind), byte_tokenizer("<s> $A </s>"), ["xnli"], ["de"], local=local)


def test_weights_and_likelihoods_that_are_no_numbers_are_no_zeros(local, monkeypatch):
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(InputError, match="the weights 'model.norm.weight' hold values that are not numbers"):
        run_tasks(model, byte_tokenizer(), ["xlsum"], ["sw"], local=local)
    model = tiny_model()
    model.lm_head.register_forward_hook(lambda module, args, output: output * float("inf"))
    with pytest.raises(InputError, match=r"xnli \(de\), question 0: a likelihood is not a number"):
        run_tasks(model, byte_tokenizer(), ["xnli"], ["de"], local=local)


def test_a_missing_package_is_named_with_its_extra(monkeypatch, local):
    monkeypatch.setitem(sys.modules, "lm_eval.evaluator", None)
    with pytest.raises(UsageError, match=r"pip install 'alignx\[eval\]'"):
        run(local, "xnli")
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(UsageError, match=r"pip install 'alignx\[eval\]'"):
        summary_scores("a", "a")


def test_nothing_is_printed_and_nothing_is_left_changed(local, capfd):
    model, tokenizer = tiny_model().train(), byte_tokenizer(pad=False)
    torch.manual_seed(5)
    state, level = torch.random.get_rng_state(), logging.getLogger("lm_eval").level
    run_tasks(model, tokenizer, ["pawsx"], ["fr"], local=local, limit=2)
    output = capfd.readouterr()
    assert output.out == "" and output.err == ""
    assert model.training and tokenizer.pad_token is None and (torch.random.get_rng_state() == state).all() and logging.getLogger("lm_eval").level == level
