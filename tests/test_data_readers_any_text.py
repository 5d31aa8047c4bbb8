"Any text survives every format; any damage ends in one line, never in a traceback."
import csv
import io
import json
import logging
import random

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from xml.sax.saxutils import escape

from alignx.data import load_instructions, load_parallel
from alignx.errors import InputError

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufeff\ufffe\uffff"), max_size=20)


def write_all(folder, pairs):
    "The pairs in every format; what to call each."
    table = io.StringIO()
    csv.writer(table).writerows([("en", "de"), *pairs])
    files = {
        "a.jsonl": "".join(json.dumps({"en": a, "de": b}, ensure_ascii=False) + "\n" for a, b in pairs),
        "a.json": json.dumps([{"text": {"en": a, "de": b}} for a, b in pairs], indent=1),
        "a.tsv": "en\tde\n" + "".join(f"{a}\t{b}\n" for a, b in pairs),
        "a.csv": table.getvalue(),
        "moses.en": "".join(f"{a}\n" for a, _ in pairs),
        "moses.de": "".join(f"{b}\n" for _, b in pairs),
        "a.tmx": "<tmx><body>" + "".join(f'<tu><tuv lang="en"><seg>{escape(a)}</seg></tuv><tuv lang="de"><seg>{escape(b)}</seg></tuv></tu>' for a, b in pairs) + "</body></tmx>",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content.encode())
    Dataset.from_list([{"translation": {"en": a, "de": b}} for a, b in pairs]).to_parquet(folder / "a.parquet")
    return [folder / name for name in ("a.jsonl", "a.json", "a.tsv", "a.csv", "moses", "a.tmx", "a.parquet")]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_any_text_survives_every_format(tmp_path_factory, pairs):
    for path in write_all(tmp_path_factory.mktemp("formats"), pairs):
        rows = load_parallel(path, ["en", "de"])
        assert list(zip(rows["source"], rows["target"])) == pairs, path.name


def damaged(content, draw):
    "The bytes with a few of them removed, changed, doubled, or cut off."
    content = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5])):
        at, kind = draw.randrange(len(content) + 1), draw.randrange(5)
        if kind == 0:
            del content[at:at + draw.choice([1, 3, 50])]
        elif kind == 1:
            content[at:at] = draw.choice([b"\0", b"\xff", b'"', b"\n", b"\r", b"\t", b"[", b"{", b"\xc3", b"<", b"&", b"\xef\xbb\xbf"])
        elif kind == 2:
            content[at:at + 1] = bytes([draw.randrange(256)])
        elif kind == 3:
            content = content[:at]
        else:
            start = draw.randrange(len(content) + 1)
            content[at:at] = content[start:start + 20]
    return bytes(content)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.tsv", "a.csv", "moses.en", "a.tmx", "a.parquet"])
def test_any_damage_is_one_line(tmp_path, name):
    logging.disable(logging.WARNING)
    write_all(tmp_path, [("one <b>", "eins"), ('"two"', "zwei, 二"), ("three", "drei & vier")])
    path, draw, complaints = tmp_path / name, random.Random(name), 0
    whole = path.read_bytes()
    try:
        for _ in range(60):
            path.write_bytes(damaged(whole, draw))
            for load, on_error in ((load_parallel, "raise"), (load_parallel, "skip"), (load_instructions, "skip")):
                try:
                    load(path, ["en", "de"], on_error=on_error)
                except InputError as error:
                    complaints += 1
                    assert "\n" not in str(error) and len(str(error)) < 1000
    finally:
        logging.disable(logging.NOTSET)
    assert complaints >= 60, "at the least, none of them is a file of instructions"
