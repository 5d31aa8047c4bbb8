"""Text that is excluded is in no row, and a build tells what it is made from."""
import json

import pytest
from datasets import Dataset, DatasetDict, load_from_disk

from alignx import building
from alignx.building import build, build_fingerprint
from alignx.errors import InputError, UsageError
from alignx.held_out import excluded_rows, held_out_rows
from alignx.held_out import test_rows as measured_rows
from alignx.loading import load_tokenizer
from alignx.recipe import make_recipe
from alignx.run_folder import Run

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def corpus(tmp_path):
    "Tuples in two languages, and of each kind of source one that holds some of them."
    rows = [{"id": str(n), "text": {"en": f"This is sentence {word}.", "de": f"Das ist Satz {word}."}, "split": "test" if n > 9 else "train"} for n, word in enumerate(NUMBERS)]
    write(tmp_path / "corpus.jsonl", rows)
    write(tmp_path / "pairs.jsonl", [{"translation": {"de": "Das ist Satz  ONE.", "pl": "To jest zdanie."}, "split": "dev"}, {"translation": {"en": "This is sentence two.", "fr": "Une phrase."}, "split": "test"}])
    (tmp_path / "folder").mkdir()
    for language, line in (("en", "Nothing of the kind."), ("de", "Das ist Satz three.")):
        (tmp_path / "folder" / f"set.{language}").write_text(f"{line}\n", encoding="utf-8")
    splits = {split: Dataset.from_list([{"source": f"This is sentence {word}.", "target": "x", "source_lang": "en", "target_lang": "ko"}]) for split, word in (("dev", "four"), ("devtest", "five"))}
    DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return tmp_path


def values(folder, exclude, **data):
    data = {"parallel": str(folder / "corpus.jsonl"), "exclude": exclude, "instructions": None, "template": "plain", "filters": ["in the evaluation rows"], **data}
    return {"languages": ["en", "de"], "output_dir": str(folder / "run"), "data": data}


def run(folder, exclude, **data):
    return Run(make_recipe(values(folder, exclude, **data)), lambda line: None)


def texts(made):
    rows = [load_from_disk(str(made.path / "data" / stage)) for stage in ("align", "tune")]
    return "\n".join(load_tokenizer("demo").batch_decode([ids for each in rows for ids in each["input_ids"]]))


def test_sentences_of_files_folders_and_splits_are_in_no_row(corpus):
    sources = [str(corpus / name) for name in ("pairs.jsonl", "folder", "saved")]
    for exclude, gone in ((None, ()), (sources[:1], NUMBERS[:2]), (sources, NUMBERS[:5])):
        build(made := run(corpus, exclude, replay=30, tune_replay=30))
        written = texts(made)
        assert [word for word in NUMBERS[:10] if f"sentence {word}." not in written and f"Satz {word}." not in written] == list(gone)
        assert json.loads((made.path / "data" / "card.json").read_text())["data"]["exclude"] == (exclude and [source.rpartition("/")[2] for source in exclude])


def test_a_source_that_is_replayed_is_filtered_too(corpus):
    news = write(corpus / "news.jsonl", [{"text": f"This is sentence {word}.", "lang": "en"} for word in NUMBERS])
    build(made := run(corpus, [str(corpus / "saved")], replay=30, replay_source=news, pairs=1))
    written = texts(made)
    assert not any(f"sentence {word}." in written for word in NUMBERS[3:5] + NUMBERS[10:]) and "sentence seven." in written


def test_sentences_in_other_languages_do_not_matter(corpus):
    recipe = make_recipe(values(corpus, [str(corpus / "pairs.jsonl"), str(corpus / "saved")]))
    rows, test = excluded_rows(recipe), measured_rows(recipe)
    assert {*rows["source_lang"], *rows["target_lang"]} == {"en", "de"} and len(rows) == 4
    assert held_out_rows(recipe, test).column_names == test.column_names and len(held_out_rows(recipe, test)) == len(test) + 4


def bad_rows(folder):
    return write(folder / "bad.jsonl", [{"source": "cat", "target": "Katze", "source_lang": "en", "target_lang": "de"}, {"source": "dog", "source_lang": "en", "target_lang": "de"}])


@pytest.mark.parametrize("make, kind, said", [
    (lambda folder: write(folder / "far.jsonl", [{"translation": {"ko": "가", "pl": "b"}}]), UsageError, "far.jsonl: no text that may be used, in en, de; it holds ko, pl"),
    (lambda folder: str(folder / "nowhere.jsonl"), UsageError, "nowhere.jsonl: no such file"),
    (lambda folder: 3, UsageError, "source 3"),
    (bad_rows, InputError, "bad.jsonl, row 2"),
])  # fmt: skip
def test_what_cannot_be_excluded_names_the_field(corpus, make, kind, said):
    with pytest.raises(kind) as caught:
        build(run(corpus, [make(corpus)]))
    assert str(caught.value).startswith("recipe, section 'data', exclude: ") and said in str(caught.value) and "\n" not in str(caught.value)
    assert type(caught.value) is kind


def test_broken_rows_may_be_skipped_and_are_counted(corpus):
    build(made := run(corpus, [bad_rows(corpus)], on_error="skip"))
    assert json.loads((made.path / "data" / "skipped.json").read_text())["rows"] == 1


def test_the_fingerprint_is_that_of_the_build_and_of_every_run_with_the_same_rows(corpus):
    source = str(corpus / "pairs.jsonl")
    first = run(corpus, [source])
    expected = build_fingerprint(first)
    assert not (first.path / "data").exists()
    build(first)
    assert first.note("build")["fingerprint"] == expected

    def other(changes=None, exclude=(source,), **data):
        given = values(corpus, exclude and list(exclude), **data) | {"output_dir": str(corpus / "other")} | (changes or {})
        return build_fingerprint(Run(make_recipe(given), lambda line: None))

    assert other() == other({"align": {"pooling": "row", "learning_rate": 0.1}}) == other({"stages": ["tune"]}) == other({"preset": "paper"}) == other(num_proc=2) == expected
    different = [other({"align": {"pooling": "mirror"}}), other({"seed": 1}), other({"stages": []}), other({"evaluate": {"tuples": 2}}), other(exclude=None), other(exclude=[source, "demo"]), other(pairs=3)]
    assert len({expected, *different}) == 8


def test_a_changed_set_is_built_anew_and_its_parts_are_not_mixed(corpus):
    source, tokenizer = corpus / "pairs.jsonl", load_tokenizer("demo")
    made = run(corpus, [str(source)])
    before = build_fingerprint(made), building._key(made.recipe, tokenizer)
    moved = corpus / "moved.jsonl"
    moved.write_bytes(source.read_bytes())
    assert building._key(run(corpus, [str(moved)]).recipe, tokenizer) != before[1], "the name of a file is part of its content"
    (corpus / "elsewhere").mkdir()
    (corpus / "elsewhere" / "pairs.jsonl").write_bytes(source.read_bytes())
    assert building._key(run(corpus, [str(corpus / "elsewhere" / "pairs.jsonl")]).recipe, tokenizer) == before[1]
    build(made)
    write(source, [{"translation": {"en": "This is sentence six.", "de": "-"}}])
    assert build_fingerprint(made) != before[0] and building._key(made.recipe, tokenizer) != before[1]
    build(made)
    assert "sentence six." not in texts(made) and "sentence two." in texts(made)
