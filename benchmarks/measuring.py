"""What the benchmarks share: trainers that take turns, memory in a process of its own, rows, models, the machine."""
import os
import platform
import subprocess
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import torch
from datasets import Dataset, concatenate_datasets
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, TrainerCallback

from alignx.data import load_parallel, translation_instructions
from alignx.demo import demo_corpus, demo_model

SIZES = {  # layers, width, of the gated network, heads
    "12x512": (12, 512, 1376, 8),
    "24x2048": (24, 2048, 5504, 16),
}
PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312, "L40S": 362, "L4": 121, "4090": 165}  # dense bf16, by a part of the device's name


def clock() -> float:
    "Seconds: of this process's CPU time, which other programs do not change; with a GPU, on the clock."
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def language_model(size: str, tokenizer, seed: int = 0, **config) -> PreTrainedModel:
    "The embedded model, or one of random weights with its vocabulary; float32."
    torch.manual_seed(seed)
    if size == "demo":
        return AutoModelForCausalLM.from_pretrained(demo_model(), dtype=torch.float32, **config)
    layers, width, inner, heads = SIZES[size]
    shape = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": inner, "num_attention_heads": heads, "num_key_value_heads": heads}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), **{**shape, **config}, **ids)).float()


def translation_rows(count: int) -> Dataset:
    "Translation instructions of the embedded corpus in a fixed order, again from the start where there are too few."
    corpus = load_parallel(demo_corpus(), split="train").shuffle(seed=0)
    corpus = concatenate_datasets([corpus] * -(-count // len(corpus))).select(range(count))
    return Dataset(translation_instructions(corpus).with_format("arrow")[:])


class _Turns(TrainerCallback):
    "Hands over to the next trainer after each optimiser step, and times the steps, from the end of one to the end of the next."

    def __init__(self):
        self.mine, self.next, self.seconds, self.since = threading.Semaphore(0), None, [], None

    def wait(self):
        self.mine.acquire()
        self.since = clock()

    def on_step_end(self, *args, **kwargs):
        self.seconds.append(clock() - self.since)
        self.next.mine.release()
        self.wait()


def in_turns(trainers: dict, warmup: int = 1) -> dict[str, list[float]]:
    "Trains all of them to their `max_steps` (equal for all), one optimiser step each in turn; seconds of each step after `warmup`."
    turns = {name: _Turns() for name in trainers}
    ring, failures = list(turns.values()), []
    for turn, following in zip(ring, [*ring[1:], ring[0]]):
        turn.next = following

    def train(name):
        turns[name].wait()
        try:
            trainers[name].train()
        except BaseException as error:
            failures.append(error)
        turns[name].next.mine.release()

    threads = [threading.Thread(target=train, args=(name,), daemon=True) for name in trainers]
    for name, trainer in trainers.items():
        trainer.add_callback(turns[name])
    for thread in threads:
        thread.start()
    ring[0].mine.release()
    while any(thread.is_alive() for thread in threads) and not failures:
        time.sleep(0.05)
    if failures:
        raise failures[0]
    return {name: turn.seconds[warmup:] for name, turn in turns.items()}


def _status(name: str) -> int:
    "A line of /proc/self/status, in KiB."
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)).split()[1])


def added_memory(work) -> float:
    "MiB that `work()` adds, at its highest, to the resident memory of this process (with a GPU: to what is allocated there)."
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest value so far
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def apart(script: str, *arguments) -> float:
    "The number that the script prints last, run with these arguments in a process of its own."
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


def machine(*packages: str) -> dict:
    "Where it was measured: never without it."
    found = {}
    for name in ("alignx", "torch", "transformers", "accelerate", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"device": device, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "processor": platform.machine(), "python": platform.python_version(), **found}


datasets.disable_progress_bars()
