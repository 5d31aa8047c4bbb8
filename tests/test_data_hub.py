"""Datasets by their names on the Hub, from a server of our own that answers like it."""
import gzip
import json
import os
import subprocess
import sys

import pytest
from datasets import Dataset
from small_hub import SmallHub

LOAD = """
import json, sys
from alignx.data import load_instructions, load_parallel
from alignx.errors import UsageError
from alignx.held_out import excluded_rows
from alignx.recipe import make_recipe

def load_excluded(source, languages, split):
    return excluded_rows(make_recipe({"languages": languages, "data": {"exclude": [source]}}))

answers = []
for function, source, languages, split in json.loads(sys.argv[1]):
    try:
        rows = {"parallel": load_parallel, "instructions": load_instructions, "excluded": load_excluded}[function](source, languages, split=split)
        columns = ("lang", "lang") if function == "instructions" else ("source_lang", "target_lang")
        pairs = list(zip(*(rows[column] for column in columns)))
        answers.append({"-".join(pair): pairs.count(pair) for pair in sorted(set(pairs))})
    except UsageError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    "OPUS-100 (pairs with English in three splits, one without in one) and Bactrian-X (a script, and a file per language)."
    root = tmp_path_factory.mktemp("hub")
    opus, card = root / "Helsinki-NLP" / "opus-100", ["---", "configs:"]
    for config, splits in (("de-en", ("test", "train", "validation")), ("en-zh", ("test", "train", "validation")), ("en-sv", ("train",)), ("de-zh", ("test",))):
        card += [f"- config_name: {config}", "  data_files:"]
        source, target = config.split("-")
        for split in splits:
            card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
            rows = [{"translation": {source: f"{split} {source} {number}", target: f"{split} {target} {number}"}} for number in range(5)]
            Dataset.from_list(rows).to_parquet(opus / config / f"{split}-00000-of-00001.parquet")
    (opus / "README.md").write_text("\n".join([*card, "---", "# OPUS-100"]))
    bactrian = root / "MBZUAI" / "Bactrian-X"
    (bactrian / "data").mkdir(parents=True)
    (bactrian / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Bactrian-X\n")
    (bactrian / "Bactrian-X.py").write_text("raise SystemExit('nobody runs this')\n")
    for code in ("en", "de", "zh", "xh"):
        rows = [{"instruction": f"{code} {number}?", "input": "", "id": f"alpaca-{number}", "output": f"{code} {number}."} for number in range(4)]
        with gzip.open(bactrian / "data" / f"{code}.json.gz", "wt", encoding="utf-8") as file:
            json.dump(rows, file)
    script = root / "someone" / "scripted"
    script.mkdir(parents=True)
    (script / "scripted.py").write_text("")
    (script / "numbers.json").write_text("[]")
    return root


def ask(root, cache, *questions):
    "What comes of loading, in a process that takes the server for the Hub, and the files that it fetched."
    with SmallHub(root) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
        done = subprocess.run([sys.executable, "-c", LOAD, json.dumps(questions)], capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), hub.asked


def test_opus_and_bactrian_by_their_names(root, tmp_path):
    opus, bactrian = "Helsinki-NLP/opus-100", "MBZUAI/Bactrian-X"
    languages = ["en", "de", "zh"]
    answers, fetched = ask(
        root, tmp_path,
        ("parallel", opus, languages, "train"), ("parallel", opus, languages, "train[:2]"), ("parallel", opus, languages, "test"),
        ("parallel", f"{opus}:en-sv", None, "train"), ("parallel", opus, ["en", "sw"], "train"), ("parallel", opus, languages, "dev"),
        ("instructions", bactrian, languages, None), ("instructions", f"{bactrian}:xh", None, None), ("instructions", "someone/scripted", ["en"], None),
        ("excluded", opus, languages, None), ("excluded", f"{opus}:en-sv", ["en", "de"], None), ("excluded", "nobody/nothing", languages, None),
    )  # fmt: skip
    assert answers[0] == {"en-de": 5, "en-zh": 5}, "a pair with a test split alone does not stop training"
    assert answers[1] == {"en-de": 2, "en-zh": 2} and answers[2] == {"de-zh": 5, "en-de": 5, "en-zh": 5} and answers[3] == {"en-sv": 5}
    assert "unknown configuration" in answers[4] and "'dev'" in answers[5], answers[4:6]
    assert answers[6] == {"de-de": 4, "en-en": 4, "zh-zh": 4} and answers[7] == {"xh-xh": 4}
    assert "has a script, which is not run" in answers[8]
    assert answers[9] == {"de-de": 20, "en-en": 30, "zh-zh": 20} and answers[10] == {"en-en": 5}, "all splits of all pairs, each sentence for itself"
    assert answers[11].startswith("recipe, section 'data', exclude: nobody/nothing: ")
    assert sorted(name for name in fetched if "data/" in name) == [f"MBZUAI/Bactrian-X/data/{code}.json.gz" for code in ("de", "en", "xh", "zh")], "and no other file, each once"
