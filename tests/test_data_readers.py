"Every format gives the same rows, and every broken file one line that says where and what to do."
import csv
import gzip
import io
import json
import os
import pickle
import random
import tracemalloc
from pathlib import Path

import pytest
from datasets import Dataset, IterableDataset
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.data import SkippedRow, find_language, load_parallel
from alignx.data.broken import LISTED, Problems
from alignx.data.formats import _json_array, reader_by_name
from alignx.data.lines import LONGEST_LINE
from alignx.data.naming import named_languages
from alignx.data.sources import source_files
from alignx.data.tmx import read_tmx
from alignx.errors import InputError, UsageError

PAIRS = [("Hello, world.", "Hallo, Welt."), ('He said "yes".', "Er sagte „ja“."), ("naïve\u2028café", "arglos\x85 Kaffee"), ("emoji 👩‍👩‍👧", "अनुवाद"), ("a & <b>", "c > d")]


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def tmx(pairs, encoding="utf-8", head=""):
    units = "\n".join(f'<tu><tuv xml:lang="en-US"><seg>{escaped(a)}</seg></tuv><tuv xml:lang="DE"><seg>{escaped(b)}</seg></tuv></tu>' for a, b in pairs)
    return f'<?xml version="1.0" encoding="{encoding}"?>\n{head}<tmx version="1.4"><header/><body>\n{units}\n</body></tmx>'.encode(encoding)


def delimited(pairs, header=("eng", "deu"), delimiter="\t"):
    if delimiter == "\t":
        return "".join("\t".join(row) + "\n" for row in ([header] if header else []) + list(pairs)).encode()
    text = io.StringIO()
    csv.writer(text).writerows([header, *pairs])
    return text.getvalue().encode()


def json_lines(pairs, **shared):
    return "".join(json.dumps({"source": a, "target": b, **shared}, ensure_ascii=False) + "\n" for a, b in pairs).encode()


