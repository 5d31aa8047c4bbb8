import json
import random
import tracemalloc
from collections import Counter

import datasets
import pytest
import torch
from datasets import Dataset, load_from_disk
from transformers import AutoTokenizer

from align_batches import tiny
from alignx.building import build
from alignx.data import encode_rows, load_parallel
from alignx.data.mixing import apportion, draw
from alignx.data.sentences import load_sentences
from alignx.demo import demo_corpus, demo_model
from alignx.errors import InputError, UsageError
from alignx.recipe import make_recipe
from alignx.run_folder import Run
from alignx.tune import PLAIN_SENTENCE, mix_weights, replay_rows


@pytest.fixture(scope="module")
def rows():
    datasets.disable_progress_bars()
    return load_parallel(demo_corpus(), languages=["en", "zh", "ar", "sw"], split="validation")


def test_exact_counts_and_the_seed_decides(rows):
    drawn = replay_rows(rows, 101, pivot_share=0.4, seed=5)
    counts = Counter(drawn["lang"])
    assert len(replay_rows(rows, 0)) == 0 and len(drawn) == 101 and counts["en"] in (40, 41) and all(counts[language] in (20, 21) for language in ("zh", "ar", "sw"))
    assert drawn[:] == replay_rows(rows, 101, pivot_share=0.4, seed=5)[:] != replay_rows(rows, 101, pivot_share=0.4, seed=6)[:]
    sentences = {(row[f"{side}_lang"], row[side]) for row in rows for side in ("source", "target")}
    assert {(row["lang"], row["output"]) for row in drawn} <= sentences


@pytest.mark.parametrize(("share", "languages"), [(1.0, {"en"}), (0.0, {"zh", "ar", "sw"})])
def test_one_language_or_all_but_one(rows, share, languages):
    assert set(replay_rows(rows, 60, pivot_share=share)["lang"]) == languages


def test_each_sentence_once_before_any_comes_again(rows):
    distinct = len(set(rows["source"]))
    drawn = replay_rows(rows, 2 * distinct, pivot_share=1.0)
    assert set(Counter(drawn["output"]).values()) == {2}


def test_a_replayed_row_is_the_sentence_and_nothing_else(rows):
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    drawn = replay_rows(rows, 30)
    for row, encoded in zip(drawn, encode_rows(drawn, tokenizer, template=PLAIN_SENTENCE)):
        assert encoded["input_ids"] == tokenizer(row["output"], split_special_tokens=True)["input_ids"] + [tokenizer.eos_token_id]
        assert encoded["labels"][1:] == encoded["input_ids"][1:]
        assert set(encoded["spans"]) == {0} and encoded["source_lang"] == encoded["target_lang"] == -1


def test_bad_requests(rows):
    with pytest.raises(InputError, match="'fr'"):
        replay_rows(rows, 1, pivot="fr")
    with pytest.raises(InputError, match="no rows"):
        replay_rows(Dataset.from_dict({"source": [], "target": [], "source_lang": [], "target_lang": []}), 1)
    for wrong in ({"count": -1}, {"count": 3, "pivot_share": 2}):
        with pytest.raises(UsageError):
            replay_rows(rows, **wrong)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_mixed_weights_lie_between(share):
    model, base = tiny(seed=0), tiny(seed=1)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    untouched = {name: weight.clone() for name, weight in base.named_parameters()}
    mix_weights(model, base, share)
    for name, weight in model.named_parameters():
        expected = (1 - share) * before[name].double() + share * untouched[name].double()
        assert torch.allclose(weight.double(), expected, atol=1e-6), name
        assert torch.equal(dict(base.named_parameters())[name], untouched[name])
    assert model.lm_head.weight is model.model.embed_tokens.weight, "tied weights stay tied"


def test_mixing_refuses_another_model_and_another_share():
    with pytest.raises(InputError, match="started from"):
        mix_weights(tiny("llama"), tiny("gpt2"), 0.5)
    with pytest.raises(UsageError, match="between 0 and 1"):
        mix_weights(tiny(), tiny(), -0.1)


def naive_draw(rows, count, pivot, share, seed):
    "As one would write it with everything in memory."
    sentences, rng = {}, random.Random(seed)
    for row in rows:
        for side in ("source", "target"):
            sentences.setdefault(row[f"{side}_lang"], {})[row[side]] = None
    others = sorted(set(sentences) - {pivot})
    weights = {pivot: share, **{language: (1 - share) / len(others) for language in others}}
    chosen = [(language, text) for language, quota in apportion(count, weights).items() for text in draw(list(sentences[language]), quota, rng)]
    rng.shuffle(chosen)
    return chosen


