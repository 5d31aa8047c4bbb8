import errno
import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from killed_runs import end, finish, forked, trainer
from alignx.align.checkpoint_files import MANIFEST, PARTIAL, check_checkpoint, disk_problem, last_checkpoint, prepare_output, write_manifest
from alignx.errors import InputError, UsageError


@pytest.fixture(scope="module", autouse=True)
def importable():
    "The server that forks the runs finds this folder and has one thread."
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "OMP_NUM_THREADS")}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), before["PYTHONPATH"] or ""])
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "The weights of uninterrupted runs, and how long one takes."
    found = {}
    for stage in ("align", "tune"):
        folder = tmp_path_factory.mktemp(stage)
        finish(folder, stage)
        found[stage] = end(folder)
        found[f"{stage} seconds"] = finish(tmp_path_factory.mktemp(stage), stage)
    return found


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def killed(folder, seconds, *args) -> bool:
    "Whether the run was still going when it was killed."
    process = forked(folder, *args)
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("stage, kills", [("align", 20), ("tune", 4)])
def test_a_run_killed_at_random_moments_ends_with_the_same_weights(tmp_path, whole, stage, kills):
    draw, done, chain, while_saving = random.Random(stage), 0, 0, 0
    while done < kills:
        folder = tmp_path / str(chain)
        folder.mkdir(exist_ok=True)
        if killed(folder, draw.uniform(0.1, 0.9) * whole[f"{stage} seconds"], stage):
            done += 1
            while_saving += (folder / PARTIAL).exists()
        elif (folder / "end.pt").exists():
            assert same(end(folder), whole[stage]), f"run {chain}"
            chain += 1
        else:
            pytest.fail("a run that was not killed did not end")
    (tmp_path / str(chain)).mkdir(exist_ok=True)
    finish(tmp_path / str(chain), stage)
    assert same(end(tmp_path / str(chain)), whole[stage])
    print(f"{done} kills, {while_saving} of them while saving, {chain + 1} runs")


@pytest.mark.parametrize("moment, left", [("within the files", 2), ("write_manifest", 2), ("publish", 2), ("rotate_checkpoints", 3)])
def test_a_run_killed_inside_saving_goes_on_from_the_last_whole_checkpoint(tmp_path, whole, moment, left):
    process = forked(tmp_path, "align", moment)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert last_checkpoint(tmp_path) == str(tmp_path / f"checkpoint-{left}")
    finish(tmp_path)
    assert same(end(tmp_path), whole["align"])
    assert sorted(path.name for path in tmp_path.glob("*checkpoint*")) == ["checkpoint-10", "checkpoint-9"] and not (tmp_path / PARTIAL).exists()


def test_death_between_taking_the_old_name_away_and_giving_it_anew(tmp_path):
    prepare_output(tmp_path)
    staged = tmp_path / PARTIAL / "checkpoint-5"
    staged.mkdir(parents=True)
    (staged / "a").write_text("new")
    write_manifest(staged)
    prepare_output(tmp_path)
    assert (tmp_path / "checkpoint-5" / "a").read_text() == "new" and not (tmp_path / PARTIAL).exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    "A run of three steps, saved at each."
    folder = tmp_path_factory.mktemp("saved")
    trainer(folder, max_steps=3, save_total_limit=None).train()
    return folder


@pytest.fixture
def run(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "run"))


def resume(folder, start=True, **settings):
    made = trainer(folder, **{"max_steps": 4, "save_total_limit": None} | settings)
    made.train(resume_from_checkpoint=start)
    return made


def test_a_run_killed_after_its_last_step_does_no_step_more(run):
    made = resume(run, max_steps=3)
    saved = load_file(run / "checkpoint-3" / "model.safetensors")
    assert made.state.global_step == 3 and all(torch.equal(saved[name], weight) for name, weight in made.model.lm.state_dict().items() if name in saved)


@pytest.mark.parametrize("damage, why", [
    (lambda one: (one / MANIFEST).unlink(), "manifest.json is missing"),
    (lambda one: (one / MANIFEST).write_text("{"), "manifest.json is damaged"),
    (lambda one: (one / MANIFEST).write_text("[1]"), "manifest.json is damaged"),
    (lambda one: (one / "optimizer.pt").unlink(), "optimizer.pt is missing"),
    (lambda one: os.truncate(one / "model.safetensors", 100), "model.safetensors has 100 bytes instead of"),
])
def test_what_is_not_whole_is_passed_over_and_named(run, caplog, damage, why):
    damage(run / "checkpoint-3")
    logger = logging.getLogger("transformers")
    logger.propagate, before = True, logger.propagate
    try:
        assert last_checkpoint(run) == str(run / "checkpoint-2")
    finally:
        logger.propagate = before
    assert "checkpoint-3 is passed over" in caplog.text and why in caplog.text
    assert resume(run).state.global_step == 4
    check_checkpoint(run / "checkpoint-3")  # done again, in place of the broken one


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json", "alignment_heads.safetensors"])
def test_one_changed_bit_is_named_with_the_mend(run, name):
    path = run / "checkpoint-3" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"{name} is damaged.*; remove checkpoint-3 to go on from checkpoint-2$"):
        resume(run)
    shutil.rmtree(run / "checkpoint-3")
    assert resume(run).state.global_step == 4


