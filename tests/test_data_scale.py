"""Shards, interruptions, joins, and memory that does not grow with the corpus."""
import json
import os
import subprocess
import sys

import datasets
import pytest
from datasets import Dataset, load_from_disk
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx import building
from alignx.building import build, build_shard
from alignx.cli import main
from alignx.data.parts import join_parts, parse_shard, part_name, publish, shard_rows, walk_parts, write_parts
from alignx.demo import demo_corpus
from alignx.errors import InputError, UsageError
from alignx.recipe import make_recipe
from alignx.run_folder import Run
from alignx.stage_rows import StageRows, stage_order


def recipe(folder, pooling="mirror", **data):
    data = {"template": "plain", "max_length": 64, "max_characters": 60, "pairs": 120, "tune_pairs": 30, "replay": 7, "tune_replay": 5, "lm_share": 0.4, **data}
    return make_recipe({"languages": ["en", "de", "sw"], "output_dir": str(folder), "data": data, "align": {"pooling": pooling}, "evaluate": {"tuples": 20}})


def quiet(made):
    datasets.disable_progress_bars()
    return Run(made, lambda line: None)


def rows_of(folder):
    return [load_from_disk(str(folder / "data" / stage)) for stage in ("align", "tune")]


def assert_same(one, other):
    for a, b in zip(rows_of(one), rows_of(other)):
        assert a.features == b.features and a[:] == b[:]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    build(quiet(recipe(folder)))
    return folder


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40))
def test_shares_are_even_and_together_the_whole(total, count):
    shares = [shard_rows(total, number, count) for number in range(1, count + 1)]
    assert shares[0][0] == 0 and shares[-1][1] == total and all(a[1] == b[0] for a, b in zip(shares, shares[1:]))
    assert max(stop - start for start, stop in shares) - min(stop - start for start, stop in shares) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2", ""])
def test_a_share_that_is_none(text):
    with pytest.raises(UsageError, match="from 1/8 to 8/8"):
        parse_shard(text)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=8), st.integers(1, 7))
def test_parts_of_any_shape_are_completed_and_joined(tmp_path_factory, spans, size):
    folder, rows = tmp_path_factory.mktemp("parts"), Dataset.from_dict({"n": range(30)})
    for start, length in spans:
        if start < 30:
            write_parts(folder / "p", start, min(start + length, 30), lambda a, b: rows.select(range(a, b)), size)
    write_parts(folder / "p", 0, 30, lambda a, b: rows.select(range(a, b)), size)
    publish(folder / "whole", lambda new: join_parts(folder / "p", 30, new))
    assert load_from_disk(str(folder / "whole"))["n"][:] == list(range(30))
    assert all(path for _, _, path in walk_parts(folder / "p", 0, 30))


def test_missing_rows_are_named(tmp_path):
    rows = Dataset.from_dict({"n": range(10)})
    write_parts(tmp_path / "p", 0, 4, lambda a, b: rows.select(range(a, b)))
    write_parts(tmp_path / "p", 6, 10, lambda a, b: rows.select(range(a, b)))
    with pytest.raises(InputError, match="rows 4 to 6 of 10 are missing"):
        join_parts(tmp_path / "p", 10, tmp_path)


def test_a_part_that_fails_leaves_nothing(tmp_path):
    def fails(new):
        (new / "x").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "parts" / part_name(0, 5), fails)
    assert list((tmp_path / "parts").iterdir()) == []


@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_union_of_shards_is_the_build(whole, tmp_path, count):
    run = quiet(recipe(tmp_path))
    for number in reversed(range(1, count + 1)):
        build_shard(run, number, count)
    build(run, join=True)
    assert_same(tmp_path, whole)
    for name in ("card.json", "cleaning.json", "skipped.json"):
        assert (tmp_path / "data" / name).read_text() == (whole / "data" / name).read_text()
    assert not (tmp_path / "data" / ".build").exists()


def test_shards_from_machines_that_share_nothing(whole, tmp_path):
    """Every machine has its own copy of the corpus and its own run folder; only their .build folders are put together."""
    (tmp_path / "all" / "data" / ".build").mkdir(parents=True)
    for number in (1, 2):
        corpus = tmp_path / str(number) / "corpus.jsonl.gz"
        corpus.parent.mkdir()
        corpus.write_bytes(demo_corpus().read_bytes())
        os.utime(corpus, (number, number))
        build_shard(quiet(recipe(tmp_path / f"run{number}", parallel=str(corpus))), number, 2)
        subprocess.run(["cp", "-r", f"{tmp_path}/run{number}/data/.build/.", f"{tmp_path}/all/data/.build/"], check=True)
    build(quiet(recipe(tmp_path / "all", parallel=str(corpus))), join=True)
    assert_same(tmp_path / "all", whole)


