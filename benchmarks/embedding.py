"""`embed_layers` beside sentence-transformers' `encode`: sentences per second of the same model, mean pooling.

    pip install sentence-transformers                 # not needed by alignx; its version is saved with the result
    python benchmarks/embedding.py                    # prints, writes benchmarks/embedding.json

Both sides: the same model below its head, float32, the same tokenizer without special tokens (so that both pool the same tokens), at most 32 sentences a batch, no progress bar, the same texts in the same
order: sentences of the embedded corpus in twelve languages, drawn with a fixed seed. Ours pools every layer, as measuring does (`all layers`), and the last one alone (`last layer`), which is what the
other side gives; that they are the same vectors is checked. The sides take turns; CPU seconds on one core (with a GPU, on the clock); a ratio is the median over turns of their seconds / ours,
so above 1 we are faster. `padding` is the share of positions that are padding, each side's own way of making batches.
"""
import argparse
import json
import logging
import statistics
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import processors
from transformers import AutoTokenizer, logging as transformers_logging

from alignx.data import DEFAULT_LANGUAGES, load_parallel
from alignx.demo import demo_corpus, demo_model
from alignx.evaluate import embed_layers
from alignx.evaluate.embeddings import _cuts
from measuring import clock, language_model, machine

BATCH = 32


def sentences(count: int) -> list[str]:
    "Distinct sentences of the twelve default languages."
    rows = load_parallel(demo_corpus(), languages=list(DEFAULT_LANGUAGES), split="train")
    texts = sorted({*rows["source"], *rows["target"]})
    return [texts[place] for place in np.random.default_rng(0).permutation(len(texts))[:count]]


def encoder(model, tokenizer) -> SentenceTransformer:
    "The model and a mean over its tokens, as sentence-transformers puts them together."
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder), tokenizer.save_pretrained(folder)
        return SentenceTransformer(modules=[Transformer(folder), Pooling(model.config.hidden_size, "mean")], device=str(model.device))


def padding(shapes: list) -> float:
    "Share of padding in batches, given as lists of lengths."
    real, whole = sum(map(sum, shapes)), sum(max(lengths) * len(lengths) for lengths in shapes)
    return round(1 - real / whole, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["demo", "12x512"], help="demo, 12x512, 24x2048")
    parser.add_argument("--sentences", type=int, nargs="+", default=[1920, 240], help="one number per model")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", default=str(Path(__file__).with_suffix(".json")))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    text = {"command": "python benchmarks/embedding.py", "measure": "sentences per second on one core (CPU seconds; with a GPU, on the clock), medians of turns", "machine": machine("sentence-transformers"), "results": []}
    for size, count in zip(arguments.models, arguments.sentences, strict=True):
        model = language_model(size, tokenizer).to("cuda" if torch.cuda.is_available() else "cpu").eval()
        texts, peer, last = sentences(count), encoder(model, tokenizer), model.config.num_hidden_layers
        sides = {
            "sentence-transformers": lambda: peer.encode(texts, batch_size=BATCH, show_progress_bar=False), "all layers": lambda: embed_layers(model, tokenizer, texts, batch_size=BATCH),
            "last layer": lambda: embed_layers(model, tokenizer, texts, layers=[last], batch_size=BATCH),
        }
        first = {side: work() for side, work in sides.items()}
        np.testing.assert_allclose(first["sentence-transformers"], first["last layer"][0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(first["all layers"][-1], first["last layer"][0], rtol=1e-4, atol=1e-5)
        seconds = {side: [] for side in sides}
        for _ in range(arguments.turns):
            for side, work in sides.items():
                start = clock()
                work()
                seconds[side].append(clock() - start)
        lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
        by_tokens, by_characters = sorted(lengths, reverse=True), [lengths[place] for place in sorted(range(len(texts)), key=lambda place: -len(texts[place]))]
        shares = {"alignx": padding([by_tokens[start:stop] for start, stop in _cuts(np.array(by_tokens), BATCH)]), "sentence-transformers": padding([by_characters[start : start + BATCH] for start in range(0, count, BATCH)])}
        ratios = {side: [theirs / own for theirs, own in zip(seconds["sentence-transformers"], seconds[side])] for side in ("all layers", "last layer")}
        result = {
            "model": size, "sentences": count, "tokens": sum(lengths), "turns": arguments.turns, "per_second": {side: round(count / statistics.median(taken), 1) for side, taken in seconds.items()},
            "ratio": {side: round(statistics.median(values), 2) for side, values in ratios.items()}, "ratios_of_turns": {side: [round(value, 2) for value in values] for side, values in ratios.items()}, "padding": shares,
        }
        print(f"{size}: sentences a second {result['per_second']}, ratio {result['ratio']}, padding {shares}", flush=True)
        text["results"].append(result)
    Path(arguments.output).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
