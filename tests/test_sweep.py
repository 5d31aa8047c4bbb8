"""A study: what its file may say, and what happens to its runs when they are killed, break, or are started twice."""
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from alignx import run_measures
from alignx.cli import main
from alignx.errors import InputError, UsageError
from alignx.sweep import folder_name, load_study, question_cases, select_runs
from alignx.sweep_processes import run_environment, run_study
from alignx.sweep_results import gather, read_study
from alignx.sweep_runs import execute, is_done, run_note

SMALL = """
recipe: demo
seeds: [0]
common: {languages: [en, de, sw], data.pairs: 300, data.replay: 0, align.layer: 3, align.max_steps: 8, align.save_steps: 2, align.logging_steps: 4, align.warmup_steps: 1, align.per_device_train_batch_size: 32, stages: [align]}
arms:
  base: {stages: []}
  AlignX: {}
measures:
  test: {evaluate.tuples: 40, evaluate.metrics: [retrieval_top1]}
"""


def write(folder: Path, text: str = SMALL, name: str = "study.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def study_in(folder: Path, text: str = SMALL):
    folder.mkdir(exist_ok=True)
    return load_study(write(folder, text), {"output_dir": str(folder / "out")})


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("arms:", "armz:", "did you mean 'arms'"),
        ("align.layer", "align.layr", "layr"),
        ("seeds: [0]", "seeds: [0, 0]", "different whole numbers"),
        ("seeds: [0]", "seeds: 3", "different whole numbers"),
        ("AlignX: {}", "AlignX: 3", "arm 'AlignX'"),
        ("AlignX: {}", "base ?: {}\n  base !: {}", "would share the folder"),
        ("{evaluate.tuples: 40", "{stages: [align], evaluate.tuples: 40", "cannot be set here"),
        ("AlignX: {}", "AlignX: {align.seed: 3}", "cannot be set here"),
        ("AlignX: {}", "no: {}", "cannot be a name here"),
        ("measures:\n", "measures:\n  te st: {}\n  Te-st: {}\n", "would share the folder"),
        ("test: {", "test: {models: [tuned], ", "no measure is for its models"),
        ("[en, de, sw]", "[en, g3rman]", "g3rman"),
        ("recipe: demo", "recipe: nowhere.yaml", "nowhere.yaml"),
        ("measures:", "questions:\n  q: {from: Alignx, vary: {align.layer: [1]}}\nmeasures:", "did you mean 'AlignX'"),
        ("measures:", "questions:\n  q: {measures: [tset], vary: {align.layer: [1]}}\nmeasures:", "did you mean 'test'"),
        ("measures:", "questions:\n  q: {vary: {align.layer: 1}}\nmeasures:", "must be a list of values"),
        ("measures:", "questions:\n  q: {}\nmeasures:", "either 'vary'"),
        ("{evaluate.tuples: 40", "{models: [tunned], evaluate.tuples: 40", "did you mean 'tuned'"),
        ("arms:", "arms: [", "not valid YAML"),
        ("AlignX: {}", "AlignX: {align.pooling: rows}", "AlignX/0"),
        ("AlignX: {}", "AlignX: {align.learning_rate: fast}", "learning_rate"),
        ("AlignX: {}", "AlignX: {stages: [tune], tune.lr_scheduler_type: constnat}", "AlignX/0"),
    ],
)
def test_what_is_wrong_in_a_study_is_said_before_anything_runs(tmp_path, capsys, old, new, said):
    assert old in SMALL
    file = write(tmp_path, SMALL.replace(old, new))
    assert main(["sweep", str(file), "--output", str(tmp_path / "out")]) in (1, 2)
    told = capsys.readouterr().err
    assert said in told and ("study.yaml" in told or "nowhere" in told)
    assert told.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_missing_study_names_the_ones_beside_it(tmp_path, capsys):
    write(tmp_path)
    assert main(["sweep", str(tmp_path / "studi.yaml")]) == 2
    assert "study.yaml" in capsys.readouterr().err


def test_the_recipe_may_lie_beside_the_study(tmp_path):
    write(tmp_path, "model: demo\nlanguages: [en, tr]\nalign: {layer: 2}\n", "mine.yaml")
    study = study_in(tmp_path, SMALL.replace("recipe: demo", "recipe: mine.yaml").replace("languages: [en, de, sw], ", ""))
    assert study.runs[1].recipe.languages == ["en", "tr"] and study.runs[1].recipe.align["layer"] == 3