LANGS = {"source_lang": "eng_Latn", "target_lang": "German"}
FORMATS = {
    "pairs.jsonl": json_lines(PAIRS, **LANGS),
    "pairs.json": b"\xef\xbb\xbf" + json.dumps([{"source": a, "target": b, **LANGS} for a, b in PAIRS], indent=2).encode(),
    "lines.json": json_lines(PAIRS, **LANGS),
    "crlf.jsonl": json_lines(PAIRS, **LANGS).replace(b"\n", b"\r\n"),
    "multiway.ndjson": "".join(json.dumps({"text": {"en": a, "de": b}}) + "\n" for a, b in PAIRS).encode(),
    "named.en-de.jsonl": json_lines(PAIRS),
    "sheet.csv": delimited(PAIRS, delimiter=","),
    "sheet.tsv": delimited(PAIRS),
    "upper.tsv": delimited(PAIRS, ("EN", "DE")),
    "words.tsv": delimited(PAIRS, ("English", "German")),
    "bare.eng-deu.tsv": delimited(PAIRS, None),
    "memory.tmx": tmx(PAIRS),
    "utf16.tmx": tmx(PAIRS, "utf-16"),
    "doctype.tmx": tmx(PAIRS, head='<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n'),
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def couples(rows):
    assert {(row["source_lang"], row["target_lang"]) for row in rows} == {("en", "de")}
    return [(row["source"], row["target"]) for row in rows]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    path = write(tmp_path / name, FORMATS[name])
    assert couples(load_parallel(path)) == PAIRS
    assert couples(load_parallel(path, streaming=True)) == PAIRS
    assert couples(load_parallel(write(tmp_path / "packed" / f"{name}.gz", gzip.compress(FORMATS[name])))) == PAIRS


@pytest.mark.parametrize("name", [name for name in FORMATS if not name.endswith(".csv")])
def test_a_format_is_known_by_its_content(tmp_path, name):
    assert couples(load_parallel(write(tmp_path / "corpus", gzip.compress(FORMATS[name])), ["en", "de"])) == PAIRS


def test_parquet_forms(tmp_path):
    Dataset.from_list([{"translation": {"en": a, "de": b}} for a, b in PAIRS]).to_parquet(tmp_path / "a.parquet")
    Dataset.from_list([{"en": a, "de": b} for a, b in PAIRS]).to_parquet(tmp_path / "b.parquet")
    (tmp_path / "c").write_bytes((tmp_path / "b.parquet").read_bytes())
    for name in ("a.parquet", "b.parquet", "c"):
        assert couples(load_parallel(tmp_path / name)) == PAIRS
    assert list(load_parallel(tmp_path / "a.parquet", streaming=True)) == load_parallel(tmp_path / "a.parquet").to_list()


def write_moses(folder, stem="corpus", ending="", **texts):
    for code, lines in texts.items():
        content = "".join(f"{line}\n" for line in lines).encode()
        write(folder / f"{stem}.{code}{ending}", gzip.compress(content) if ending else content)
    return folder


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_moses_by_folder_by_prefix_and_by_file(tmp_path, ending):
    english, german = zip(*PAIRS)
    write_moses(tmp_path, "Europarl.de-en", ending, de=german, en=english)
    write(tmp_path / "README", "about the corpus")
    for source in (tmp_path, tmp_path / "Europarl.de-en", tmp_path / f"Europarl.de-en.de{ending}"):
        assert couples(load_parallel(source, ["en", "de"])) == PAIRS
    assert [row["source_lang"] for row in load_parallel(tmp_path)] == ["en"] * len(PAIRS)


def test_moses_corpora_beside_each_other(tmp_path):
    write_moses(tmp_path, "train.en-de", en=["one"], de=["eins"])
    write_moses(tmp_path, "train.en-fr", en=["one"], fr=["un"])
    rows = load_parallel(tmp_path, ["en", "de", "fr"], split="train")
    assert [(row["id"], row["target"]) for row in rows] == [("train.en-de.*:1", "eins"), ("train.en-fr.*:1", "un")]
    with pytest.raises(UsageError, match="unknown split 'test'; choose from: train"):
        load_parallel(tmp_path, split="test")


def test_flores_layout(tmp_path):
    for split, count in (("dev", 3), ("devtest", 2)):
        for code in ("eng_Latn", "zho_Hans", "zho_Hant", "aka_Latn", "twi_Latn", "arb_Arab"):
            write(tmp_path / split / f"{code}.{split}", "".join(f"{code} {split} {number}\n" for number in range(count)))
    write(tmp_path / "README.md", "# FLORES")
    rows = load_parallel(tmp_path, ["en", "zh", "zh-Hant"], split="devtest")
    assert [(row["source"], row["target"]) for row in rows] == [("eng_Latn devtest 0", "zho_Hans devtest 0"), ("eng_Latn devtest 0", "zho_Hant devtest 0"),
                                                               ("eng_Latn devtest 1", "zho_Hans devtest 1"), ("eng_Latn devtest 1", "zho_Hant devtest 1")]
    assert len(load_parallel(tmp_path, ["ar", "en"], split="dev")) == len(load_parallel(tmp_path / "dev", ["ar", "en"])) == 3
    assert len(set(load_parallel(tmp_path, ["en", "ar"])["id"])) == 5
    with pytest.raises(UsageError, match="unknown language 'fr'"):
        load_parallel(tmp_path, ["en", "fr"])
    with pytest.raises(InputError, match="twi_Latn.dev: a second file in language 'ak' beside aka_Latn.dev"):
        load_parallel(tmp_path)


def test_unequal_moses_files_give_no_row(tmp_path):
    write_moses(tmp_path, en=["one", "two", "three"], de=["eins", "drei"])
    with pytest.raises(InputError, match=r"corpus.*not equally long \(corpus.de 2 and corpus.en 3 lines\).*fetch them again"):
        load_parallel(tmp_path)
    write_moses(tmp_path, "good", en=["four"], de=["vier"])
    skipped = []
    assert load_parallel(tmp_path, on_error="skip", skipped=skipped)["source"][:] == ["four"]
    assert [row.rows for row in skipped] == [3], "whether any of the pairs is right cannot be known"


def test_moses_rows_that_are_broken_on_one_side(tmp_path):
    write(tmp_path / "c.en", b"one\nna\xefve\nthree\n" + b"x" * (LONGEST_LINE + 1) + b"\nfive")
    write(tmp_path / "c.de", "eins\nzwei\ndrei\nvier\nfünf\n")
    skipped = []
    assert load_parallel(tmp_path, on_error="skip", skipped=skipped)["target"][:] == ["eins", "drei", "fünf"]
    assert [row.where.rpartition("/")[2] for row in skipped] == ["c.en, row 2", "c.en, row 4"]
    with pytest.raises(InputError, match=r"c.en, row 2: not UTF-8 \(invalid continuation byte at byte 2\); convert"):
        load_parallel(tmp_path)


def many(count):
    return [(f"sentence number {number}", f"Satz Nummer {number}") for number in range(count)]


def test_invalid_json_in_line_1234(tmp_path):
    lines = json_lines(many(2000), **LANGS).splitlines()
    lines[1233] = lines[1233][:-1]
    path = write(tmp_path / "p.jsonl.gz", gzip.compress(b"\n".join(lines)))
    with pytest.raises(InputError, match=r"p.jsonl.gz, row 1234: not JSON \(.*at column \d+\); write one object per line"):
        load_parallel(path)
    skipped = []
    assert len(load_parallel(path, on_error="skip", skipped=skipped)) == 1999 and skipped[0].where == f"{path}, row 1234"


@pytest.mark.parametrize("item, found", [('{"source": "x" "target"}', "item 1234, line 1235: not JSON"), ("3", "item 1234: expected an object, got int"), ('{"source": "x"', "item 1234, line 1236: not JSON")])
def test_json_array_that_breaks_at_item_1234(tmp_path, item, found):
    items = json_lines(many(2000), **LANGS).decode().splitlines()
    items[1233] = item
    path = write(tmp_path / "p.json", "[\n" + ",\n".join(items) + "\n]\n")
    with pytest.raises(InputError, match=f"p.json, {found}"):
        load_parallel(path)
    kept = load_parallel(path, on_error="skip")
    assert len(kept) == (1999 if item == "3" else 1233) and kept[1232]["source"] == "sentence number 1232"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=40) | st.integers() | st.lists(st.none(), max_size=2), max_size=3), max_size=6), st.sampled_from([None, 0, 2]), st.integers(1, 9))
