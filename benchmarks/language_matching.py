"""Time and memory of the language-matching loss, next to the plain form that writes every pair of sentences down.

    python benchmarks/language_matching.py             # prints a table, writes benchmarks/language_matching.json
    python benchmarks/language_matching.py --batches 16 32 --widths 1024 --limit-gib 4

The peer is the published form: [h_i; h_j] of all pairs as one tensor (2B)² × 2D through `nn.Linear(2D, 128)` twice, silu, product,
`nn.Linear(128, 2)`, cross-entropy. `sum` is W₁h_i + W₂h_j for all pairs at once; `blocks` is `LanguageMatchingHead`. All three have the
same weights, and their losses and gradients are compared before anything is measured. One measurement is a forward and a backward pass.

Time: the forms take turns in one process (plain, sum, blocks, plain, …), one core, CPU seconds; a ratio is the median over turns of peer
seconds / our seconds. Memory: a process for each measurement; its highest resident memory during the pass less what it held before the
pass. The plain form is left out where it would need more than `--limit-gib`; then `blocks` and `sum` have no ratio to it.
"""
import argparse
import gc
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from alignx.align.language_matching import LanguageMatchingHead, pair_logits, pair_questions
from measuring import added_memory, apart, machine

LANGUAGES = 10


def plain(head, embeddings, languages):
    "The published form."
    n = len(embeddings)
    pairs = torch.cat([embeddings[:, None].expand(n, n, -1), embeddings[None].expand(n, n, -1)], -1).flatten(0, 1)
    gate, up = (torch.cat([linear.first.weight, linear.second.weight], 1) for linear in (head.gate_proj, head.up_proj))
    return loss_of_all(head.down_proj(F.silu(F.linear(pairs, gate)) * F.linear(pairs, up)), languages)


def loss_of_all(logits, languages):
    "Cross-entropy over the pairs (i, j), i ≠ j; all sentences have a language here."
    same, counted = pair_questions(languages, slice(0, len(languages)))
    return F.cross_entropy(logits.view(-1, 2), same.flatten().long().masked_fill(~counted.flatten(), -100))


FORMS = {
    "plain": plain,
    "sum": lambda head, embeddings, languages: loss_of_all(pair_logits(head.gate_proj(embeddings), head.up_proj(embeddings), head.down_proj.weight), languages),
    "blocks": lambda head, embeddings, languages: head(embeddings, languages).loss,
}


def inputs(batch: int, width: int):
    "The head, 2B vectors as the last layer would give, and their languages."
    torch.manual_seed(0)
    return LanguageMatchingHead(width), torch.randn(2 * batch, width, requires_grad=True), torch.arange(2 * batch) % LANGUAGES


def once(form: str, head, embeddings, languages) -> float:
    "CPU seconds of a forward and backward pass."
    head.zero_grad(set_to_none=True)
    embeddings.grad = None
    gc.collect()
    start = time.process_time()
    FORMS[form](head, embeddings, languages).backward()
    return time.process_time() - start


def gib_of_plain(batch: int, width: int) -> float:
    "Three tensors of (2B)² × 2D: the pairs, and their gradient by way of the gate and of the other map."
    return 3 * (2 * batch) ** 2 * 2 * width * 4 / 2**30


def memory(form: str, batch: int, width: int) -> None:
    "Prints the MiB that a pass adds to this process, at its highest."
    once(form, *inputs(2, width))  # what libraries allocate once
    measured = inputs(batch, width)
    gc.collect()
    print(added_memory(lambda: once(form, *measured)))


def difference(forms, measured) -> float:
    "Largest difference of the others from `blocks`, in loss and gradients, relative to the largest gradient."
    def everything(form):
        head, embeddings, languages = measured
        loss = FORMS[form](head, embeddings, languages)
        return [loss.detach(), *torch.autograd.grad(loss, (embeddings, *head.parameters()))]

    ours = everything("blocks")
    return max(((a - b).abs().max() / b.abs().max()).item() for form in forms if form != "blocks" for a, b in zip(everything(form), ours))


def compare(batch: int, width: int, turns: int, limit: float) -> dict:
    "The forms in turns."
    forms = [form for form in FORMS if form != "plain" or gib_of_plain(batch, width) <= limit]
    measured = inputs(batch, width)
    result = {"batch": batch, "width": width, "difference": float(f"{difference(forms, measured):.1e}")}
    times = [{form: once(form, *measured) for form in forms} for _ in range(turns)]
    peaks = {form: apart(__file__, "--memory-of", form, "--batches", batch, "--widths", width) for form in forms}
    result["seconds"] = {form: round(statistics.median(turn[form] for turn in times), 4) for form in forms}
    result["peak_mib"] = {form: round(peaks[form], 1) for form in forms}
    for peer in forms[:-1]:
        result[f"time_ratio_{peer}"] = round(statistics.median(turn[peer] / turn["blocks"] for turn in times), 1)
        result[f"memory_ratio_{peer}"] = round(peaks[peer] / peaks["blocks"], 1)
    if "plain" not in forms:
        result["skipped"] = f"plain: needs about {gib_of_plain(batch, width):.0f} GiB, the limit was {limit:g}"
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512], help="rows B; sentences are 2B")
    parser.add_argument("--widths", type=int, nargs="+", default=[1024, 2048, 4096], help="D")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--limit-gib", type=float, default=8, help="no plain form above")
    parser.add_argument("--memory-of", choices=FORMS, help="internal: print the memory of one form, for the first batch and width")
    parser.add_argument("--output", default=str(Path(__file__).with_suffix(".json")))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of:
        return memory(arguments.memory_of, arguments.batches[0], arguments.widths[0])
    results = []
    for width in arguments.widths:
        for batch in arguments.batches:
            result = compare(batch, width, arguments.turns, arguments.limit_gib)
            results.append(result)
            ratios = f"{result['time_ratio_plain']:6.1f}× time {result['memory_ratio_plain']:6.1f}× memory" if "time_ratio_plain" in result else result["skipped"]
            print(f"B {batch:4d}  D {width:5d}   {result['seconds']['blocks'] * 1000:8.1f} ms {result['peak_mib']['blocks']:7.1f} MiB   {ratios}", flush=True)
    text = {"command": "python benchmarks/language_matching.py", "measure": "CPU seconds, median of turns; MiB added to resident memory, process of its own", "turns": arguments.turns, "languages": LANGUAGES, "limit_gib": arguments.limit_gib, "machine": machine(), "results": results}
    Path(arguments.output).write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