def test_every_measured_source_is_kept_out_of_training(tmp_path):
    text = SMALL.replace("measures:", "measures:\n  other: {data.test: held-out.jsonl, data.test_split: null}\n  third: {data.test: demo}")
    study = study_in(tmp_path, text)
    assert all(run.recipe.data.exclude == ["held-out.jsonl"] for run in study.runs)
    study = study_in(tmp_path, text.replace("data.pairs: 300", "data.pairs: 300, data.exclude: [another.jsonl]"))
    assert all(run.recipe.data.exclude == ["another.jsonl", "held-out.jsonl"] for run in study.runs)
    study = study_in(tmp_path, text.replace("AlignX: {}", "AlignX: {data: {exclude: [mine.jsonl], pairs: 7}}"))
    assert study.runs[1].recipe.data.exclude == ["mine.jsonl", "held-out.jsonl"] and study.runs[1].recipe.data.pairs == 7 and study.runs[1].recipe.data.replay == 0


def test_questions_multiply_or_name_their_cases():
    grid = question_cases("q", {"set": {"stages": ["align"]}, "vary": {"align.layer": [1, 2], "align.pooling": ["row", "alone"]}}, "x")
    assert len(grid) == 4 and grid["q: layer 2, pooling row"] == {"stages": ["align"], "align.layer": 2, "align.pooling": "row"}
    assert question_cases("q", {"cases": {"a": {}, "b": {"align.layer": 1}}}, "x") == {"q: a": {}, "q: b": {"align.layer": 1}}


def test_folder_names_are_safe():
    assert folder_name("CPT + SFT: ../x y") == "CPT-+-SFT-..-x-y" and folder_name("…/") not in ("", ".", "..")


def test_runs_can_be_chosen(tmp_path):
    text = SMALL.replace("seeds: [0]", "seeds: [0, 1]").replace("measures:", "questions:\n  q: {vary: {align.layer: [1, 2]}}\nmeasures:")
    study = study_in(tmp_path, text)
    assert [run.key for run in select_runs(study, ["arms"], [1])] == ["base/0", "AlignX/1"]
    assert [run.key for run in select_runs(study, ["q"])] == ["q: layer 1/0", "q: layer 2/0"]
    with pytest.raises(UsageError, match="AlignX"):
        select_runs(study, ["AlignY"])
    with pytest.raises(UsageError, match="seeds"):
        select_runs(study, ["q"], [7])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    "A study carried out without a break."
    study = study_in(tmp_path_factory.mktemp("uninterrupted"))
    for run in study.runs:
        execute(study, run, lambda line: None)
    gather(study)
    return study


def test_the_tables_say_where_their_numbers_come_from(uninterrupted):
    tables = read_study(uninterrupted.output_dir)
    results = tables["results"]
    assert set(results["arm"]) == {"base", "AlignX"} and set(results.loc[results["arm"] == "base", "model"]) == {"base"} and set(results.loc[results["arm"] == "AlignX", "model"]) == {"aligned"}
    assert results["environment"].map(json.loads).str["torch"].notna().all() and results["device"].notna().all()
    runs = tables["runs"].set_index("arm")
    assert set(runs["state"]) == {"done"} and json.loads(runs.loc["AlignX", "steps"]).keys() == {"build", "align", "measure"} and runs.loc["AlignX", "seconds"] > 0
    assert json.loads(runs.loc["AlignX", "recipe"])["align"]["max_steps"] == 8
    logs = pd.read_parquet(uninterrupted.output_dir / "logs.parquet")
    assert set(logs["arm"]) == {"AlignX"} and "contrastive_loss" in logs