def test_json_arrays_of_any_content_and_buffer(tmp_path_factory, items, indent, step):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(items, indent=indent, ensure_ascii=len(items) % 2 == 0), encoding="utf-8", errors="surrogatepass")
    assert [record for _, record in _json_array(path, Problems(""), step)] == items


@pytest.mark.parametrize("name", [f"{name}.gz" for name in FORMATS if not name.startswith("utf16")] + ["corpus.en.gz"])
def test_torn_gzip(tmp_path, name):
    pairs = [(f"{random.Random(number).getrandbits(200):x}", f"{number}") for number in range(3000)]
    content = json_lines(pairs, **LANGS)
    if name.endswith(".tmx.gz"):
        content = tmx(pairs)
    elif "tsv" in name or "csv" in name:
        content = delimited(pairs, delimiter="," if "csv" in name else "\t")
    elif name == "pairs.json.gz":
        content = json.dumps([{"en": a, "de": b} for a, b in pairs]).encode()
    packed = gzip.compress(content)
    path = write(tmp_path / name, packed[: len(packed) // 2])
    if name == "corpus.en.gz":
        write(tmp_path / "corpus.de.gz", packed)
    with pytest.raises(InputError, match=f"{name}: the gzip file is broken or cut short .*fetch it again"):
        load_parallel(path, ["en", "de"])
    if name != "corpus.en.gz":
        skipped = []
        kept = load_parallel(path, ["en", "de"], on_error="skip", skipped=skipped)
        assert 500 < len(kept) < 3000 and len(skipped) == 1 and "cut short" in skipped[0].problem


def test_a_line_of_fifty_megabytes(tmp_path):
    huge = "x" * 50_000_000
    good = [("one", "eins"), ("three", "drei")]
    rows = [good[0], (huge, "zwei"), good[1]]
    files = {"a.jsonl": json_lines(rows, **LANGS), "a.tsv": delimited(rows), "a.csv": delimited(rows, delimiter=","), "a.tmx": tmx(rows)}
    for name, content in files.items():
        path = write(tmp_path / name, content)
        with pytest.raises(InputError, match=r"(row [23]: a line of more than 8 MiB|unit 2, field 'en-US': 50,000,000 characters)") as caught:
            load_parallel(path)
        assert len(str(caught.value)) < 500
        skipped = []
        assert couples(load_parallel(path, on_error="skip", skipped=skipped)) == good and len(skipped) == 1
    Dataset.from_list([{"en": a, "de": b} for a, b in rows]).to_parquet(tmp_path / "a.parquet")
    assert couples(load_parallel(tmp_path / "a.parquet", on_error="skip")) == good
    with pytest.raises(InputError, match="a.json, item 2, line 1: more than 8 MiB"):
        load_parallel(write(tmp_path / "a.json", json.dumps([{"en": a, "de": b} for a, b in rows])))


def test_ragged_tables(tmp_path):
    for name, delimiter in (("a.tsv", "\t"), ("a.csv", ",")):
        content = delimiter.join(("en", "de")) + f"\none{delimiter}eins\ntwo\nthree{delimiter}drei{delimiter}trois\nfour{delimiter}vier\n"
        path = write(tmp_path / name, content)
        with pytest.raises(InputError, match=f"{name}, row 3: 1 fields where the header has 2"):
            load_parallel(path)
        skipped = []
        assert load_parallel(path, on_error="skip", skipped=skipped)["id"][:] == ["2", "5"] and [row.where.rpartition(", ")[2] for row in skipped] == ["row 3", "row 4"]


def test_csv_goes_on_after_a_broken_quote(tmp_path):
    path = write(tmp_path / "a.csv", 'en,de\n"a\nb",c\n"x"y,z\nfour,vier\n')
    skipped = []
    rows = load_parallel(path, on_error="skip", skipped=skipped)
    assert list(zip(rows["id"], rows["source"])) == [("2", "a\nb"), ("5", "four")] and skipped[0].where.endswith("row 4")


def test_tables_without_a_header(tmp_path):
    path = write(tmp_path / "a.tsv", delimited(PAIRS, None))
    assert couples(load_parallel(path, ["en", "de"])) == PAIRS
    with pytest.raises(InputError, match="a.tsv, row 1, field 'source_lang': missing; add it, or name the two languages"):
        load_parallel(path)
    assert load_parallel(write(tmp_path / "b.tsv", "No\tNein\nYes\tJa\n"), ["en", "de"])["source"][:] == ["No", "Yes"], "two words that are codes of languages, were they written small"
    with pytest.raises(InputError, match="row 1: two columns have the same name"):
        load_parallel(write(tmp_path / "c.tsv", "en\ten\na\tb\n"))
    skipped = []
    write(tmp_path / "folder" / "d.tsv", b"en\xff\tde\na\tb\n")
    write(tmp_path / "folder" / "e.tsv", "en\tde\none\teins\n")
    assert load_parallel(tmp_path / "folder", on_error="skip", skipped=skipped)["source"][:] == ["one"], "the second line is not taken for the names"
    assert "row 1: the line that names the columns cannot be read" in skipped[-1].problem


def test_nulls_and_empty_cells(tmp_path):
    with pytest.raises(InputError, match="a.jsonl, row 1, field 'de': expected text, got NoneType"):
        load_parallel(write(tmp_path / "a.jsonl", '{"translation": {"en": "one", "de": null}}'))
    assert load_parallel(write(tmp_path / "a.tsv", "en\tde\none\t\n"))["target"][:] == [""]
    sparse = load_parallel(write(tmp_path / "b.tsv", "en\tde\tfr\none\t\tun\ntwo\t\t\nthree\tdrei\ttrois\n"))
    assert list(zip(sparse["source"], sparse["target"])) == [("one", "un"), ("three", "drei"), ("three", "trois")]
    with pytest.raises(InputError, match="row 1, field 'source_lang': expected text, got float"):
        load_parallel(write(tmp_path / "n.jsonl", '{"source": "a", "target": "b", "source_lang": NaN, "target_lang": "de"}'))


def test_unknown_languages(tmp_path):
    rows = [{"source": "a", "target": "b", **LANGS}, {"source": "a", "target": "b", **LANGS, "target_lang": "und"}, {"source": "a", "target": "b", **LANGS, "target_lang": "x" * 10_000}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match="row 2, field 'target_lang': unknown language 'und'") as caught:
        load_parallel(path)
    assert not isinstance(caught.value, UsageError), "the data are wrong, not the request"
    skipped = []
    assert len(load_parallel(path, on_error="skip", skipped=skipped)) == 1
    assert [row.problem.startswith("field 'target_lang': unknown language") and len(row.problem) < 600 for row in skipped] == [True, True]


def test_wrong_encodings(tmp_path):
    with pytest.raises(InputError, match=r"row 1: not UTF-8 \(it is UTF-16\); convert"):
        load_parallel(write(tmp_path / "a.jsonl", json_lines(PAIRS[:1], **LANGS).decode().encode("utf-16")))
    with pytest.raises(InputError, match="item 1: not UTF-8"):
        load_parallel(write(tmp_path / "a.json", b'[{"en": "na\xefve", "de": "x"}]'))
    with pytest.raises(InputError, match="a.tmx, line 3: broken XML .*; mend it"):
        load_parallel(write(tmp_path / "a.tmx", tmx([("naïve", "x")]).decode().encode("latin-1")))
    assert couples(load_parallel(write(tmp_path / "b.tmx", tmx([("naïve", "größe")], "iso-8859-1")))) == [("naïve", "größe")]


def test_broken_tmx(tmp_path):
    whole = tmx(many(2000))
    path = write(tmp_path / "a.tmx", whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a.tmx, line 10\d\d: broken XML"):
        load_parallel(path)
    assert 900 < len(load_parallel(path, on_error="skip")) < 1100
    units = '<tmx><body><tu><tuv xml:lang="en"><seg>a</seg></tuv>{}</tu><tu><tuv lang="en"><seg>b</seg></tuv><tuv lang="de"><seg>c</seg></tuv></tu></body></tmx>'
    for variant, problem in {'<tuv><seg>x</seg></tuv>': "lacks xml:lang", '<tuv xml:lang="de"/>': "lacks a seg", '<tuv xml:lang="en"><seg>x</seg></tuv>': "second text", '<tuv xml:lang="xx"><seg>x</seg></tuv>': "unknown language"}.items():
        path, skipped = write(tmp_path / "b.tmx", units.format(variant)), []
        assert load_parallel(path, on_error="skip", skipped=skipped)["target"][:] == ["c"]
        assert skipped[0].where == f"{path}, unit 1" and problem in skipped[0].problem


@pytest.mark.parametrize("kind", ["file", "http", "bomb", "parameter"])
def test_tmx_entities_are_refused(tmp_path, kind):
    secret = write(tmp_path / "secret.txt", "the secret")
    head = {
        "file": f'<!DOCTYPE tmx [<!ENTITY x SYSTEM "{secret.as_uri()}">]>',
        "http": '<!DOCTYPE tmx [<!ENTITY x SYSTEM "http://127.0.0.1:9/x">]>',
        "bomb": '<!DOCTYPE tmx [<!ENTITY a "ha">' + "".join(f'<!ENTITY {chr(98 + n)} "{("&" + chr(97 + n) + ";") * 10}">' for n in range(9)) + '<!ENTITY x "&j;">]>',
        "parameter": f'<!DOCTYPE tmx [<!ENTITY % p SYSTEM "{secret.as_uri()}"> %p;]>',
    }[kind]
    body = '<tmx><body><tu><tuv lang="en"><seg>&x;</seg></tuv><tuv lang="de"><seg>b</seg></tuv></tu></body></tmx>'
    path = write(tmp_path / "a.tmx", head + body)
    for on_error in ("raise", "skip"):
        with pytest.raises(InputError, match="defines XML entities, .*; remove its <!ENTITY") as caught:
            load_parallel(path, on_error=on_error)
        assert "the secret" not in str(caught.value)


def test_an_external_doctype_is_not_fetched(tmp_path):
    write(tmp_path / "evil.dtd", '<!ENTITY x "fetched">')
    path = write(tmp_path / "a.tmx", f'<!DOCTYPE tmx SYSTEM "{(tmp_path / "evil.dtd").as_uri()}"><tmx><body><tu><tuv lang="en"><seg>&x;</seg></tuv></tu></body></tmx>')
    try:
        texts = [record["text"] for _, record in read_tmx(path, Problems(""))]
    except InputError:
        return
    assert "fetched" not in str(texts)


def test_tmx_memory_does_not_grow(tmp_path):
    path = write(tmp_path / "a.tmx", tmx(many(10_000)))
    units = read_tmx(path, Problems(""))
    next(units)
    tracemalloc.start()
    for _ in units:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000, f"{path.stat().st_size:,} bytes of file"


def test_empty_files_and_folders(tmp_path):
    for name in ("a.jsonl", "a.json", "a.csv", "a.tsv", "a.tmx", "a.parquet", "a.jsonl.gz", "unnamed"):
        with pytest.raises(InputError, match=f"{name}: the file is empty; fetch it again"):
            load_parallel(write(tmp_path / name, b""))
    for name, content in {"b.jsonl": "\n\n", "b.json": "[]", "b.tsv": "en\tde\n", "b.tmx": "<tmx><body/></tmx>", "b.jsonl.gz": gzip.compress(b"")}.items():
        with pytest.raises(InputError, match=f"{name}: holds no rows"):
            load_parallel(write(tmp_path / name, content))
    folder = write(tmp_path / "folder" / "notes.docx", "x").parent
    with pytest.raises(UsageError, match=r"folder: holds no file that can be read \(notes.docx\); use .jsonl"):
        load_parallel(folder)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match=r"nothing: holds no file that can be read \(nothing\)"):
        load_parallel(tmp_path / "nothing")


def test_an_empty_file_in_a_folder_is_not_passed_over(tmp_path):
    write(tmp_path / "a.jsonl", FORMATS["pairs.jsonl"])
    write(tmp_path / "b.jsonl", b"")
    with pytest.raises(InputError, match="b.jsonl: the file is empty"):
        load_parallel(tmp_path)
    skipped = []
    assert couples(load_parallel(tmp_path, on_error="skip", skipped=skipped)) == PAIRS and skipped[0].where == str(tmp_path / "b.jsonl")


def test_skipping_counts_lists_and_warns(tmp_path, caplog):
    good, bad = json_lines(many(1), **LANGS), b"{\n" * (LISTED + 5)
    skipped = ["mine"]
    rows = load_parallel(write(tmp_path / "a.jsonl", good + bad + good), on_error="skip", skipped=skipped)
    assert len(rows) == 2 and skipped[0] == "mine" and len(skipped) == LISTED + 2
    assert sum(row.rows for row in skipped[1:]) == LISTED + 5 and isinstance(skipped[-1], SkippedRow)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and "a.jsonl: left out 10,005 broken rows, kept 2; the first is row 2: not JSON" in warnings[0]
    with pytest.raises(InputError, match="none of its 10,005 rows can be read; the first is row 1: not JSON"):
        load_parallel(write(tmp_path / "b.jsonl", bad), on_error="skip")
    with pytest.raises(UsageError, match="unknown on_error 'ignore'"):
        load_parallel(tmp_path / "a.jsonl", on_error="ignore")


def test_streams(tmp_path):
    path = write(tmp_path / "a.jsonl", json_lines(many(3), **LANGS) + b"{\n" + json_lines(many(2), **LANGS))
    with pytest.raises(UsageError, match="no such file"):
        load_parallel(tmp_path / "b.jsonl", streaming=True)
    with pytest.raises(InputError, match="row 4: not JSON"):
        list(load_parallel(path, streaming=True))
    skipped = []
    stream = load_parallel(path, ["en", "de"], streaming=True, on_error="skip", skipped=skipped)
    assert isinstance(stream, IterableDataset) and not skipped
    for _ in range(2):
        assert list(stream) == load_parallel(path, ["en", "de"], on_error="skip").to_list()
        assert len(skipped) == 1, "the list tells of one pass"
    assert len(list(pickle.loads(pickle.dumps(stream)))) == 5, "as for the workers of a data loader"
    with pytest.raises(UsageError, match="unknown language 'fr'"):
        list(load_parallel(path, ["en", "fr"], streaming=True, on_error="skip"))
    again = load_parallel(load_parallel(path, streaming=True, on_error="skip"), ["en", "de"], streaming=True)
    assert couples(again) == couples(stream)


def test_a_changed_file_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr("alignx.data.tables.IN_MEMORY", 1000)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    path = write(tmp_path / "a.tsv", delimited(many(500)))
    times = path.stat()
    first = load_parallel(path)
    write(path, delimited([(a.replace("sentence", "SENTENCE"), b) for a, b in many(500)]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = load_parallel(path)
    assert path.stat().st_size == times.st_size and (first[0]["source"], second[0]["source"]) == ("sentence number 0", "SENTENCE number 0")
    assert first.cache_files and first._fingerprint != second._fingerprint
    third = load_parallel(write(tmp_path / "b.tsv", delimited(many(500))))
    assert third.cache_files == first.cache_files and len(list((tmp_path / "cache").rglob("*.arrow"))) == 2 and not list((tmp_path / "cache").rglob("*.partial"))
    with pytest.raises(InputError):
        load_parallel(write(tmp_path / "c.tsv", delimited(many(500)) + b"x\n"))
    assert len(list((tmp_path / "cache").rglob("*"))) == 5, "two tables and their folders in one; nothing of the third"


def test_rows_do_not_pile_up_as_python_objects(tmp_path, monkeypatch):
    monkeypatch.setattr("alignx.data.tables.IN_MEMORY", 2**20)
    monkeypatch.setattr("alignx.data.tables.CHUNK_ROWS", 500)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    path = write(tmp_path / "a.tsv", delimited(many(25_000)))
    load_parallel(path)
    tracemalloc.start()
    assert len(load_parallel(path)) == 25_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_500_000, "as lists of strings these rows are some 10 MB"


def test_every_ending_has_a_reader():
    assert all(reader_by_name(Path(name)) for name in FORMATS) and reader_by_name(Path("a.docx")) is None


@pytest.mark.parametrize("name, expected", {"af-en": ("af", "en"), "en-fr": ("en", "fr"), "en-sh": ("en", "sr-Latn"), "ar-zh": ("ar", "zh"), "eng-deu": ("en", "de"), "ace_Latn-zho_Hant": ("ace-Latn", "zh-Hant"),
                                            "de_en": ("de", "en"), "train.en-de.tsv.gz": ("en", "de"), "zh_CN": ("zh",), "pt-PT": ("pt-PT",), "sr-Latn": ("sr-Latn",), "EN.txt": ("en",), "Swahili": ("sw",),
                                            "dev": (), "data": (), "train-00000-of-00001": (), "corpus.raw.txt": (), "src-tgt.tsv": (), "README.md": (), "test.tok": ()}.items())
def test_languages_in_names(name, expected):
    assert tuple(map(find_language, named_languages(name))) == tuple(map(find_language, expected))


def test_files_of_a_source(tmp_path):
    write_moses(tmp_path, "a.en-de", en=["x"], de=["y"])
    write_moses(tmp_path, "b", en=["x"], de=["y"])
    write(tmp_path / "c.jsonl", "")
    names = {source: [file.name for file in source_files(f"{tmp_path}{source}")] for source in ("", ":en-de", "/b", "/b.de", "/a.en-de.en", "/c.jsonl", "/none")}
    assert names[""] == names[":en-de"] == ["a.en-de.de", "a.en-de.en", "b.de", "b.en", "c.jsonl"]
    assert (names["/b"], names["/b.de"], names["/a.en-de.en"], names["/c.jsonl"], names["/none"]) == (["b.de", "b.en"], ["b.de", "b.en"], ["a.en-de.de", "a.en-de.en"], ["c.jsonl"], [])
