import gzip
import json

import pytest
from datasets import Dataset, DatasetDict

from alignx.data import load_parallel
from alignx.data.sources import records
from alignx.demo import demo_corpus
from alignx.errors import InputError, UsageError

PAIR = {"source": "one", "target": "eins", "source_lang": "en", "target_lang": "de"}


def write(path, *rows):
    opened = gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else open(path, "w", encoding="utf-8")
    with opened as file:
        file.write("\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows))
    return path


def directions(rows):
    return list(zip(rows["source_lang"], rows["target_lang"]))


def test_multiway_pivots(tmp_path):
    tuples = [{"id": "a", "domain": "d", "text": {"en": "one", "de": "eins", "jpn": "一", "th": None}}, {"id": "b", "text": {"de": "zwei", "ja": "二", "fr": "deux"}}]
    path = write(tmp_path / "m.jsonl.gz", *tuples)
    everything = load_parallel(path)
    assert directions(everything) == [("en", "de"), ("en", "ja")] and everything["id"] == ["a", "a"] and everything["domain"] == ["d", "d"]
    assert directions(load_parallel(path, ["de", "ja"])) == [("de", "ja"), ("de", "ja")]
    assert directions(load_parallel(path, ["en", "de", "fr"])) == [("en", "de")], "a tuple without the pivot makes no row"


def test_order_of_languages_is_kept(tmp_path):
    path = write(tmp_path / "m.jsonl", {"text": {"de": "eins", "en": "one", "ja": "一"}})
    assert directions(load_parallel(path, ["en", "ja", "deu"])) == [("en", "ja"), ("en", "de")]


def test_pairs_are_filtered_but_not_turned(tmp_path):
    path = write(tmp_path / "p.jsonl", PAIR, {**PAIR, "source_lang": "fr"}, "", {**PAIR, "source_lang": "de", "target_lang": "en", "id": 7})
    assert directions(load_parallel(path, ["en", "de"])) == [("en", "de"), ("de", "en")]
    assert load_parallel(path)["id"] == ["1", "2", "7"]


def test_languages_given_from_outside(tmp_path):
    path = write(tmp_path / "p.jsonl", {"source": "one", "target": "eins"})
    assert directions(load_parallel(path, ["en", "de"])) == [("en", "de")]
    with pytest.raises(InputError, match=r"p.jsonl, row 1, field 'source_lang'.*languages="):
        load_parallel(path)


def test_tsv_has_no_quoting_and_csv_has(tmp_path):
    tsv = write(tmp_path / "a.tsv", 'en\tde', 'He said "yes\tEr sagte "ja')
    assert load_parallel(tsv)["source"] == ['He said "yes']
    csv = write(tmp_path / "a.csv", "source,target,source_lang,target_lang", '"a, ""b""\nc",d,en,de')
    assert load_parallel(csv)["source"] == ['a, "b"\nc']
    assert load_parallel(write(tmp_path / "bom.csv", "\ufeffen,de", "one,eins"))["source"] == ["one"]


def test_empty_text_is_kept_for_cleaning_to_find(tmp_path):
    assert load_parallel(write(tmp_path / "p.jsonl", {**PAIR, "target": ""}))["target"] == [""]


def test_parquet_folders_and_saved_datasets(tmp_path):
    data = Dataset.from_list([PAIR, PAIR])
    data.to_parquet(tmp_path / "a.parquet")
    write(tmp_path / "b.jsonl", PAIR)
    write(tmp_path / "notes.md", "not a corpus")
    assert len(load_parallel(tmp_path / "a.parquet")) == 2 and len(load_parallel(tmp_path)) == 3
    data.save_to_disk(tmp_path / "saved")
    DatasetDict(train=data, test=data.select([0])).save_to_disk(tmp_path / "splits")
    assert len(load_parallel(tmp_path / "saved")) == 2
    assert (len(load_parallel(tmp_path / "splits")), len(load_parallel(tmp_path / "splits", split="test"))) == (3, 1)
    assert load_parallel(tmp_path / "splits")["id"][:] == ["train:0", "train:1", "test:0"]
    with pytest.raises(UsageError, match="unknown split 'dev'"):
        load_parallel(tmp_path / "splits", split="dev")


def hub_folder(folder, *configs, split="train"):
    "A folder in the layout of OPUS-100: a dataset card, and a folder with Parquet files per language pair."
    card = ["---", "configs:"]
    for config in configs:
        card += [f"- config_name: {config}", "  data_files:", f"  - split: {split}", f"    path: {config}/{split}-*"]
        source, target = config.split("-")
        rows = [{"translation": {source: f"{source} {number}", target: f"{target} {number}"}} for number in range(3)]
        Dataset.from_list(rows).to_parquet(folder / config / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text("\n".join([*card, "---", "# A corpus"]))
    return folder


@pytest.mark.parametrize("card", [True, False])
def test_hub_configurations(tmp_path, card):
    folder = hub_folder(tmp_path, "de-en", "en-fr", "af-en", "de-fr")
    if not card:
        (folder / "README.md").unlink()
    for streaming in (False, True):
        rows = list(load_parallel(folder, ["en", "de", "fr"], split="train", streaming=streaming))
        assert sorted({(row["source_lang"], row["target_lang"]) for row in rows}) == [("de", "fr"), ("en", "de"), ("en", "fr")]
        assert any(row["id"].startswith("de-fr") for row in rows) and len(rows) == len({row["id"] for row in rows}) == 9, "the third rows of two configurations do not mean the same"
    assert len(load_parallel(folder)) == 12
    with pytest.raises(UsageError, match="unknown language 'sw'" if not card else "unknown configuration"):
        load_parallel(folder, ["en", "sw"])
    with pytest.raises(UsageError, match="dev"):
        load_parallel(folder, ["en", "de"], split="dev")


def test_one_hub_configuration(tmp_path, monkeypatch):
    hub_folder(tmp_path / "corpora" / "opus", "de-en", "af-en")
    assert directions(load_parallel(f"{tmp_path}/corpora/opus:af-en")) == [("en", "af")] * 3
    monkeypatch.chdir(tmp_path)
    assert directions(load_parallel("corpora/opus:de-en", split="train")) == [("en", "de")] * 3
    with pytest.raises(UsageError, match="did you mean 'corpora/opus:de-en'"):
        load_parallel("corpora/opus:de-eng")
    with pytest.raises(UsageError, match="no file or folder here, and not to be had from the Hub"):
        load_parallel("nobody/no-such-corpus")


@pytest.mark.parametrize("line, message", {
    "{": "row 2: not JSON",
    "[1]": "row 2: expected an object",
    json.dumps({**PAIR, "source": 3}): "row 2, field 'source': expected text, got int",
    json.dumps({**PAIR, "target": None}): "row 2, field 'target': expected text, got NoneType",
    json.dumps({**PAIR, "target": "\ud83d"}): "row 2, field 'target': holds half",
    json.dumps({**PAIR, "target_lang": "jp"}): "row 2, field 'target_lang': unknown language 'jp'.*'ja'",
    json.dumps({"text": {"en": "a", "eng": "b"}}): "row 2, field 'eng': a second text in language 'en'",
    json.dumps({"text": {"en": "a", "qqq1": "b"}}): "row 2, field 'text.qqq1': unknown language",
    json.dumps({"a": "b"}): "row 2: fields 'a' hold no pair",
}.items())
def test_broken_rows_are_named(tmp_path, line, message):
    with pytest.raises(InputError, match=f"p.jsonl, {message}"):
        load_parallel(write(tmp_path / "p.jsonl", PAIR, line))


def test_broken_files_are_named(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(b'{"a": 1}\n{"source": "gr\xfc\xdfe"}')
    with pytest.raises(InputError, match="latin.jsonl, row 2: not UTF-8"):
        list(records(tmp_path / "latin.jsonl"))
    whole = write(tmp_path / "w.jsonl.gz", *[{**PAIR, "source": str(index)} for index in range(500)]).read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "fake.jsonl.gz").write_bytes(b"not gzip")
    (tmp_path / "fake.parquet").write_bytes(b"not parquet")
    for name in ("cut.jsonl.gz", "fake.jsonl.gz", "fake.parquet"):
        with pytest.raises(InputError, match=name):
            load_parallel(tmp_path / name)
    with pytest.raises(InputError, match="q.csv, row 2"):
        load_parallel(write(tmp_path / "q.csv", "en,de", 'a,"b'))


def test_sources_that_are_not_there(tmp_path):
    for source in (tmp_path / "none.jsonl", "none.csv", "no such thing", "data/none.jsonl"):
        with pytest.raises(UsageError, match="no such file"):
            load_parallel(source)
    with pytest.raises(UsageError, match="not a kind of file"):
        load_parallel(write(tmp_path / "a.docx", "x"))
    with pytest.raises(UsageError, match="leave `split` out"):
        load_parallel(write(tmp_path / "p.jsonl", PAIR), split="test")


def test_demo_splits_do_not_share_meanings():
    ids = [set(load_parallel(demo_corpus(), ["en", "sw"], split=split)["id"]) for split in ("train", "validation", "test")]
    assert all(ids) and not ids[0] & ids[1] and not ids[0] & ids[2] and not ids[1] & ids[2]


def test_sources_that_are_no_sources(tmp_path):
    for source in ("", " ", None, 3):
        with pytest.raises(UsageError, match="give a file, a folder, a dataset, or the name"):
            load_parallel(source)
    (tmp_path / "only.en").write_text("alone\n")
    with pytest.raises(UsageError, match=r"only.en: there is no .*only.\* in another language beside it"):
        load_parallel(tmp_path / "only.en")
    (tmp_path / "README.md").write_text("---\nconfigs: [[[\n---\n")
    with pytest.raises(UsageError, match="its card README.md cannot be used"):
        load_parallel(tmp_path)
