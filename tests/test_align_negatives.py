"""One batch or many, one device or four: the same loss and the same gradients."""
import os
import tempfile
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from align_batches import bare, collate, row, tiny

from alignx.align.contrastive import contrastive_loss, normalize_batch
from alignx.align.model import AlignmentConfig, AlignmentModel, competition_settings
from alignx.align.negatives import all_pairs, cache_gradients, competing_loss
from alignx.align.pooling import PairEmbeddings
from alignx.errors import UsageError


def translations(count):
    "Rows with two repeated sentences, one row without spans, of several lengths."
    made = [row(2 + i % 3, 1 + i % 4, seed=i % 9 if i in (2, 11) else 50 + i) for i in range(count)]
    made[min(4, count - 1)] = bare(7, seed=5)
    return made


def mirrored(rows):
    "Each row followed by its pair in the opposite direction."
    twins = []
    for one in rows:
        swapped = {**one, "source_lang": one["target_lang"], "target_lang": one["source_lang"]}
        swapped["spans"] = [{1: 2, 2: 1}.get(mark, mark) for mark in one["spans"]]
        twins += [one, swapped]
    return twins


def wrapped(pooling="row", dtype=torch.float32, **settings):
    torch.manual_seed(0)
    model = AlignmentModel(tiny("llama"), AlignmentConfig(layer=2, pooling=pooling, objectives=("contrastive",), contrastive_weight=1.0, **settings))
    return model.to(dtype).train()


