"""How fast rows are encoded, next to the tokenizer's own batch call on the same texts and cores.

    python benchmarks/encoding.py                      # prints a table, writes benchmarks/encoding.json
    python benchmarks/encoding.py --rows 20000 --tokenizer FOLDER_OR_HUB_ID

The peer is `tokenizer(texts)`: ids and mask of rendered texts, without offsets, and nothing is kept. `encode_rows` renders the texts,
finds the spans, makes labels and writes Arrow columns. Both run on one core, in turns (peer, ours, peer, …), in one process;
a ratio is the median over turns of peer seconds / our seconds, so 1 is as fast as the tokenizer alone.
"""
import argparse
import gc
import json
import os
import platform
import statistics
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import tokenizers
import transformers
from datasets import Dataset
from transformers import AutoTokenizer

from alignx import __version__
from alignx.data import encode_rows, load_parallel, render, translation_instructions
from alignx.demo import demo_corpus, demo_model

BATCH = 1000


def seconds(work) -> float:
    "CPU seconds of this process, which other programs on the machine do not change as they do the clock's."
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(rows: Dataset, tokenizer, turns: int, **settings) -> dict:
    "Both sides in turns."
    texts = [render(row, settings["template"]).text for row in rows]
    fresh = iter(range(10**6))

    def peer(**options):
        for start in range(0, len(texts), BATCH):
            tokenizer(texts[start : start + BATCH], verbose=False, **options)

    def ours():
        copy = Dataset(rows.data.table, fingerprint=f"turn{next(fresh)}")  # a new name, so that nothing comes out of a cache
        made.append(encode_rows(copy, tokenizer, max_length=10**6, **settings))

    made, sides = [], {"peer": [], "peer with offsets": [], "encode_rows": []}
    for turn in range(turns + 1):
        times = {"peer": seconds(peer), "encode_rows": seconds(ours), "peer with offsets": seconds(lambda: peer(return_offsets_mapping=True))}
        if turn:  # the first turn warms up
            for side, taken in times.items():
                sides[side].append(taken)
    tokens = sum(map(len, made[0]["input_ids"]))
    median = {side: statistics.median(taken) for side, taken in sides.items()}
    ratio = {name: round(statistics.median(a / b for a, b in zip(sides[name], sides["encode_rows"])), 3) for name in ("peer", "peer with offsets")}
    return {
        "rows": len(rows), "tokens_per_row": round(tokens / len(rows), 1), "seconds": {side: round(taken, 3) for side, taken in median.items()},
        "rows_per_second": round(len(rows) / median["encode_rows"]), "ratio": ratio["peer"], "ratio_with_offsets": ratio["peer with offsets"],
        "ratios_of_turns": [round(a / b, 3) for a, b in zip(sides["peer"], sides["encode_rows"])],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tokenizer", default="demo", help="a folder, a Hub id, or demo")
    parser.add_argument("--output", default=str(Path(__file__).with_suffix(".json")))
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(demo_model() if arguments.tokenizer == "demo" else arguments.tokenizer)
    corpus = load_parallel(demo_corpus(), split="train").shuffle(seed=0).select(range(arguments.rows))
    rows = Dataset(translation_instructions(corpus).with_format("arrow")[:])
    cases = {
        "alpaca": {"template": "alpaca"},
        "plain": {"template": "plain"},
        "plain, completion": {"template": "plain", "train_on": "completion"},
    }
    results = {name: compare(rows, tokenizer, arguments.turns, **settings) for name, settings in cases.items()}
    machine = {"cores": os.cpu_count(), "cores_used": 1, "processor": platform.machine(), "python": platform.python_version(), "alignx": __version__, "tokenizers": tokenizers.__version__, "transformers": transformers.__version__, "datasets": datasets.__version__}
    text = {"command": "python benchmarks/encoding.py", "measure": "CPU seconds, median of turns", "tokenizer": Path(arguments.tokenizer).name, "turns": arguments.turns, "machine": machine, "results": results}
    Path(arguments.output).write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, result in results.items():
        print(f"{name:20} {result['rows_per_second']:6,} rows/s   {result['ratio']:.2f} of the tokenizer's own call, {result['ratio_with_offsets']:.2f} of that with offsets")


if __name__ == "__main__":
    main()