def test_no_checkpoint_to_go_on_from(tmp_path, run):
    with pytest.raises(InputError, match="no whole checkpoint to go on from; train without resume_from_checkpoint"):
        resume(tmp_path / "nothing")
    with pytest.raises(InputError, match="no such checkpoint"):
        resume(tmp_path / "nothing", start=str(tmp_path / "checkpoint-7"))
    for step in (1, 2):
        shutil.rmtree(run / f"checkpoint-{step}")
    (run / "checkpoint-3" / "scheduler.pt").unlink()
    with pytest.raises(InputError, match="scheduler.pt is missing; remove checkpoint-3 and start anew"):
        resume(run, start=str(run / "checkpoint-3"))


def test_the_best_checkpoint_is_found_again(tmp_path):
    made = trainer(tmp_path, max_steps=5, learning_rate=0.3, eval_strategy="steps", eval_steps=1, load_best_model_at_end=True, metric_for_best_model="contrastive_loss", greater_is_better=False, save_total_limit=1)
    made.train()
    losses = [entry["eval_contrastive_loss"] for entry in made.state.log_history if "eval_contrastive_loss" in entry]
    best = 1 + losses.index(min(losses))
    assert best < 5 and made.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best}")
    assert made.evaluate()["eval_contrastive_loss"] == pytest.approx(min(losses), rel=1e-6)
    state = json.loads((tmp_path / f"checkpoint-{best}" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / f"checkpoint-{best}")
    check_checkpoint(tmp_path / f"checkpoint-{best}")


@pytest.fixture
def small_disk(tmp_path):
    "A file system of 2.5 MB, for a few checkpoints."
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("only root may mount; the next test meets the same errors by other means")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk(small_disk):
    made = trainer(small_disk, max_steps=40, save_total_limit=None)
    with pytest.raises(InputError, match=r"^checkpoint-\d+ could not be saved, earlier checkpoints are untouched: .*: no space left on device; free some space, then run again$"):
        made.train()
    last = Path(last_checkpoint(small_disk))
    check_checkpoint(last)
    assert not (small_disk / PARTIAL).exists() and last.name == f"checkpoint-{made.state.global_step - 1}"
    (small_disk / "rest").write_bytes(b"0" * (shutil.disk_usage(small_disk).free - 50_000))
    with pytest.raises(InputError, match="final: no space left on device"):
        made.save_model(str(small_disk / "final"))
    with pytest.raises(UsageError, match="no space left on device; free some space, then run again"):
        resume(small_disk)
    for path in [small_disk / "final", *small_disk.glob("checkpoint-*")]:
        shutil.rmtree(path) if path != last else None
    (small_disk / "rest").unlink()
    assert resume(small_disk, max_steps=made.state.global_step).state.global_step == made.state.global_step, "with room again it goes on"


class NoLongerFiles(TrainerCallback):
    "From step 2 on the system refuses files as long as one of the last checkpoint."

    def __init__(self, name):
        self.name = name

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            size = Path(args.output_dir, "checkpoint-1", self.name).stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
def test_a_file_that_does_not_fit(tmp_path, name):
    "safetensors and torch.save say different things about it, we one."
    before, made = resource.getrlimit(resource.RLIMIT_FSIZE), trainer(tmp_path, max_steps=3)
    made.add_callback(NoLongerFiles(name))
    try:
        with pytest.raises(InputError, match=r"^checkpoint-2 could not be saved, earlier checkpoints are untouched: .*: file too large; raise the limit on the size of a file"):
            made.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-1"]
    check_checkpoint(tmp_path / "checkpoint-1")
    assert resume(tmp_path).state.global_step == 4


def test_an_output_folder_that_cannot_be_written_is_noticed_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a directory; give a folder whose path has no file in it"):
        trainer(tmp_path / "file" / "run")
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(UsageError, match="permission denied; give a folder that you may write into"):
            trainer(tmp_path / "closed").train()
    elif subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", tmp_path], capture_output=True).returncode == 0:
        try:
            with pytest.raises(UsageError, match="read-only file system; give a folder on a disk that is not read-only"):
                trainer(tmp_path / "run").train()
        finally:
            subprocess.run(["umount", "-l", tmp_path], check=True)


def test_errors_that_are_not_about_the_disk_stay_what_they_are(tmp_path):
    made = trainer(tmp_path, max_steps=1)

    def broken(*args):
        raise KeyError("a bug")

    made.write_model = broken
    with pytest.raises(KeyError, match="a bug"):
        made.train()
    assert not (tmp_path / PARTIAL).exists() and last_checkpoint(tmp_path) is None
    assert disk_problem(OSError(errno.ECONNRESET, "reset"), tmp_path) is None
    assert "denied" in disk_problem(PermissionError(errno.EACCES, "x"), tmp_path)