def gradients_of_one_batch(model, rows):
    "The loss of all rows as one batch, and the gradients of all weights."
    model.zero_grad()
    output = model(**collate(mirrored(rows) if model.alignment.pooling == "mirror" else rows))
    output.contrastive_loss.backward()
    return output.contrastive_loss.detach(), {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def split(rows, world, rank, size):
    "The micro-batches of one device: batch number b goes to device b mod world."
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [batches[start + rank] if start + rank < len(batches) else [] for start in range(0, len(batches), world)]


def accumulate(model, micro_batches):
    "What a cached step does: a pass for the embeddings, then one with gradients for each micro-batch."
    mirror = model.alignment.pooling == "mirror"
    batches = [collate(mirrored(rows) if mirror else rows) for rows in micro_batches]
    model.zero_grad()
    with torch.no_grad():
        first = [model(**batch, embed_only=True) for batch in batches]
    for batch, cached in zip(batches, cache_gradients(first, model.temperature, **competition_settings(model.alignment))):
        output = model(**batch, cached=cached)
        (output.contrastive_loss / len(batches)).backward()
    return output, {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def worst(found, expected):
    assert set(found) == set(expected)
    return max((found[name] - expected[name]).abs().max().item() for name in expected)


SETTINGS = [{}, {"bidirectional": True}, {"normalization": "center"}, {"learn_temperature": True}, {"mask_duplicates": False}]


@pytest.mark.parametrize("pooling", ["row", "mirror", "alone"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_micro_batches_equal_one_batch(pooling, settings):
    model, rows = wrapped(pooling, torch.float64, **settings), translations(14)
    loss, expected = gradients_of_one_batch(model, rows)
    output, found = accumulate(model, split(rows, 1, 0, 4))
    assert torch.isclose(output.contrastive_loss, loss, atol=1e-9) and output.contrastive_pairs == 13
    assert worst(found, expected) < 1e-9


def test_whitening_treats_its_matrix_as_a_constant_on_both_ways():
    model, rows = wrapped(normalization="whiten", dtype=torch.float64), translations(12)
    loss, expected = gradients_of_one_batch(model, rows)
    output, found = accumulate(model, split(rows, 1, 0, 3))
    assert torch.isclose(output.contrastive_loss, loss, atol=1e-9) and worst(found, expected) < 1e-8


def test_runs_of_pairs_compete_among_themselves_whatever_the_micro_batch():
    rows = translations(12)
    results = [accumulate(wrapped(dtype=torch.float64, contrastive_batch=6), split(rows, 1, 0, size)) for size in (2, 3, 4, 12)]
    for output, gradients in results[1:]:
        assert torch.isclose(output.contrastive_loss, results[0][0].contrastive_loss) and worst(gradients, results[0][1]) < 1e-9
    model = wrapped(dtype=torch.float64)
    model.eval()
    parts = [model(**collate(rows[start : start + 6])) for start in (0, 6)]
    pooled = sum(part.contrastive_loss * part.contrastive_pairs for part in parts) / 11
    assert torch.isclose(results[0][0].contrastive_loss, pooled)
    assert accumulate(wrapped(dtype=torch.float64), split(rows, 1, 0, 3))[0].contrastive_loss > pooled


def device(rank, world, folder, cases):
    "One process: its share of each case, the mean of the gradients over processes, written by the first."
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    results = []
    for pooling, settings, count, size, cached in cases:
        model, rows = wrapped(pooling, **settings), translations(count)
        micro_batches = split(rows, world, rank, size)
        if cached:
            output, gradients = accumulate(model, micro_batches)
        else:
            output, gradients = gradients_of_a_gathered_batch(model, micro_batches[0])
        loss = output.contrastive_loss.detach().clone()
        for value in (*gradients.values(), loss):
            torch.distributed.all_reduce(value)
            value /= world
        results.append((loss, gradients))
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    torch.distributed.barrier()
    os._exit(0)  # leaving one by one can hang in gloo


def gradients_of_a_gathered_batch(model, rows):
    model.zero_grad()
    output = model(**collate(mirrored(rows) if model.alignment.pooling == "mirror" else rows))
    output.contrastive_loss.backward()
    return output, {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def cases(world):
    "Poolings and settings, with micro-batches of three: cached over several, and gathered in one; the last batch is ragged."
    several = [(pooling, settings, 6 * world + 3 * world - 2, 3, True) for pooling, settings in (("row", {}), ("mirror", {"bidirectional": True}), ("alone", {"learn_temperature": True}), ("row", {"contrastive_batch": 3 * world}), ("row", {"normalization": "center"}))]
    return several + [("row", {}, 3 * world - 2, 3, False), ("alone", {"bidirectional": True, "normalization": "center"}, 3 * world, 3, False)]


@pytest.mark.parametrize("world", [2, 4])
def test_devices_equal_one_process(world):
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(device, (world, folder, cases(world)), nprocs=world)
        results = torch.load(Path(folder) / "results.pt")
    for (loss, gradients), (pooling, settings, count, _, _) in zip(results, cases(world), strict=True):
        expected_loss, expected = gradients_of_one_batch(wrapped(pooling, **settings), translations(count))
        assert torch.isclose(loss, expected_loss, atol=1e-5), (pooling, settings)
        assert worst(gradients, expected) < 1e-5, (pooling, settings)


def test_the_naive_ways_are_wrong():
    "What the tests above exclude: neither accumulation nor devices add negatives by themselves."
    model, rows = wrapped(dtype=torch.float64), translations(12)
    _, expected = gradients_of_one_batch(model, rows)
    model.zero_grad()
    for part in split(rows, 1, 0, 3):
        (model(**collate(part)).contrastive_loss / 4).backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert worst(found, expected) > 1e-2


def test_nothing_usable_is_no_loss():
    pairs = PairEmbeddings(torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True), torch.zeros(3, dtype=torch.bool), torch.zeros(3, 2, dtype=torch.long))
    values = competing_loss(all_pairs(pairs, [3]))
    values["contrastive_loss"].backward()
    assert values["contrastive_loss"] == 0 and not pairs.source.grad.any() and values["retrieval_accuracy"].isnan() and values["contrastive_pairs"] == 0


def test_the_matrix_is_never_held_whole():
    "The largest tensor of a search over 3,000 pairs stays near the block."
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for each in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(each, torch.Tensor):
                    Largest.size = max(Largest.size, each.numel())
            return out

    x, y = (torch.randn(3000, 8, requires_grad=True) for _ in range(2))
    with Largest():
        contrastive_loss(x, y, keys=torch.arange(3000)).backward()
    assert Largest.size <= 2**22 < 3000**2


def test_whitening_equals_the_explicit_matrix():
    torch.manual_seed(0)
    for count in (8, 40):
        source, target = (torch.randn(count, 12, dtype=torch.float64) + 3 for _ in range(2))
        both = torch.cat([source, target])
        centred = both - both.mean(0)
        from sklearn.covariance import LedoitWolf

        covariance = torch.tensor(LedoitWolf(assume_centered=True).fit(centred.numpy()).covariance_)
        values, vectors = torch.linalg.eigh(covariance)
        expected = centred @ vectors @ torch.diag(values.rsqrt()) @ vectors.T
        assert torch.allclose(torch.cat(normalize_batch(source, target, "whiten")), expected, atol=1e-8)


def test_alike_sentences_can_be_whitened():
    same = torch.ones(4, 6)
    assert all(torch.cat(normalize_batch(same, same, how)).isfinite().all() for how in ("center", "whiten"))
    with pytest.raises(UsageError, match="center"):
        normalize_batch(same, same, "centered")