def test_join_does_not_make_what_is_missing_and_build_does(whole, tmp_path):
    run = quiet(recipe(tmp_path))
    build_shard(run, 2, 3)
    with pytest.raises(InputError, match="rows 0 to 42 of 127 are missing"):
        build(run, join=True)
    build(run)
    assert_same(tmp_path, whole)


def test_an_interrupted_build_goes_on(whole, tmp_path, monkeypatch):
    made, make = [], StageRows.make

    def interrupted(self, start, stop):
        made.append((self.stage, start, stop))
        if len(made) == 3:
            raise KeyboardInterrupt
        return make(self, start, stop)

    monkeypatch.setattr(StageRows, "make", interrupted)
    monkeypatch.setattr(building, "write_parts", lambda *arguments: write_parts(*arguments, size=30))
    run = quiet(recipe(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        build(run)
    assert not (tmp_path / "data" / "align").exists()
    monkeypatch.setattr(building, "prepare", None)  # what was prepared must not be prepared again
    build(run)
    assert made[:3] == [("align", 0, 30), ("align", 30, 60), ("align", 60, 90)] and made[3] == ("align", 60, 90), "two parts were done, the third was not"
    assert_same(tmp_path, whole)


def test_another_recipe_does_not_use_these_parts(whole, tmp_path):
    build_shard(quiet(recipe(tmp_path)), 1, 2)
    with pytest.raises(InputError, match="are missing"):
        build(quiet(recipe(tmp_path, max_length=63)), join=True)


def test_processes_and_a_second_build_change_nothing(whole, tmp_path):
    said = []
    build(quiet(recipe(tmp_path, num_proc=2)))
    assert_same(tmp_path, whole)
    build(Run(recipe(tmp_path, num_proc=1), said.append))
    assert "unchanged" in said[0]


@pytest.mark.parametrize(("tune_pairs", "ratio", "expected"), [(None, None, (50, 50)), (20, None, (20, 50)), (None, 0.5, (100, 50)), (None, 2.0, (25, 50)), (20, 0.5, (20, 10)), (20, 4.0, (20, 80)), (None, 0.1, (300, 30))])
def test_general_to_translations(tmp_path, tune_pairs, ratio, expected):
    order = stage_order(recipe(tmp_path, tune_pairs=tune_pairs, general_ratio=ratio), "tune", {"pairs": 300, "general": 50, "replay": 0})
    pairs, general = (order[order[:, 0] == kind, 1].tolist() for kind in (0, 1))
    assert (len(pairs), len(general)) == expected and len(set(pairs)) == len(pairs)
    assert max(map(general.count, general)) - min(map(general.count, set(general))) <= 1


def test_a_ratio_without_general_instructions(tmp_path):
    with pytest.raises(UsageError, match="general_ratio"):
        build(quiet(recipe(tmp_path, instructions=None, general_ratio=1.0)))


def test_no_rows_for_a_stage(tmp_path):
    made = recipe(tmp_path, instructions=None, tune_pairs=0, tune_replay=0)
    with pytest.raises(UsageError, match="no rows for stage 'tune': ask for more"):
        build(quiet(made))
    made.stages = ["align"]
    build(quiet(made))
    assert len(load_from_disk(str(tmp_path / "data" / "align"))) == 127 and list((tmp_path / "data" / "tune").iterdir()) == []
    with pytest.raises(UsageError, match="all 127 are longer than data.max_length"):
        build(quiet(recipe(tmp_path, max_length=2, truncation="drop")))


def test_rows_that_are_too_long_are_left_out_and_counted(tmp_path):
    said = []
    build(Run(recipe(tmp_path, "row", truncation="drop", max_length=24, replay=0), said.append))
    align, _ = rows_of(tmp_path)
    assert 0 < len(align) < 120 and not any(align["truncated"]) and f"{120 - len(align)} too long for stage 1 left out" in said[0]
    with pytest.raises(InputError, match="tokens more than max_length 24"):
        build(quiet(recipe(tmp_path, "row", truncation="raise", max_length=24, replay=0)))


def test_requests_in_the_source_language_and_chats(tmp_path):
    made = recipe(tmp_path, request_language="source", replay=0, pairs=40, tune_pairs=4)
    build(quiet(made))
    tokenizer = building.load_tokenizer("demo")
    assert any("Ausgangssprache" in tokenizer.decode(ids) for ids in rows_of(tmp_path)[0]["input_ids"])
    with pytest.raises(UsageError, match="no chat template"):
        build(quiet(recipe(tmp_path, template="chat")))


def test_bad_values_of_the_recipe(tmp_path):
    for name, value in (("truncation", "dropp"), ("on_error", "skp"), ("request_language", "targt")):
        with pytest.raises(UsageError, match=f"unknown {name} '{value}'; did you mean"):
            recipe(tmp_path, **{name: value})


@pytest.fixture
def broken(tmp_path):
    rows = [{"id": str(n), "source": f"Sentence number {n} is here.", "target": f"Satz Nummer {n} ist hier.", "source_lang": "en", "target_lang": "de", "split": "test" if n < 4 else "train"} for n in range(40)]
    lines = [json.dumps(row) for row in rows]
    lines[20], lines[30] = "{broken", json.dumps({**rows[30], "target": 3})
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    values = {"languages": ["en", "de"], "data": {"parallel": str(tmp_path / "rows.jsonl"), "instructions": None, "template": "plain"}, "output_dir": str(tmp_path / "out")}
    (tmp_path / "recipe.yaml").write_text(json.dumps(values))
    return tmp_path


def test_broken_rows_stop_a_build_or_are_listed(broken, capsys):
    assert main(["build", str(broken / "recipe.yaml")]) == 1
    assert "row 21" in capsys.readouterr().err
    assert main(["build", str(broken / "recipe.yaml"), "--on-error", "skip"]) == 0
    assert "broken rows skipped (data/skipped.json)" in capsys.readouterr().out
    skipped = json.loads((broken / "out" / "data" / "skipped.json").read_text())
    wheres = " ".join(one["where"] for one in skipped["examples"])
    assert skipped["rows"] == len(skipped["examples"]) and "row 21" in wheres and "row 31" in wheres


def test_build_on_the_command_line(tmp_path, capsys):
    words = ["build", "demo", "--languages", "[en, de]", "--data.pairs", "60", "--data.replay", "0", "--data.tune_replay", "0", "--output", str(tmp_path)]
    assert main([*words, "--shard", "1/2"]) == 0 and "shard 1/2: align 30 rows" in capsys.readouterr().out
    assert main([*words, "--join"]) == 1 and "rows 30 to 60 of 60 are missing" in capsys.readouterr().err
    assert main([*words, "--shard", "2/2"]) == 0 and main([*words, "--join", "--preview", "2"]) == 0
    shown = capsys.readouterr().out
    assert "⟦source" in shown and "align, 2 of 60 rows" in shown and "\033[" not in shown
    for wrong in (["--shard", "3/2"], ["--shard", "1/2", "--join"], ["--preview", "0"], ["--on-error", "ignore"]):
        assert main([*words, *wrong]) == 2


MEMORY = """
import resource, sys
import numpy as np, pyarrow as pa, datasets
from transformers import AutoTokenizer
from alignx.data import mix_directions
from alignx.data.parallel import FEATURES
from alignx.data.parts import write_parts
from alignx.demo import demo_model
from alignx.recipe import make_recipe
from alignx.stage_rows import StageRows
from pathlib import Path
datasets.disable_progress_bars()
count, folder = int(sys.argv[1]), Path(sys.argv[2])
def anonymous():
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1]) // 1024
text = pa.array([f"sentence {n} of many, all of the same length or nearly" for n in range(count)])
constant = lambda value: pa.array([value] * count)
rows = datasets.Dataset(pa.table({"id": pa.array(map(str, range(count))), "domain": constant(""), "source": text, "target": text, "source_lang": constant("en"), "target_lang": constant("de")}).cast(FEATURES.arrow_schema))
mix_directions(rows).save_to_disk(str(folder / "pairs"))
del rows, text
made = StageRows(make_recipe({"languages": ["en", "de"], "data": {"instructions": None}}), "align", folder, AutoTokenizer.from_pretrained(demo_model()))
write_parts(folder / "parts", 0, 1000, made.make, 500)
before = anonymous()
write_parts(folder / "parts", 1000, count, made.make, 500)
print(anonymous() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_encoding_needs_the_memory_of_a_part(tmp_path):
    said = subprocess.run([sys.executable, "-c", MEMORY, "6000", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    size = sum(file.stat().st_size for file in tmp_path.rglob("*.arrow")) // 2**20
    assert size > 4 and int(said) < size, f"ten more parts took {said.strip()} MiB; the rows are {size} MiB"
