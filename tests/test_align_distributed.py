"""Two processes are one with twice the batch; and what they save, lose and go on from.

Weights are compared to 2e-6: two processes add the same numbers in another order, and an addition in 32 bits rounds to 6e-8 of its size.
With AdamW, which divides each gradient by its own size, a rounding of a tiny gradient becomes a larger one of the step.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from alignx.align.checkpoint_files import PARTIAL, check_checkpoint, last_checkpoint
from many_devices import SHARDED, command, on_devices, train, translations

CONFIGS = Path(__file__).parents[1] / "recipes" / "accelerate"
DEVICES = {"ddp": {}, "fsdp2": {"sharded": SHARDED}}


@pytest.fixture(scope="module", autouse=True)
def importable():
    "The server that forks the processes finds this folder and has one thread."
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "OMP_NUM_THREADS")}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), before["PYTHONPATH"] or ""])
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def two(folder, **case) -> list[dict]:
    found = on_devices(2, folder, train, folder, **case)
    assert "error" not in found[0], found[0]["trace"] or found[1]["trace"]
    assert same(found[0]["weights"], found[1]["weights"]), "every process has the same weights"
    return found


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def furthest(one, other) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


CASES = {
    "row": {"objectives": "lm,contrastive", "tied": False},
    "row, accumulated, learned temperature": {"objectives": "lm,contrastive", "learn_temperature": True, "gradient_accumulation_steps": 2},
    "mirror, accumulated": {"objectives": "lm,contrastive", "pooling": "mirror", "bidirectional": True, "gradient_accumulation_steps": 2},
    "alone, accumulated, centred": {"objectives": "lm,contrastive", "pooling": "alone", "normalization": "center", "gradient_accumulation_steps": 2, "tied": False},
    "contrastive by itself": {"objectives": "contrastive", "gradient_accumulation_steps": 2},
    "row, packed, accumulated": {"objectives": "lm,contrastive", "packing": True, "gradient_accumulation_steps": 2},
    "language model by itself": {"objectives": "lm", "gradient_accumulation_steps": 2},
}


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one_big_batch(tmp_path, devices, name):
    "22 rows in micro-batches of 4, repeated sentences among them; the last micro-batch has 2."
    case = CASES[name] | {"accelerator_config": {"even_batches": False}}
    steps = {"max_steps": 2 if "gradient_accumulation_steps" in case else 3, "count": 22}
    alone = train(tmp_path / "one", **case | steps | {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 8 * case.get("gradient_accumulation_steps", 1)})
    first, _ = two(tmp_path / "two", **case | steps | DEVICES[devices] | {"per_device_train_batch_size": 4})
    assert first["kind"] == {"ddp": "DistributedDataParallel", "fsdp2": "FSDPAlignmentModel"}[devices]
    assert furthest(first["weights"], alone["weights"]) < 2e-6
    for ours, expected in zip(first["log"], alone["log"], strict=True):
        for value in ("loss", "lm_loss", "contrastive_loss", "grad_norm", "contrastive_pairs", "retrieval_accuracy"):
            if value in expected:
                assert ours[value] == pytest.approx(expected[value], rel=2e-6, abs=2e-6), value


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("size", [4, "step"])
def test_all_losses_are_those_of_the_same_micro_batches_one_after_another(tmp_path, devices, size):
    "Language matching pairs the sentences of a micro-batch, so it is compared with four of them in one process."
    case = {"contrastive_batch": size, "per_device_train_batch_size": 4, "count": 32, "max_steps": 2}
    alone = train(tmp_path / "one", **case, gradient_accumulation_steps=4)
    first, _ = two(tmp_path / "two", **case, **DEVICES[devices], gradient_accumulation_steps=2)
    assert furthest(first["weights"], alone["weights"]) < 2e-6
    for ours, expected in zip(first["log"], alone["log"], strict=True):
        for value in ("loss", "lm_loss", "contrastive_loss", "language_matching_loss", "language_matching_accuracy"):
            assert ours[value] == pytest.approx(expected[value], rel=2e-6, abs=2e-6), value


@pytest.mark.parametrize("devices", DEVICES)
def test_adamw_clipping_and_rates_of_the_heads(tmp_path, devices):
    case = {"objectives": "lm,contrastive,language_matching", "optim": "adamw_torch", "learning_rate": 1e-3, "heads_learning_rate": 1e-2, "max_grad_norm": 1.0, "weight_decay": 0.1, "per_device_train_batch_size": 4}
    alone = train(tmp_path / "one", **case, gradient_accumulation_steps=2)
    first, _ = two(tmp_path / "two", **case, **DEVICES[devices])
    assert furthest(first["weights"], alone["weights"]) < 2e-4, "a fifteenth of what three steps of 1e-3 can move"


@pytest.mark.parametrize("model", ["llama", "xglm"])
def test_half_precision_does_not_round_the_losses(tmp_path, model):
    "FSDP2 would round what comes out of the model, and the gradients of the pairs that go in, to three digits. XGLM needs its inputs rounded."
    case = {"model": model, "learn_temperature": True, "pooling": "mirror", "per_device_train_batch_size": 4, "max_steps": 2}
    alone = train(tmp_path / "one", **case, gradient_accumulation_steps=4)
    first, _ = two(tmp_path / "two", **case, gradient_accumulation_steps=2, bf16=True, activation_checkpointing=True, **DEVICES["fsdp2"])
    for ours, expected in zip(first["log"], alone["log"], strict=True):
        for value in ("lm_loss", "contrastive_loss"):
            assert ours[value] == pytest.approx(expected[value], rel=5e-3)
            assert ours[value] != torch.tensor(ours[value]).bfloat16().item()
    assert all(weight.dtype == torch.float32 for weight in first["weights"].values())


def test_a_last_batch_without_enough_rows_is_filled_up_from_the_first(tmp_path):
    "accelerate's default, `even_batches`: 22 rows become 24, of which the last two are the first two again."
    case = {"objectives": "lm,contrastive", "gradient_accumulation_steps": 1}
    first, _ = two(tmp_path / "two", **case, count=22, per_device_train_batch_size=4)
    rows = translations(22)
    alone = train(tmp_path / "one", **case, rows=rows + rows[:2], per_device_train_batch_size=8)
    assert furthest(first["weights"], alone["weights"]) < 2e-6


def test_the_plain_folder_and_going_on_are_exact(tmp_path):
    "With dropout, accumulation and cached competition, whether FSDP2 writes checkpoints in parts or whole."
    case = {"dropout": 0.3, "optim": "adamw_torch", "learning_rate": 1e-2, "max_grad_norm": 1.0, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "max_steps": 5, "save_strategy": "steps", "save_steps": 2}
    for name, devices in {**DEVICES, "fsdp2, whole": {"sharded": "FULL_STATE_DICT"}, "fsdp2, not tied": {"sharded": SHARDED, "tied": False}}.items():
        folder = tmp_path / name
        first, _ = two(folder, **case, **devices)
        shutil.rmtree(folder / "checkpoint-5")
        check_checkpoint(folder / "checkpoint-4")
        again, _ = two(folder, **case, **devices, resume=True)
        assert same(first["weights"], again["weights"]), name
        lm, info = AutoModelForCausalLM.from_pretrained(folder / "end", output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"] and lm.config.use_cache
        expected = {name.removeprefix("lm."): tensor for name, tensor in first["weights"].items() if name.startswith("lm.")}
        assert same(dict(lm.state_dict()), expected)
        heads = load_file(folder / "end" / "alignment_heads.safetensors")
        assert same(heads, {name.removeprefix("heads."): tensor for name, tensor in first["weights"].items() if name.startswith("heads.")})


def test_going_on_with_another_number_of_processes(tmp_path):
    "A checkpoint in parts of two processes, read by three, which have its weights and train on."
    case = {"sharded": SHARDED, "optim": "adamw_torch", "per_device_train_batch_size": 2, "max_steps": 2, "save_strategy": "steps", "save_steps": 2, "contrastive_batch": 2}
    first, _ = two(tmp_path, **case)
    others = on_devices(3, tmp_path, train, tmp_path, resume=True, **case | {"max_steps": 4})
    for other in others:
        assert "error" not in other, other["trace"]
        assert same(other["start"], first["weights"]) and same(other["weights"], others[0]["weights"])
        assert furthest(other["weights"], first["weights"]) > 1e-3 and all(weight.isfinite().all() for weight in other["weights"].values())


@pytest.mark.parametrize("devices, process", [("ddp", 0), ("ddp", 1), ("fsdp2", 0)])
def test_what_one_process_cannot_write_is_raised_by_all(tmp_path, devices, process):
    found = on_devices(2, tmp_path, train, tmp_path, **DEVICES[devices], per_device_train_batch_size=4, save_strategy="steps", save_steps=1, limit={process: (2, 3000)})
    for each in found:
        assert each["error"].startswith("InputError: checkpoint-2 could not be saved, earlier checkpoints are untouched: ") and "file too large" in each["error"], each["trace"]
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == ["checkpoint-1"] and not (tmp_path / PARTIAL).exists()
    check_checkpoint(tmp_path / "checkpoint-1")


@pytest.mark.parametrize("devices, process", [("ddp", 0), ("fsdp2", 0)])
def test_two_processes_killed_while_saving_go_on(tmp_path, devices, process):
    case = {**DEVICES[devices], "dropout": 0.3, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 1}
    expected, _ = two(tmp_path / "whole", **case)
    found = on_devices(2, tmp_path / "killed", train, tmp_path / "killed", **case, dies={"process": process, "step": 2})
    assert all("error" in each for each in found) and (tmp_path / "killed" / PARTIAL).exists()
    assert last_checkpoint(tmp_path / "killed") == str(tmp_path / "killed" / "checkpoint-1")
    again, _ = two(tmp_path / "killed", **case, resume=True)
    assert same(expected["weights"], again["weights"])


def test_a_damaged_checkpoint_is_named_by_all(tmp_path):
    case = {"per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    two(tmp_path, **case)
    path = tmp_path / "checkpoint-2" / "rng_state_1.pth"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    for each in on_devices(2, tmp_path, train, tmp_path, resume=True, **case):
        assert each["error"].endswith("rng_state_1.pth is damaged, its content is not what was written; remove checkpoint-2 to go on from checkpoint-1")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    "A recipe of seconds, in a file."
    values = {
        "languages": ["en", "de", "sw"],
        "data": {"template": "plain", "max_length": 64, "max_characters": 40, "pairs": 48, "tune_pairs": 8},
        "align": {"pooling": "mirror", "contrastive_batch": "step", "objectives": "lm,contrastive", "max_steps": 4, "per_device_train_batch_size": 4, "save_steps": 2, "use_cpu": True},
        "tune": {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True},
        "evaluate": {"tuples": 20, "explorer_tuples": 5},
    }
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_command_in_two_processes(tmp_path, recipe):
    "Every step once, by the first process; training by both; and the models of one process with twice the batch."
    both = [["run", str(recipe), "--output", str(tmp_path / "two")], ["run", str(recipe), "--output", str(tmp_path / "one"), *(word for stage in ("align", "tune") for word in (f"--{stage}.per_device_train_batch_size", "8"))]]
    first, second = on_devices(2, tmp_path / "found", command, both[0])
    assert first.get("code") == second.get("code") == 0, (first, second)
    assert second["said"] == "" and first["said"].count("48 rows for stage 1") == 1 and "Traceback" not in first["wrong"] + second["wrong"]
    lines = [line for line in first["said"].splitlines() if line.startswith(("build ", "measure base", "align ", "tune "))]
    assert [line.split()[0] for line in lines if "unchanged" not in line] == ["build", "measure", "align", "tune"]
    assert command(both[1])["code"] == 0
    for stage in ("aligned", "tuned"):
        ours, expected = (load_file(tmp_path / name / stage / "model.safetensors") for name in ("two", "one"))
        assert furthest(ours, expected) < 5e-5, "four steps of AdamW at 5e-5, two of them"
    assert not list((tmp_path / "two" / "checkpoints").glob("*")) and (tmp_path / "two" / "report.html").is_file()
    again, other = on_devices(2, tmp_path / "found", command, both[0])
    assert all("unchanged" in line for line in again["said"].splitlines()[:6]) and other["code"] == 0


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "deepspeed"])
def test_the_configs_are_what_accelerate_reads(name):
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert (config.distributed_type, config.num_processes, config.mixed_precision) == ({"ddp": "MULTI_GPU", "fsdp2": "FSDP", "deepspeed": "DEEPSPEED"}[name], 8, "bf16")


def test_the_fsdp_config_makes_the_plugin_that_is_tested_here(monkeypatch):
    "What `accelerate launch` puts into the environment of each process."
    for name, value in load_config_from_file(str(CONFIGS / "fsdp2.yaml")).fsdp_config.items():
        monkeypatch.setenv(name.upper(), str(value))
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and SHARDED in str(plugin.state_dict_type) and plugin.reshard_after_forward is True
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy" and not plugin.cpu_ram_efficient_loading


def test_accelerate_launches_a_command(tmp_path, recipe):
    "The real launcher with our configs, on two CPUs, where accelerate makes DDP of either. (Its --cpu would start one process.)"
    changes = ["align", str(recipe), "--align.layer", "2", "--align.optim", "sgd", "--align.learning_rate", "0.05"]
    for name in ("ddp", "fsdp2"):
        words = ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / f"{name}.yaml"), "--num_processes", "2", "--mixed_precision", "no", "-m", "alignx.cli", *changes]
        done = subprocess.run([sys.executable, *words, "--output", str(tmp_path / name)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["build", "align"]
    assert command([*changes, "--output", str(tmp_path / "one"), "--align.per_device_train_batch_size", "8"])["code"] == 0
    expected, *found = (load_file(tmp_path / name / "aligned" / "model.safetensors") for name in ("one", "ddp", "fsdp2"))
    assert all(furthest(ours, expected) < 2e-6 for ours in found)


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_in_one_process(tmp_path, stage, monkeypatch):
    "accelerate cannot connect several CPU processes for DeepSpeed, so only one is tested, where DeepSpeed is installed."
    pytest.importorskip("deepspeed")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    case = {"objectives": "lm,contrastive", "optim": "adamw_torch", "learning_rate": 1e-3, "max_grad_norm": 1.0, "max_steps": 2}
    alone = train(tmp_path / "one", **case, per_device_train_batch_size=16)
    case |= {"use_cpu": False, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 1, "deepspeed": stage}
    [found] = on_devices(1, tmp_path, train, tmp_path, **case)
    assert furthest(found["weights"], alone["weights"]) < 2e-4, found.get("trace")
    shutil.rmtree(tmp_path / "checkpoint-2")
    [again] = on_devices(1, tmp_path, train, tmp_path, **case, resume=True)
    assert same(found["weights"], again["weights"])
    AutoModelForCausalLM.from_pretrained(tmp_path / "end")
