"General instructions in the forms in which they are published."
import gzip
import json

import pytest
from datasets import Dataset, IterableDataset

from alignx.data import load_instructions
from alignx.data.instructions import load_instructions as from_its_old_place
from alignx.errors import InputError, UsageError

TASKS = [("Name a colour.", "", "Blue."), ("Add the numbers.", "2 and 3", "5"), ("Translate “मैं”.", "", "I")]
ALPACA = [{"instruction": task, "input": about, "output": answer} for task, about, answer in TASKS]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(rows):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def tasks(rows):
    return [(row["instruction"], row["input"], row["output"]) for row in rows]


def test_alpaca_array_lines_tables_and_streams(tmp_path):
    files = {"alpaca.json": json.dumps(ALPACA, indent=4), "lines.json": lines(ALPACA), "a.jsonl.gz": gzip.compress(lines(ALPACA).encode()),
             "a.tsv": "instruction\tinput\toutput\n" + "".join("\t".join(row) + "\n" for row in TASKS)}
    for name, content in files.items():
        path = write(tmp_path / name, content)
        assert tasks(load_instructions(path, ["en"])) == TASKS
        stream = load_instructions(path, ["en"], streaming=True)
        assert isinstance(stream, IterableDataset) and list(stream) == load_instructions(path, ["eng_Latn"]).to_list()
    with pytest.raises(InputError, match=r"alpaca.json, item 1, field 'lang': missing; .*languages=\['en'\]"):
        load_instructions(tmp_path / "alpaca.json")
    assert from_its_old_place is load_instructions


@pytest.mark.parametrize("rename", [("instruction", "context", "response"), ("prompt", None, "completion"), ("prompt", None, "response"), ("inputs", None, "targets"), ("question", None, "answer")])
def test_other_names_of_the_fields(tmp_path, rename):
    rows = [{name: value for name, value in zip(rename, row) if name} for row in TASKS]
    expected = TASKS if rename[1] else [(task, "", answer) for task, _, answer in TASKS]
    assert tasks(load_instructions(write(tmp_path / "a.jsonl", lines({**row, "language": "Hindi"} for row in rows)))) == expected


def test_bactrian_layout(tmp_path):
    for code in ("en", "zh", "sw"):
        rows = [{**row, "id": f"alpaca-{number}", "output": f"{code} {row['output']}"} for number, row in enumerate(ALPACA)]
        write(tmp_path / "data" / f"{code}.json.gz", gzip.compress((json.dumps(rows) if code == "en" else lines(rows)).encode()))
    write(tmp_path / "README.md", "# instructions")
    rows = load_instructions(tmp_path, ["sw", "en"])
    assert sorted((row["lang"], row["output"][:3]) for row in rows) == [("en", "en ")] * 3 + [("sw", "sw ")] * 3
    assert len(load_instructions(tmp_path)) == 9 and len(load_instructions(tmp_path / "data" / "zh.json.gz")) == 3
    with pytest.raises(UsageError, match="unknown language 'fr'; choose from: en, sw, zh"):
        load_instructions(tmp_path, ["fr", "en"])


def test_one_configuration_per_language_with_a_card(tmp_path):
    card = "---\nconfigs:\n"
    for code in ("en", "de"):
        Dataset.from_list(ALPACA).to_parquet(tmp_path / code / "train-0.parquet")
        card += f"- config_name: {code}\n  data_files: [{{split: train, path: {code}/train-0.parquet}}]\n"
    write(tmp_path / "README.md", card + "---\n")
    assert load_instructions(tmp_path, ["de"], split="train")["lang"][:] == ["de"] * 3
    assert load_instructions(f"{tmp_path}:en")["lang"][:] == ["en"] * 3


def test_chats(tmp_path):
    user, answer = {"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Blue."}
    expected = [("Name a colour.", "", "Blue.")]
    for row in ({"messages": [user, answer]}, {"prompt": [user], "completion": [answer]}):
        assert tasks(load_instructions(write(tmp_path / "a.jsonl", lines([row])), ["en"])) == expected
        Dataset.from_list([row]).to_parquet(tmp_path / "a.parquet")
        assert tasks(load_instructions(tmp_path / "a.parquet", ["en"])) == expected


@pytest.mark.parametrize("row, problem", [
    ({"messages": "hello"}, "field 'messages': every message needs"),
    ({"messages": [{"role": "user"}]}, "field 'messages': every message needs"),
    ({"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": "x"}]}, "field 'messages.content': expected text, got NoneType"),
    ({"messages": [{"role": "tool", "content": "x"}] * 50}, "field 'messages': roles are 'tool', "),
    ({"instruction": "x", "output": None}, "field 'output': expected text, got NoneType"),
    ({"instruction": "x", "output": "y", "lang": 3}, "field 'lang': expected text, got int"),
    ({"instruction": "x", "output": "y", "language": "tlhh"}, "field 'language': unknown language 'tlhh'"),
    ({"text": "x"}, "field 'instruction': expected text, got NoneType"),
])
def test_broken_rows(tmp_path, row, problem, caplog):
    path = write(tmp_path / "a.jsonl", lines([ALPACA[0], row, {**ALPACA[1], "output": ""}]))
    with pytest.raises(InputError, match=f"a.jsonl, row 2, {problem}") as caught:
        load_instructions(path, ["en"])
    assert len(str(caught.value)) < 500
    skipped = []
    assert tasks(load_instructions(path, ["en"], on_error="skip", skipped=skipped)) == TASKS[:1]
    assert [(row.where, row.rows) for row in skipped] == [(f"{path}, row 2", 1)] and skipped[0].problem.startswith(problem)
    assert "left out 1 broken rows, kept 2" in caplog.text and "left out 1 rows with an empty output" in caplog.text
