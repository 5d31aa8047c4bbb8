"""Training runs in processes of their own, to be killed."""
import multiprocessing
import os
import time
from copy import deepcopy
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from align_batches import CONFIGS, collate, rows
from alignx.align import checkpoints
from alignx.align.checkpoint_files import last_checkpoint
from alignx.align.trainer import AlignmentArguments, AlignmentTrainer
from alignx.tune.trainer import InstructionTrainer, TuneArguments

SETTINGS = {"max_steps": 10, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "logging_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False, "seed": 3}


def trainer(folder: Path, stage: str = "align", **settings):
    "A tiny Llama with dropout, 14 rows, 4 a step: three epochs in 10 steps."
    config = deepcopy(CONFIGS["llama"])
    config.attention_dropout = 0.3
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config).float()
    data, more = Dataset.from_list(rows(14)), Dataset.from_list(rows(6, seed=1))
    if stage == "tune":
        return InstructionTrainer(lm, TuneArguments(output_dir=str(folder), **{**SETTINGS, **settings}), collate, data, more)
    return AlignmentTrainer(lm, AlignmentArguments(output_dir=str(folder), layer=2, language_matching_size=8, **{**SETTINGS, **settings}), collate, data, more)


def train(folder: Path, stage: str = "align", die_at: str | None = None, settings: dict | None = None) -> None:
    "Train from the last checkpoint on; the weights at the end go to `end.pt`. `die_at` names a moment of step 3 at which the process dies."
    torch.set_num_threads(1)
    run = trainer(folder, stage, **(settings or {}))

    def dying(name):
        work = getattr(checkpoints, name)

        def stop(*args, **kwargs):
            if run.state.global_step == 3:
                os.kill(os.getpid(), 9)
            return work(*args, **kwargs)

        setattr(checkpoints, name, stop)

    if die_at == "within the files":
        run._save_scaler = lambda folder: run.state.global_step == 3 and os.kill(os.getpid(), 9)
    elif die_at is not None:
        dying(die_at)
    start = last_checkpoint(folder)
    run.train(resume_from_checkpoint=start is not None)
    torch.save(run.model.state_dict(), folder / "end.part")
    os.replace(folder / "end.part", folder / "end.pt")


def forked(*args) -> multiprocessing.Process:
    "`train` in a process that starts with everything imported."
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_runs"])
    process = context.Process(target=train, args=args)
    process.start()
    return process


def finish(*args, seconds: float = 120) -> float:
    "Wait for a run to end; how long it took."
    start, process = time.perf_counter(), forked(*args)
    process.join(seconds)
    assert process.exitcode == 0, f"ended with {process.exitcode}"
    return time.perf_counter() - start


def end(folder: Path) -> dict:
    "The weights, heads included, with which a run ended."
    return torch.load(folder / "end.pt")
