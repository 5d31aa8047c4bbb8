import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from align_batches import bare, collate, row, rows
from alignx.align.pooling import SOURCE, TARGET, alone_batch, mean_pool, pool_alone, pool_mirror, pool_row, predictor_spans, sentence_keys
from alignx.errors import InputError


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_mean_pool_is_the_mean_of_the_marked(b, t, seed):
    torch.manual_seed(seed)
    hidden, mask = torch.randn(b, t, 3, dtype=torch.float64), torch.rand(b, t) < 0.5
    pooled = mean_pool(hidden, mask)
    for i in range(b):
        chosen = [hidden[i, j] for j in range(t) if mask[i, j]]
        expected = sum(chosen) / len(chosen) if chosen else torch.zeros(3, dtype=torch.float64)
        assert torch.allclose(pooled[i], expected)


def test_mean_pool_gradient_reaches_only_the_marked_and_survives_an_empty_mask():
    hidden = torch.randn(2, 3, 4, requires_grad=True)
    mean_pool(hidden, torch.tensor([[1, 0, 1], [0, 0, 0]])).sum().backward()
    assert torch.equal(hidden.grad[0], torch.tensor([0.5, 0, 0.5])[:, None].expand(3, 4)) and not hidden.grad[1].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_predictor_spans_follow_the_tokens_on_both_padding_sides(side):
    batch = collate([row(2, 3), row(4, 1)], side)
    marks = predictor_spans(batch["spans"], batch["attention_mask"])
    for spans, marked in zip(batch["spans"], marks):
        for number in (SOURCE, TARGET):
            assert ((spans == number).nonzero() - 1).tolist() == (marked == number).nonzero().tolist()


def test_a_last_token_in_a_span_has_its_mark_moved_not_doubled():
    spans = torch.tensor([[0, 2, 2]])
    assert predictor_spans(spans, torch.ones(1, 3)).tolist() == [[2, 2, 0]]


def test_keys_ignore_place_padding_and_neighbours():
    batch = collate([row(3, 2, seed=1), row(3, 5, seed=1), row(3, 2, seed=2)], "left")
    keys = sentence_keys(batch["input_ids"], batch["spans"] == SOURCE)
    assert keys[0] == keys[1] != keys[2]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.lists(st.integers(0, 5), min_size=1, max_size=6))
@settings(max_examples=80, deadline=None)
def test_keys_are_equal_only_for_equal_sequences(a, b):
    one, other = (sentence_keys(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool)) for ids in (a, b))
    assert bool(one == other) == (a == b)


def test_row_and_mirror_pair_the_right_vectors():
    batch = collate(rows(4))
    hidden = torch.randn(*batch["input_ids"].shape, 5)
    pairs = pool_row(hidden, batch["input_ids"], batch["spans"])
    assert torch.equal(pairs.target[2], mean_pool(hidden, batch["spans"] == TARGET)[2])
    mirror = pool_mirror(hidden, batch["input_ids"], batch["spans"])
    assert torch.equal(mirror.source, pairs.source[0::2]) and torch.equal(mirror.target, pairs.source[1::2])
    assert torch.equal(mirror.keys, torch.stack([pairs.keys[0::2, 0], pairs.keys[1::2, 0]], 1))
    with pytest.raises(InputError, match="mirror=True"):
        pool_mirror(hidden[:3], batch["input_ids"][:3], batch["spans"][:3])


def test_usable_needs_both_sides():
    batch = collate([row(2, 2), row(2, 0), row(0, 2), bare()])
    hidden = torch.randn(*batch["input_ids"].shape, 5)
    assert pool_row(hidden, batch["input_ids"], batch["spans"]).usable.tolist() == [True, False, False, False]
    assert pool_mirror(hidden, batch["input_ids"], batch["spans"]).usable.tolist() == [True, False]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("bos", [1, None, 7])
def test_alone_batch_cuts_each_side_out(side, bos):
    batch = collate([row(2, 3, seed=1), row(4, 0, seed=2)], side)
    ids, attended, sentence = alone_batch(batch["input_ids"], batch["attention_mask"], batch["spans"], bos)
    for number in (SOURCE, TARGET):
        for i in range(2):
            place = i + 2 * (number == TARGET)
            expected = batch["input_ids"][i][batch["spans"][i] == number]
            assert torch.equal(ids[place][sentence[place]], expected)
            read = ids[place][attended[place].bool()].tolist()
            if len(expected):
                assert read == ([1] if bos == 1 else []) + expected.tolist(), "BOS only where the rows begin with it"
    assert attended.any(1).all(), "no row of nothing but padding"


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("groups", [1, 2, 3, 50])
def test_pool_alone_does_not_depend_on_the_groups(side, groups):
    batch = collate([row(1, 9, seed=1), row(7, 2, seed=2), bare(4), row(3, 3, seed=3), row(12, 1, seed=4)], side)
    table = torch.randn(60, 8, dtype=torch.float64)
    widths = []

    def read(ids, attended):
        widths.append(ids.shape[1])
        return table[ids].cumsum(1)  # like a causal model: a state knows what came before it

    pairs = pool_alone(read, batch["input_ids"], batch["attention_mask"], batch["spans"], 1, groups)
    assert pairs.usable.tolist() == [True, True, False, True, True]
    for i in (0, 1, 3, 4):
        for vectors, number in ((pairs.source, SOURCE), (pairs.target, TARGET)):
            ids = torch.cat([torch.tensor([1]), batch["input_ids"][i][batch["spans"][i] == number]])
            assert torch.allclose(vectors[i], table[ids].cumsum(0)[1:].mean(0))
    assert groups == 1 or min(widths) < max(widths) == 13