@pytest.mark.parametrize("count", [1, 57, 900])
def test_places_instead_of_texts_draw_the_same(rows, count):
    drawn = replay_rows(rows, count, "en", 0.3, seed=2)
    assert list(zip(drawn["lang"], drawn["output"])) == naive_draw(rows, count, "en", 0.3, 2)


def test_a_large_corpus_costs_little_memory():
    texts = Dataset.from_dict({"text": [f"{number:08d} " + "long " * 40 for number in range(60_000)], "lang": ["en", "de"] * 30_000})
    tracemalloc.start()
    drawn = replay_rows(texts, 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(drawn["output"])) == 50 and peak < 8e6, f"{peak:,} bytes, of 12,540,000 that the texts have"


def written(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_sentences_from_lines_tables_and_pairs(tmp_path, rows):
    lines = "\ufeffOne.\r\n\nZwei — drei.\nOne.\n"
    for name in ("de.txt", "plain.de"):
        (tmp_path / name).write_text(lines, encoding="utf-8")
        assert load_sentences(tmp_path / name).to_list() == [{"text": text, "lang": "de"} for text in ("One.", "Zwei — drei.", "One.")]
    table = written(tmp_path / "t.jsonl", [{"text": "a", "lang": "en"}, {"text": "b", "language": "sw"}, {"text": "c"}])
    assert load_sentences(table, language="tr")["lang"][:] == ["en", "sw", "tr"]
    with pytest.raises(InputError, match="t.jsonl, row 3, field 'lang'"):
        load_sentences(table)
    assert len(load_sentences(table, on_error="skip", skipped=(left := []))) == 2 and len(left) == 1
    assert set(load_sentences(rows, ["zh", "sw"])["lang"]) == {"zh", "sw"}
    many = load_sentences(written(tmp_path / "m.jsonl", [{"id": "1", "text": {"en": "x", "de": "y"}}, {"source": "p", "target": "q", "source_lang": "en", "target_lang": "sw"}]))
    assert many["text"][:] == ["x", "y", "p", "q"] and many["lang"][:] == ["en", "de", "en", "sw"]
    (tmp_path / "plain.en").write_text("One.\n\nTwo — three.\nOne.\n", encoding="utf-8")
    assert set(load_sentences(tmp_path / "plain.en")["lang"]) == {"en", "de"}, "with a file beside it, it is parallel text"


@pytest.mark.parametrize(("name", "content", "more", "said"), [
    ("x.txt", b"words\n", {}, "in which language"),
    ("x.txt", b"caf\xe9\n", {"language": "fr"}, "row 1: not UTF-8"),
    ("x.txt", b"", {"language": "fr"}, "empty"),
    ("x.txt", b"\n \n", {"language": "fr"}, "no text"),
    ("x.txt", b"words\n", {"language": "xx-klingon"}, "language"),
    ("x.bin", b"\x00\x01", {"language": "fr"}, "not a kind of file"),
    ("x.jsonl", b'{"text": 3}\n', {"language": "fr"}, "row 1"),
])  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path, name, content, more, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        load_sentences(tmp_path / name, **more)
    assert "\n" not in str(caught.value)


def test_a_recipe_replays_from_a_file_of_its_own_but_never_test_sentences(tmp_path):
    test = load_parallel(demo_corpus(), languages=["en", "de"], split="test")["source"][0]
    (tmp_path / "news.en.txt").write_text(f"{test}\n" + "".join(f"News number {number}.\n" for number in range(9)), encoding="utf-8")
    recipe = {"languages": ["en", "de"], "stages": ["tune"], "output_dir": str(tmp_path / "run"), "data": {"template": "plain", "tune_pairs": 4, "pairs": 40, "tune_replay": 30, "replay_source": str(tmp_path / "news.en.txt"), "replay_language": "en"}}
    run = Run(make_recipe(recipe), lambda line: None)
    build(run)
    tune = load_from_disk(str(run.path / "data" / "tune"))
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    plain = [tokenizer.decode(row["input_ids"], skip_special_tokens=True) for row in tune if row["labels"][1:] == row["input_ids"][1:]]
    assert Counter(plain).total() == 30 and {text.strip() for text in plain} == {f"News number {number}." for number in range(9)}
    recipe["data"]["replay_source"] = str(tmp_path / "missing.txt")
    with pytest.raises(UsageError, match="missing.txt: no such file"):
        build(Run(make_recipe(recipe), lambda line: None))
