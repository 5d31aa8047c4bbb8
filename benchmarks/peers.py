"""Our two trainers beside their nearest relatives: TRL's SFTTrainer, and sentence-transformers with cached gradients.

    pip install trl sentence-transformers              # not needed by alignx; versions are saved with the result
    python benchmarks/peers.py                         # prints, writes benchmarks/peers.json
    python benchmarks/peers.py --models demo --parts tune

tune         `InstructionTrainer` and TRL's `SFTTrainer`, on the same encoded rows (loss on the completion), unpacked
contrastive  `AlignmentTrainer` with the contrastive objective alone, pooling="alone", and sentence-transformers'
             `CachedMultipleNegativesRankingLoss`, on the same pairs of sentences, all pairs of a step competing

Both sides of a comparison: the same model, float32 (bf16 autocast on a GPU), AdamW, the same rows in each step, the same number
of texts in a forward pass, everything else as the library has it. For the contrastive part the model is cut at half of its layers, so that
both read the states of its last one, after its last norm; sentence-transformers pools their mean. Our rows are tokenised before training,
theirs in the collator; what that takes is measured and given beside the result (`tokenizing`).

The sides take turns in one process, an optimiser step each; seconds are of a whole step, from the end of one to the end of the next; a
ratio is the median over turns of peer seconds / our seconds, so above 1 we are faster. Memory: the peak that training adds, each side in a
process of its own. `first_loss` is each side's loss in its first step: how equal the work is.
"""
import argparse
import json
import logging
import statistics
import tempfile
import warnings
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoTokenizer, logging as transformers_logging
from trl import SFTConfig, SFTTrainer

from alignx.align import AlignmentArguments, AlignmentTrainer
from alignx.data import encode_rows
from alignx.demo import demo_model
from alignx.tune import InstructionTrainer, TuneArguments
from measuring import added_memory, apart, clock, in_turns, language_model, machine, translation_rows

TEXTS = 32  # in a forward pass: rows when tuning, single sentences when contrasting
PEERS = {"tune": "trl", "contrastive": "sentence-transformers"}


def common(steps: int) -> dict:
    "Arguments that all trainers get."
    return {
        "output_dir": tempfile.mkdtemp(), "max_steps": steps, "learning_rate": 2e-6, "bf16": torch.cuda.is_available(), "gradient_checkpointing": False, "logging_steps": 10, "logging_first_step": True,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": torch.cuda.is_available(), "train_sampling_strategy": "sequential",
    }


def tune_side(side: str, size: str, tokenizer, steps: int, pairs: int):
    "A trainer of stage 2."
    rows, model = encode_rows(translation_rows(steps * TEXTS), tokenizer, train_on="completion"), language_model(size, tokenizer)
    settings = common(steps) | {"per_device_train_batch_size": TEXTS}
    if side == "alignx":
        return InstructionTrainer(model, TuneArguments(**settings), train_dataset=rows, processing_class=tokenizer)
    columns = {"input_ids": rows["input_ids"], "completion_mask": [[int(label != -100) for label in labels] for labels in rows["labels"]]}
    return SFTTrainer(model, SFTConfig(**settings, packing=False, max_length=None, completion_only_loss=True), train_dataset=Dataset.from_dict(columns), processing_class=tokenizer)


