"""Runs on several devices: processes of one machine that talk through gloo."""
import io
import multiprocessing
import os
import resource
import socket
import traceback
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback

from align_batches import CONFIGS, bare, collate, row
from alignx.align.trainer import AlignmentArguments, AlignmentTrainer
from alignx.cli import main

SETTINGS = {"max_steps": 3, "save_strategy": "no", "logging_steps": 1, "optim": "sgd", "learning_rate": 0.05, "lr_scheduler_type": "constant", "max_grad_norm": 0, "report_to": "none", "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False, "seed": 3, "layer": 2, "language_matching_size": 8, "train_sampling_strategy": "sequential"}
SHARDED = "SHARDED_STATE_DICT"


class ShardedOnCPU(AlignmentTrainer):
    "FSDP2 as `accelerate` sets it up on GPUs; by itself it ignores the wish for it on CPUs, where PyTorch has it all the same."

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        state, plugin = self.accelerator.state, FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="TRANSFORMER_BASED_WRAP", state_dict_type=self.layout)
        if self.args.bf16:
            plugin.set_mixed_precision("bf16")
        state.distributed_type, state.fsdp_plugin, self.is_fsdp_enabled = DistributedType.FSDP, plugin, True
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # as AcceleratorState does


def translations(count: int) -> list[dict]:
    "Rows of several lengths; the third and every ninth after it are one sentence, the fifth is no translation."
    made = [row(2 + i % 3, 1 + i % 4, 10, 11 + i % 2, seed=2 if i % 9 == 2 else 50 + i) for i in range(count)]
    made[min(4, count - 1)] = bare(7, seed=5)
    return made


def mirrored(some: list[dict]) -> dict:
    "A batch in which each row is followed by its pair in the opposite direction."
    twins = []
    for one in some:
        one = {name: value for name, value in one.items() if not name.startswith("mirror_")}
        back = {**one, "source_lang": one["target_lang"], "target_lang": one["source_lang"], "spans": [{1: 2, 2: 1}.get(mark, mark) for mark in one["spans"]]}
        twins += [one, back]
    return collate(twins)


def trainer(folder: Path, count: int = 24, tied: bool = True, dropout: float = 0.0, sharded: str | None = None, rows: list | None = None, model: str = "llama", **settings) -> AlignmentTrainer:
    "A tiny model, and rows in a fixed order."
    config = deepcopy(CONFIGS[model])
    config.tie_word_embeddings, config.attention_dropout = tied, dropout
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config).float()
    data = translations(count) if rows is None else rows
    if settings.get("pooling") == "mirror":
        data = [one | {f"mirror_{name}": value for name, value in one.items()} for one in data]
    args = AlignmentArguments(output_dir=str(folder), **{**SETTINGS, **settings})
    kind = type("Sharded", (ShardedOnCPU,), {"layout": sharded}) if sharded else AlignmentTrainer
    return kind(lm, args, mirrored if args.pooling == "mirror" else collate, Dataset.from_list(data))


def whole(model) -> dict:
    "The weights of a model, wherever they lie."
    return {name: (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone() for name, tensor in model.state_dict().items()}


def train(folder: Path, resume: bool = False, dies: dict | None = None, limit: dict | None = None, deepspeed: int | None = None, **case) -> dict:
    """One run; its weights and what it logged. `dies`: which process is killed while it publishes which step.

    `limit`: by process, a step after which the system refuses files of more bytes than these. `deepspeed`: the stage of ZeRO."""
    if deepspeed is not None:
        os.environ |= {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(deepspeed), "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto", "ACCELERATE_GRADIENT_CLIPPING": "auto", "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true"}
    run = trainer(folder, **case)
    rank = run.args.process_index
    if dies and rank == dies["process"]:
        name = run._name
        run._name = lambda *args: os.kill(os.getpid(), 9) if run.state.global_step == dies["step"] else name(*args)
    if limit and rank in limit:
        run.add_callback(Limited(*limit[rank]))
    beginning = Beginning()
    run.add_callback(beginning)
    run.train(resume_from_checkpoint=resume)
    found = {"kind": type(run.model_wrapped).__name__, "start": beginning.weights, "weights": whole(run.model), "log": [entry for entry in run.state.log_history if "loss" in entry]}
    if case.get("save_strategy", "no") != "no":
        run.save_model(str(folder / "end"))
    return found


class Beginning(TrainerCallback):
    "Keeps the weights before the first step."

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights = whole(model)


class Limited(TrainerCallback):
    "From the end of a step on the system refuses files above a size."

    def __init__(self, step: int, size: int):
        self.step, self.size = step, size

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def command(words: list[str]) -> dict:
    "An `alignx` command; its exit code and what it printed."
    said, wrong = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(wrong):
        code = main(words)
    return {"code": code, "said": said.getvalue(), "wrong": wrong.getvalue()}


def device(rank: int, world: int, port: int, folder: Path, work, arguments: tuple) -> None:
    "One process of several; what it found goes into a file."
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        found = work(*arguments[0], **arguments[1])
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    torch.save(found, folder / f"found-{rank}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def on_devices(world: int, folder: Path, work, *arguments, seconds: int = 60, **more) -> list[dict]:
    "What `work(*arguments, **more)` finds in each of `world` processes."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["many_devices", "killed_runs"])
    folder.mkdir(parents=True, exist_ok=True)
    started = [context.Process(target=device, args=(rank, world, port, folder, work, (arguments, more))) for rank in range(world)]
    for process in started:
        process.start()
    for process in started:
        process.join(seconds)
        if process.exitcode:  # as torchrun does: one that dies takes the others with it
            seconds = 1
    for process in started:
        process.kill()
    found = [folder / f"found-{rank}.pt" for rank in range(world)]
    return [torch.load(path, weights_only=False) if path.exists() else {"error": "ended without a word", "trace": ""} for path in found]
