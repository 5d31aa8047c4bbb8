"""MEXA and retrieval of every layer beside the usual way of computing them: Python loops over layers and pairs.

    python benchmarks/metrics.py                      # prints, writes benchmarks/metrics.json
    python benchmarks/metrics.py --sentences 1000 --turns 1   # minutes

The loops are written from the description of MEXA (arXiv 2410.05873) and work as its published script does: for each layer the cosine of each sentence with
each translation, one pair at a time, by SciPy's `cosine` on float64 vectors, and then for each sentence a comparison with its row and its column (`published`). `lean loops` are
the same with norms made once and nothing but a dot product for a pair: the most that can be got out of such loops. Ours is `sentence_scores`, which also gives the margin, the AUC and the pair's cosine.

Vectors: all layers of the embedded model, English and German held-out sentences (repeated with noise where there are too few). The sides take turns; CPU seconds on one core; a ratio is
the median over turns of a loop's seconds / ours. All give the same decision for each sentence, or there is no result.
"""
import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.distance import cosine
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignx.data import load_parallel
from alignx.demo import demo_corpus, demo_model
from alignx.evaluate import embed_layers, sentence_scores
from measuring import machine


def vectors(count: int) -> tuple[np.ndarray, np.ndarray]:
    "[layers, count, width] of English and of German."
    model, tokenizer = AutoModelForCausalLM.from_pretrained(demo_model(), dtype=torch.float32), AutoTokenizer.from_pretrained(demo_model())
    rows = load_parallel(demo_corpus(), languages=["en", "de"], split="test").to_pandas().drop_duplicates("source").drop_duplicates("target")
    a, b = (embed_layers(model, tokenizer, list(rows[side])) for side in ("source", "target"))
    generator = np.random.default_rng(0)
    repeats = -(-count // a.shape[1])
    a, b = (np.concatenate([x] + [x + 0.3 * x.std() * generator.normal(size=x.shape).astype(np.float32) for _ in range(repeats - 1)], axis=1) for x in (a, b))
    return a[:, :count], b[:, :count]


def published_cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    "One library call for each pair."
    cosines = np.zeros((len(x), len(y)))
    for i in range(len(x)):
        for j in range(len(y)):
            cosines[i, j] = 1 - cosine(x[i].astype(np.float64), y[j].astype(np.float64))
    return cosines


def lean_cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    "One dot product for each pair."
    x, y = x.astype(np.float64), y.astype(np.float64)
    norms_x, norms_y, cosines = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1), np.zeros((len(x), len(y)))
    for i in range(len(x)):
        for j in range(len(y)):
            cosines[i, j] = np.dot(x[i], y[j]) / (norms_x[i] * norms_y[j])
    return cosines


def loops(cosines_of, a: np.ndarray, b: np.ndarray) -> list[dict]:
    "For each layer, what each sentence contributes."
    found = []
    for x, y in zip(a, b):
        cosines = cosines_of(x, y)
        forward = [cosines[i, i] > max(np.delete(cosines[i], i)) for i in range(len(x))]
        backward = [cosines[i, i] > max(np.delete(cosines[:, i], i)) for i in range(len(x))]
        found.append({"forward": forward, "backward": backward, "mexa": [one and other for one, other in zip(forward, backward)]})
    return found


def ours(a: np.ndarray, b: np.ndarray) -> list[dict]:
    "The same from `sentence_scores`."
    return [sentence_scores(*layer) for layer in zip(a, b)]


def timed(work, *arguments):
    "Result and CPU seconds."
    start = time.process_time()
    result = work(*arguments)
    return result, time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", default=str(Path(__file__).with_suffix(".json")))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = {"command": "python benchmarks/metrics.py", "measure": "CPU seconds on one core for retrieval both ways and MEXA of all layers, medians of turns", "machine": machine("numpy"), "results": []}
    for count in arguments.sentences:
        a, b = vectors(count)
        ours(a, b)
        seconds, expected = {"published": [], "lean loops": [], "alignx": []}, {}
        for _ in range(arguments.turns):
            for side, function in (("published", published_cosines), ("lean loops", lean_cosines)):
                expected[side], taken = timed(loops, function, a, b)
                seconds[side].append(taken)
            repeats = [timed(ours, a, b) for _ in range(20)]  # so short that one alone would be read off the clock too coarsely
            seconds["alignx"].append(statistics.mean(taken for _, taken in repeats))
        for theirs in expected.values():
            for mine, other in zip(repeats[-1][0], theirs, strict=True):
                for name in other:
                    np.testing.assert_array_equal(mine[name], np.array(other[name], dtype=float))
        ratios = {side: [slow / fast for slow, fast in zip(seconds[side], seconds["alignx"])] for side in expected}
        result = {
            "layers": len(a), "sentences": count, "width": a.shape[-1], "turns": arguments.turns, "seconds": {side: round(statistics.median(taken), 4) for side, taken in seconds.items()},
            "ratio": {side: round(statistics.median(values)) for side, values in ratios.items()}, "ratios_of_turns": {side: [round(value) for value in values] for side, values in ratios.items()},
            "mexa": [round(float(np.mean(layer["mexa"])), 4) for layer in expected["published"]],
        }
        print(f"{count} sentences, {len(a)} layers of {a.shape[-1]}: seconds {result['seconds']}, ratio {result['ratio']}, same decisions", flush=True)
        text["results"].append(result)
    Path(arguments.output).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