def test_a_study_that_was_killed_goes_on_and_ends_the_same(tmp_path, uninterrupted):
    file, out = write(tmp_path), tmp_path / "out"
    command = [sys.executable, "-m", "alignx.cli", "sweep", str(file), "--output", str(out)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    spent = out / "runs" / "AlignX" / "seed-0" / "checkpoints" / "align" / "seconds.json"
    limit = time.monotonic() + 120
    while not spent.is_file():
        assert process.poll() is None and time.monotonic() < limit, "no checkpoint"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    study = load_study(file, {"output_dir": str(out)})
    assert is_done(study, study.runs[0]) and not is_done(study, study.runs[1])
    done_at = (out / "runs" / "base" / "seed-0" / "run.json").stat().st_mtime_ns
    assert 0 < json.loads(spent.read_text()) < 120
    spent.write_text("5000")
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert (out / "runs" / "base" / "seed-0" / "run.json").stat().st_mtime_ns == done_at, "what was done is not done again"
    tables, expected = read_study(out), read_study(uninterrupted.output_dir)
    pd.testing.assert_frame_equal(tables["units"], expected["units"])
    origin = ["device", "environment", "commit"]
    pd.testing.assert_frame_equal(tables["results"].drop(columns=origin), expected["results"].drop(columns=origin))
    assert 5000 < run_note(study.runs[1])["seconds"]["align"] < 5120, "what was spent before it was killed counts"


def test_a_study_that_is_told_to_end_ends_its_runs(tmp_path):
    file, out = write(tmp_path, SMALL.replace("max_steps: 8", "max_steps: 5000")), tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-m", "alignx.cli", "sweep", str(file), "--output", str(out), "--only", "AlignX"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    limit, lock = time.monotonic() + 120, out / "runs" / "AlignX" / "seed-0" / ".lock"
    while not lock.is_file():
        assert process.poll() is None and time.monotonic() < limit, "the run has not begun"
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1 and "run the same command again" in process.stderr.read()
    with FileLock(lock, timeout=5):
        pass


def test_only_what_a_change_concerns_is_due_again(tmp_path, uninterrupted):
    out = {"output_dir": str(uninterrupted.output_dir)}

    def due(text):
        study = load_study(write(tmp_path, text), out)
        return [run.key for run in study.runs if not is_done(study, run)]

    assert due(SMALL) == []
    assert due(SMALL.replace("AlignX: {}", "AlignX: {align.temperature: 0.2}")) == ["AlignX/0"]
    assert due(SMALL.replace("evaluate.tuples: 40", "evaluate.tuples: 41")) == ["base/0", "AlignX/0"]
    assert due(SMALL.replace("measures:", "questions:\n  q: {vary: {align.layer: [2]}}\nmeasures:")) == ["q: layer 2/0"]


def test_kept_models_are_measured_again_and_not_trained_again(tmp_path):
    text = SMALL.replace("arms:", "keep_models: true\narms:").replace("max_steps: 8", "max_steps: 1")
    study = study_in(tmp_path, text)
    trained = execute(study, study.find("AlignX/0"), lambda line: None)
    step = study.find("AlignX/0").folder / ".steps" / "align.json"
    step.write_text(json.dumps(json.loads(step.read_text()) | {"memory": {"process": 10**9}, "commit": "abc1234"}))
    study, said = study_in(tmp_path, text.replace("measures:", "measures:\n  more: {languages: [en, sw], evaluate.tuples: 20}")), []
    assert not is_done(study, study.find("AlignX/0"))
    asked = execute(study, study.find("AlignX/0"), said.append)
    assert 0 < trained["memory"]["process"] < asked["memory"]["process"] == 10**9, "training cost what it cost, whatever is asked later"
    assert "abc1234" in asked["commit"].split(", ") and asked["seconds"]["align"] == trained["seconds"]["align"]
    assert [line.split()[1] for line in said if line.startswith(("build", "align"))] == ["unchanged:", "unchanged:"]
    assert set(pd.read_parquet(study.find("AlignX/0").folder / "results.parquet")["measure"]) == {"test", "more"}


def test_a_model_is_loaded_once_for_all_test_sets(tmp_path, monkeypatch):
    text = SMALL.replace("measures:", "measures:\n  more: {languages: [en, sw], evaluate.tuples: 20, evaluate.metrics: [margin]}")
    study, loads, load = study_in(tmp_path, text), [], run_measures.load_model
    monkeypatch.setattr(run_measures, "load_model", lambda *given: loads.append(given) or load(*given))
    execute(study, study.find("base/0"), lambda line: None)
    assert len(loads) == 1
    table = pd.read_parquet(study.find("base/0").folder / "results.parquet")
    assert set(table["measure"]) == {"test", "more"} and set(table["model"]) == {"base"}


def test_a_list_of_runs_writes_nothing(tmp_path, capsys):
    assert main(["sweep", str(write(tmp_path)), "--output", str(tmp_path / "out"), "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == ["due    base/0", "due    AlignX/0"] and not (tmp_path / "out").exists()


def test_a_run_that_breaks_does_not_stop_the_others(tmp_path, capsys):
    study = study_in(tmp_path, SMALL.replace("AlignX: {}", "AlignX: {align.layer: 99}\n  SFT: {stages: []}"))
    said = []
    failed = run_study(study, study.runs, jobs=2, changes={}, say=said.append)
    assert [run.key for run in failed] == ["AlignX/0"]
    runs = read_study(study.output_dir)["runs"].set_index("arm")
    assert runs["state"].to_dict() == {"base": "done", "AlignX": "failed", "SFT": "done"}
    assert "99" in runs.loc["AlignX", "problem"] and any("AlignX/0: failed" in line for line in said)


def test_a_run_that_was_changed_meanwhile_is_not_begun(tmp_path):
    study, said = study_in(tmp_path, SMALL.replace("AlignX: {}", "AlignX: {stages: []}")), []
    write(tmp_path, SMALL.replace("measures:", "questions:\n  q: {vary: {align.layer: [2]}}\nmeasures:"))
    assert [run.key for run in run_study(study, study.runs, say=said.append)] == ["AlignX/0"]
    assert any("'AlignX/0' was changed after the sweep began" in line for line in said)
    assert is_done(study, study.find("base/0")) and not (study.find("AlignX/0").folder / "data").exists()


def test_a_measure_may_be_for_some_models_alone(tmp_path):
    study = study_in(tmp_path, SMALL.replace("max_steps: 8", "max_steps: 1").replace("measures:", "measures:\n  before: {models: [base], languages: [en, sw], evaluate.tuples: 20}"))
    for run in study.runs:
        execute(study, run, lambda line: None)
    gather(study)
    results = read_study(study.output_dir)["results"]
    assert {(row.arm, row.measure) for row in results.itertuples()} == {("base", "before"), ("base", "test"), ("AlignX", "test")}


def test_two_processes_do_not_share_a_run(tmp_path):
    study = study_in(tmp_path)
    study.runs[0].folder.mkdir(parents=True)
    with FileLock(study.runs[0].folder / ".lock"), pytest.raises(InputError, match="another process"):
        execute(study, study.runs[0])


def test_arms_with_the_same_rows_build_them_once(tmp_path):
    study, lines = study_in(tmp_path, SMALL.replace("AlignX: {}", "AlignX: {align.max_steps: 1}\n  hotter: {align.max_steps: 1, align.temperature: 0.2}\n  fewer: {align.max_steps: 1, data.pairs: 200}")), {}
    for arm in ("AlignX", "hotter", "fewer"):
        execute(study, study.find(f"{arm}/0"), lines.setdefault(arm, []).append)
    first = {arm: said[0] for arm, said in lines.items()}
    assert "unchanged" in first["hotter"] and "unchanged" not in first["AlignX"] and "unchanged" not in first["fewer"]
    rows = {arm: json.loads((study.find(f"{arm}/0").folder / "data" / "card.json").read_text())["stages"]["align"]["counts"]["rows"] for arm in lines}
    assert rows["AlignX"] == rows["hotter"] != rows["fewer"]


STAGES = SMALL.replace("stages: [align]", "align.distillation: 0.0, tune.max_steps: 1").replace("max_steps: 8", "max_steps: 2")
AGAIN = """questions:
  stage 2:
    set: {data.tune_pairs: 9, tune.learning_rate: 0.001}
    cases: {fewer: {}, hotter: {align.temperature: 0.2}}
"""


def test_runs_with_the_same_stage_1_train_it_once(tmp_path):
    study, lines = study_in(tmp_path, STAGES.replace("measures:", AGAIN + "measures:")), {}
    left = []
    for name in ("AlignX", "stage 2: fewer", "stage 2: hotter"):
        execute(study, study.find(f"{name}/0"), lines.setdefault(name, []).append)
        left.append(len([path for path in (study.output_dir / ".aligned").iterdir() if path.is_dir()]))
    trained = {name: ["unchanged" not in line for line in said if line.startswith(("align", "tune"))] for name, said in lines.items()}
    assert trained == {"AlignX": [True, True], "stage 2: fewer": [False, True], "stage 2: hotter": [True, True]}
    assert left == [1, 0, 0], "the model is there as long as a run may want it"
    apart = study_in(tmp_path / "apart", STAGES.replace("measures:", AGAIN + "measures:"))
    execute(apart, apart.find("stage 2: fewer/0"), lambda line: None)
    one, other = (pd.read_parquet(each.find("stage 2: fewer/0").folder / "units.parquet") for each in (study, apart))
    pd.testing.assert_frame_equal(one, other)
    assert (study.find("stage 2: fewer/0").folder / "tables" / "align_log.parquet").is_file()


def test_each_job_has_a_gpu_or_its_share_of_the_cores(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [run_environment(place, 3)["CUDA_VISIBLE_DEVICES"] for place in range(3)] == ["4", "6", "4"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert run_environment(0, 4)["OMP_NUM_THREADS"] == "2" and "OMP_NUM_THREADS" not in run_environment(0, 1)


def test_a_study_without_tables_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="alignx sweep"):
        read_study(tmp_path)


def test_a_reader_that_has_read_enough_is_no_error(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("arms: {base: {stages: []}}\n")
    command = f"{sys.executable} -u -m alignx.cli sweep {file} --list --output {tmp_path / 'out'}; echo $? > {tmp_path / 'code'}"
    said = subprocess.run(f"{{ {command}; }} | true", shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert said.stderr == "" and (tmp_path / "code").read_text().strip() == "141"


def test_publishing_keeps_the_arms_that_another_machine_has_done(tmp_path, uninterrupted):
    def publish(*words):
        command = [sys.executable, str(Path(__file__).parent.parent / "tools" / "publish_study.py"), str(uninterrupted.output_dir), str(tmp_path), "--against", "base", *words]
        subprocess.run(command, check=True, capture_output=True)
        return {path.stem: pd.read_parquet(path) for path in tmp_path.glob("*.parquet")}

    first = publish()
    for name, table in first.items():
        elsewhere = table[table["arm"] == "AlignX"]
        pd.concat([table[table["arm"] != "AlignX"], elsewhere, elsewhere.assign(arm="elsewhere")]).to_parquet(tmp_path / f"{name}.parquet")
    kept = publish("--keep")
    for name, table in first.items():
        assert (kept[name]["arm"] == "elsewhere").sum() == (table["arm"] == "AlignX").sum() > 0
        pd.testing.assert_frame_equal(kept[name][kept[name]["arm"] != "elsewhere"].reset_index(drop=True), table)
    assert "elsewhere" not in set(publish()["arms"]["arm"])


def test_a_run_of_a_question_is_compared_with_those_that_differ_in_one_setting():
    specification = importlib.util.spec_from_file_location("publish_study", Path(__file__).parent.parent / "tools" / "publish_study.py")
    publish_study = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(publish_study)
    settings = {
        "arm": {"temperature": 0.1, "layer": 3}, "question: usual": {"temperature": 0.2, "layer": 3}, "question: sibling": {"temperature": 0.3, "layer": 5},
        "other: one apart": {"temperature": 0.2, "layer": 4}, "other: two apart": {"temperature": 0.1, "layer": 4}, "other: both stages": {"temperature": 0.2, "layer": 5},
    }  # fmt: skip
    stages = {name: ["align", "tune"] if name in ("arm", "other: both stages") else ["align"] for name in settings}
    runs = pd.DataFrame([{"arm": name, "recipe": json.dumps({"seed": 0, "stages": stages[name], "align": align})} for name, align in settings.items()])
    units = pd.DataFrame({"arm": list(settings), "question": [name.partition(":")[0] if ":" in name else "" for name in settings]})
    compared = lambda arm: publish_study.comparable(units, runs, arm)["arm"].tolist()
    assert compared("question: usual") == ["question: usual", "question: sibling", "other: one apart"]
    assert compared("arm") == ["arm", "other: both stages"]
