"""What the alignment objectives add to an optimiser step of plain continual pre-training: time and memory.

    python benchmarks/stage1_step.py                   # everything; prints, writes benchmarks/stage1_step.json
    python benchmarks/stage1_step.py --models demo --parts step
    python benchmarks/stage1_step.py --models 24x2048  # a GPU if there is one: bf16, and the share of its peak (MFU) is printed

Both sides are `AlignmentTrainer` on the same model, the same encoded rows (the Alpaca template, the embedded corpus), the same batches,
AdamW; only the objectives differ: "lm" alone, or all three. They take turns in one process, an optimiser step each. Seconds are of a whole
optimiser step, from the end of one to the end of the next: reading rows, forward, backward, optimiser. A ratio is the median over turns.

step     the pairs that compete are those of one micro-batch
cached   `--pairs` pairs compete in each step, collected from micro-batches by gradient caching
memory   the peak that training adds to a process of its own, for a growing number of competing pairs and the same micro-batch
"""
import argparse
import json
import logging
import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch
from transformers import AutoTokenizer, logging as transformers_logging

from alignx.align import AlignmentArguments, AlignmentTrainer
from alignx.data import encode_rows
from alignx.demo import demo_model
from measuring import PEAK_TFLOPS, added_memory, apart, in_turns, language_model, machine, translation_rows

MICRO_BATCH = 16  # as in the published example


def trainer(size: str, rows, tokenizer, steps: int, micro_batches: int = 1, pooling: str = "row", **settings) -> AlignmentTrainer:
    "A trainer of a fresh copy of the model."
    model = language_model(size, tokenizer)
    arguments = AlignmentArguments(
        output_dir=tempfile.mkdtemp(), layer=model.config.num_hidden_layers // 2, pooling=pooling, per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=micro_batches, max_steps=steps, learning_rate=2e-6, bf16=torch.cuda.is_available(), logging_steps=10,
        save_strategy="no", report_to="none", disable_tqdm=True, train_sampling_strategy="sequential", dataloader_pin_memory=torch.cuda.is_available(), **settings,
    )
    return AlignmentTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer)


def tokens_and_flops(size: str, rows, tokenizer, micro_batches: int) -> tuple[float, float]:
    "Real tokens of an average step, and its floating-point operations: 6 for each weight and token, and 6·L·D·T² for causal attention."
    model, lengths = language_model(size, tokenizer), [len(ids) for ids in rows["input_ids"]]
    weights = sum(p.numel() for p in model.parameters()) - (0 if model.config.tie_word_embeddings else model.get_input_embeddings().weight.numel())
    share = micro_batches * MICRO_BATCH / len(lengths)
    attention = 6 * model.config.num_hidden_layers * model.config.hidden_size
    return share * sum(lengths), share * sum(6 * weights * n + attention * n * n for n in lengths)


def compare(size: str, rows, tokenizer, turns: int, warmup: int = 1, micro_batches: int = 1, pairs: int = MICRO_BATCH, pooling: str = "row") -> dict:
    "A step with all objectives beside a step with the language-model loss alone."
    make = partial(trainer, size, rows, tokenizer, turns + warmup, micro_batches, pooling)
    seconds = in_turns({"lm": make(objectives="lm"), "all": make(contrastive_batch=pairs)}, warmup)
    tokens, flops = tokens_and_flops(size, rows, tokenizer, micro_batches)
    median = {side: statistics.median(taken) for side, taken in seconds.items()}
    ratios = [a / b for a, b in zip(seconds["all"], seconds["lm"])]
    result = {
        "model": size, "pooling": pooling, "micro_batch": MICRO_BATCH, "micro_batches": micro_batches, "pairs": pairs, "turns": turns, "tokens_per_step": round(tokens),
        "seconds": {side: round(value, 3) for side, value in median.items()}, "tokens_per_second": {side: round(tokens / value) for side, value in median.items()},
        "ratio": round(statistics.median(ratios), 3), "ratios_of_turns": [round(ratio, 3) for ratio in ratios],
    }
    peak = next((value for part, value in PEAK_TFLOPS.items() if torch.cuda.is_available() and part in torch.cuda.get_device_name()), None)
    if peak:
        result["mfu"] = {side: round(flops / value / peak / 1e12, 3) for side, value in median.items()}
    print(f"{size:8} {pooling:6} {result['pairs']:5,} pairs compete   {median['lm']:8.2f} s → {median['all']:8.2f} s   {result['ratio']:.3f}   {result.get('mfu', '')}", flush=True)
    return result


def memory(size: str, pairs: int, rows, tokenizer, objectives: str) -> None:
    "Prints the MiB that an optimiser step adds to this process."
    trainer(size, rows.select(range(MICRO_BATCH)), tokenizer, 1).train()  # what libraries allocate once
    made = trainer(size, rows, tokenizer, 1, pairs // MICRO_BATCH, objectives=objectives)
    print(added_memory(made.train))


def memory_apart(size: str, objectives: str, pairs: int) -> float:
    "`memory` in a process of its own."
    return round(apart(__file__, "--memory-of", objectives, "--models", size, "--memory-pairs", pairs), 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["demo", "12x512"], help="demo, 12x512, 24x2048")
    parser.add_argument("--parts", nargs="+", default=["step", "cached", "memory"], choices=["step", "cached", "memory"])
    parser.add_argument("--turns", type=int, default=11, help="optimiser steps of each side, for step")
    parser.add_argument("--cached-turns", type=int, default=2, help="for cached")
    parser.add_argument("--pairs", type=int, default=1024, help="for cached")
    parser.add_argument("--memory-pairs", type=int, nargs="+", default=[32, 256, 1024, 4096])
    parser.add_argument("--memory-of", help="internal: objectives; prints the memory of a step of the first model with the first of --memory-pairs")
    parser.add_argument("--output", default=str(Path(__file__).with_suffix(".json")))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    rows = encode_rows(translation_rows(max(arguments.pairs, arguments.memory_pairs[-1])), tokenizer)
    if arguments.memory_of:
        return memory(arguments.models[0], arguments.memory_pairs[0], rows, tokenizer, arguments.memory_of)
    output = Path(arguments.output)
    text = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    text |= {"command": "python benchmarks/stage1_step.py", "measure": "seconds of an optimiser step (CPU seconds on one core without a GPU), medians of turns; MiB added in a process of its own", "machine": machine()}
    for size in arguments.models:
        if "step" in arguments.parts:
            text.setdefault("step", {}).setdefault(size, {}).update({pooling: compare(size, rows, tokenizer, arguments.turns, pooling=pooling) for pooling in ("row", "alone")})
        if "cached" in arguments.parts:
            text.setdefault("cached", {})[size] = compare(size, rows, tokenizer, arguments.cached_turns, 0, arguments.pairs // MICRO_BATCH, arguments.pairs)
        output.write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if "memory" in arguments.parts:
        size = arguments.models[0]
        peak = partial(memory_apart, size)
        text["memory"] = {"model": size, "micro_batch": MICRO_BATCH, "lm_mib": peak("lm", arguments.memory_pairs[0]), "all_mib": {pairs: peak("lm,contrastive,language_matching", pairs) for pairs in arguments.memory_pairs}}
        print(text["memory"])
    output.write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