def contrastive_side(side: str, size: str, tokenizer, steps: int, pairs: int):
    "A trainer of the contrastive loss alone."
    rows, whole = translation_rows(pairs), language_model(size, tokenizer)  # an epoch is a step, so both read the same pairs in every step
    model = language_model(size, tokenizer, num_hidden_layers=whole.config.num_hidden_layers // 2)
    if side == "alignx":
        arguments = AlignmentArguments(
            **common(steps), objectives="contrastive", pooling="alone", layer=model.config.num_hidden_layers, temperature=0.1, contrastive_weight=1.0, contrastive_batch=pairs,
            per_device_train_batch_size=TEXTS // 2, gradient_accumulation_steps=2 * pairs // TEXTS,
        )
        return AlignmentTrainer(model, arguments, train_dataset=encode_rows(rows, tokenizer, template="plain"), processing_class=tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder), tokenizer.save_pretrained(folder)
        encoder = SentenceTransformer(modules=[Transformer(folder), Pooling(model.config.hidden_size, "mean")], device="cuda" if torch.cuda.is_available() else "cpu")
    arguments = SentenceTransformerTrainingArguments(**common(steps), per_device_train_batch_size=pairs)
    texts = Dataset.from_dict({"anchor": list(rows["input"]), "positive": list(rows["output"])})
    return SentenceTransformerTrainer(encoder, arguments, train_dataset=texts, loss=CachedMultipleNegativesRankingLoss(encoder, scale=10.0, mini_batch_size=TEXTS))


SIDES = {"tune": tune_side, "contrastive": contrastive_side}


def tokens_of_a_step(part: str, tokenizer, pairs: int) -> int:
    "Real tokens, without padding: of the rows, or of the single sentences."
    if part == "tune":
        rows = encode_rows(translation_rows(1024), tokenizer, train_on="completion")
        return round(sum(map(len, rows["input_ids"])) / len(rows) * TEXTS)
    rows = translation_rows(pairs)
    return sum(len(ids) for column in ("input", "output") for ids in tokenizer(list(rows[column]))["input_ids"])


def tokenizing(tokenizer, pairs: int) -> float:
    "Seconds for the sentences of a step."
    rows, start = translation_rows(pairs), clock()
    for column in ("input", "output"):
        tokenizer(list(rows[column]), padding=True, return_tensors="pt")
    return clock() - start


def compare(part: str, size: str, tokenizer, turns: int, pairs: int) -> dict:
    "Both sides in turns; their memory apart."
    peer = PEERS[part]
    trainers = {side: SIDES[part](side, size, tokenizer, turns + 1, pairs) for side in (peer, "alignx")}
    seconds = in_turns(trainers)
    tokens, median = tokens_of_a_step(part, tokenizer, pairs), {side: statistics.median(taken) for side, taken in seconds.items()}
    ratios = [a / b for a, b in zip(seconds[peer], seconds["alignx"])]
    peaks = {side: round(apart(__file__, "--memory-of", side, "--parts", part, "--models", size, "--pairs", pairs), 1) for side in trainers}
    result = {
        "peer": peer, "model": size, "texts_in_a_pass": TEXTS, "turns": turns, "tokens_per_step": tokens, "first_loss": {side: round(float(trainer.state.log_history[0]["loss"]), 4) for side, trainer in trainers.items()},
        "seconds": {side: round(value, 3) for side, value in median.items()}, "tokens_per_second": {side: round(tokens / value) for side, value in median.items()},
        "ratio": round(statistics.median(ratios), 3), "ratios_of_turns": [round(ratio, 3) for ratio in ratios], "peak_mib": peaks, "memory_ratio": round(peaks[peer] / peaks["alignx"], 3),
    }
    if part == "contrastive":
        result |= {"pairs": pairs, "tokenizing": round(tokenizing(tokenizer, pairs), 3)}
    print(f"{part:12} {size:8} {peer} {result['tokens_per_second'][peer]:,} → alignx {result['tokens_per_second']['alignx']:,} tokens/s, {result['ratio']:.2f}×; MiB {peaks[peer]:,} → {peaks['alignx']:,}, {result['memory_ratio']:.2f}×; first loss {result['first_loss']}", flush=True)
    return result


def memory(part: str, side: str, size: str, tokenizer, pairs: int) -> None:
    "Prints the MiB that a step adds to this process."
    SIDES[part](side, size, tokenizer, 1, TEXTS).train()  # what libraries allocate once
    print(added_memory(SIDES[part](side, size, tokenizer, 1, pairs).train))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["demo", "12x512"], help="demo, 12x512, 24x2048")
    parser.add_argument("--parts", nargs="+", default=["tune", "contrastive"], choices=["tune", "contrastive"])
    parser.add_argument("--turns", type=int, default=7, help="optimiser steps of each side when tuning")
    parser.add_argument("--contrastive-turns", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=1024, help="that compete in a step")
    parser.add_argument("--memory-of", help="internal: a side; prints the memory of its step, for the first part and model")
    parser.add_argument("--output", default=str(Path(__file__).with_suffix(".json")))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    if arguments.memory_of:
        return memory(arguments.parts[0], arguments.memory_of, arguments.models[0], tokenizer, arguments.pairs)
    output = Path(arguments.output)
    text = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    text |= {"command": "python benchmarks/peers.py", "measure": "seconds of an optimiser step (CPU seconds on one core without a GPU), medians of turns; MiB added in a process of its own", "machine": machine("trl", "sentence-transformers")}
    for part in arguments.parts:
        for size in arguments.models:
            text.setdefault(part, {})[size] = compare(part, size, tokenizer, arguments.turns if part == "tune" else arguments.contrastive_turns, arguments.pairs)
            output.write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
