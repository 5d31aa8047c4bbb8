import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.align.contrastive import contrastive_loss, cosine_matrix, duplicates, embedding_spread, in_batch_accuracy
from alignx.errors import InputError, UsageError


def reference(source, target, temperature, keys=None, bidirectional=False):
    "The formula, term by term, in Python's order of summation."
    def one_way(a, b):
        total = 0.0
        for i in range(len(a)):
            score = [(a[i] @ b[j]) / (a[i].norm() * b[j].norm()) / temperature for j in range(len(b))]
            rivals = [j for j in range(len(b)) if j == i or keys is None or not set(keys[i].tolist()) & set(keys[j].tolist())]
            total = total - score[i] + torch.log(sum(torch.exp(score[j]) for j in rivals))
        return total / len(a)
    return (one_way(source, target) + one_way(target, source)) / 2 if bidirectional else one_way(source, target)


@given(st.integers(1, 7), st.integers(2, 9), st.sampled_from([0.05, 0.1, 1.0]), st.booleans(), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_loss_and_gradient_equal_the_formula(count, width, temperature, bidirectional, keyed, seed):
    torch.manual_seed(seed)
    inputs = [torch.randn(count, width, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    keys = torch.randint(0, 6, (count, 2)) if keyed else None
    ours = contrastive_loss(*inputs, temperature, bidirectional=bidirectional, keys=keys)
    naive = reference(*inputs, temperature, keys, bidirectional)
    assert torch.allclose(ours, naive, atol=1e-10)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(naive, inputs)):
        assert torch.allclose(a, b, atol=1e-9)


def test_chance_is_log_of_the_batch_and_scale_does_not_matter():
    x, y = torch.ones(8, 4), torch.ones(8, 4)
    assert math.isclose(contrastive_loss(x, y), math.log(8), rel_tol=1e-6)
    a, b = torch.randn(5, 6), torch.randn(5, 6)
    assert torch.allclose(contrastive_loss(a, b), contrastive_loss(7 * a, 0.1 * b), atol=1e-5)


def test_the_gradient_is_the_softmax_minus_one_on_the_diagonal():
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    cosines = cosine_matrix(x, y).requires_grad_()
    loss = torch.nn.functional.cross_entropy(cosines / 0.2, torch.arange(6))
    expected = ((cosines / 0.2).softmax(1) - torch.eye(6)) / (6 * 0.2)
    assert torch.allclose(torch.autograd.grad(loss, cosines)[0], expected)


def test_all_duplicates_cost_nothing():
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    assert contrastive_loss(x, y, keys=torch.zeros(4, dtype=torch.long)).abs() < 1e-6


def test_nothing_and_one_have_a_gradient_of_zero():
    for count in (0, 1):
        x, y = torch.randn(count, 3, requires_grad=True), torch.randn(count, 3, requires_grad=True)
        loss = contrastive_loss(x, y)
        loss.backward()
        assert loss.abs() < 1e-6 and x.grad is not None and not x.grad.abs().gt(1e-6).any()


def test_reduced_precision_does_not_reach_the_cosines():
    x, y = torch.randn(32, 64), torch.randn(32, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(contrastive_loss(x, y), contrastive_loss(x, y).float())
        mixed = contrastive_loss(x, y)
    assert torch.equal(mixed, contrastive_loss(x, y))
    assert contrastive_loss(x.bfloat16(), y.bfloat16()).dtype == torch.float32


def test_bad_requests():
    with pytest.raises(UsageError, match="temperature"):
        contrastive_loss(torch.ones(2, 2), torch.ones(2, 2), temperature=-1)
    with pytest.raises(InputError, match="one target"):
        contrastive_loss(torch.ones(2, 2), torch.ones(3, 2))


def test_accuracy_counts_strict_winners_and_skips_duplicates():
    x = torch.eye(4)
    assert in_batch_accuracy(x, x) == 1
    assert in_batch_accuracy(x, x.roll(1, 0)) == 0
    twice = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])
    assert in_batch_accuracy(twice, twice) == pytest.approx(1 / 3)
    assert in_batch_accuracy(twice, twice, keys=torch.tensor([1, 1, 2])) == 1
    assert in_batch_accuracy(x[:1], x[:1]).isnan() and in_batch_accuracy(x[:0], x[:0]).isnan()


def test_duplicates_are_symmetric_and_off_the_diagonal():
    keys = torch.randint(0, 4, (9, 2))
    found = duplicates(keys)
    assert torch.equal(found, found.T) and not found.diagonal().any()


def test_spread():
    assert embedding_spread(torch.tensor([[1.0, 0], [-1.0, 0]])) == pytest.approx(2)
    assert embedding_spread(torch.ones(1, 3)).isnan()
