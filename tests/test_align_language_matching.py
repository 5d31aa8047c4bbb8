import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignx.align import language_matching
from alignx.align.language_matching import LanguageMatchingHead, language_matching_loss, pair_logits, pair_questions, rows_per_block


def by_concatenation(head, embeddings, languages, include_self=False):
    "Every pair written down, one after the other."
    gate, up = (torch.cat([pair.first.weight, pair.second.weight], 1) for pair in (head.gate_proj, head.up_proj))
    losses = []
    for i in range(len(embeddings)):
        for j in range(len(embeddings)):
            if languages[i] < 0 or languages[j] < 0 or (i == j and not include_self):
                continue
            pair = torch.cat([embeddings[i], embeddings[j]])
            logits = head.down_proj.weight @ (F.silu(gate @ pair) * (up @ pair))
            losses.append(torch.logsumexp(logits, 0) - logits[int(languages[i] == languages[j])])
    return sum(losses) / len(losses) if losses else embeddings.sum() * 0


def in_blocks(head, embeddings, languages, include_self=False, block=None):
    return language_matching_loss(head.gate_proj(embeddings), head.up_proj(embeddings), head.down_proj.weight, languages, include_self, block)


@given(st.lists(st.integers(-1, 2), min_size=1, max_size=6), st.booleans(), st.integers(1, 7), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_loss_and_all_gradients_equal_plain_concatenation(languages, include_self, block, seed):
    torch.manual_seed(seed)
    head, languages = LanguageMatchingHead(5, 4).double(), torch.tensor(languages)
    embeddings = torch.randn(len(languages), 5, dtype=torch.float64, requires_grad=True)
    wanted = [embeddings, *head.parameters()]
    ours, naive = in_blocks(head, embeddings, languages, include_self, block).loss, by_concatenation(head, embeddings, languages, include_self)
    assert torch.allclose(ours, naive, atol=1e-12)
    assert torch.equal(head(embeddings, languages, include_self).loss, in_blocks(head, embeddings, languages, include_self).loss)
    theirs = torch.autograd.grad(naive, wanted, allow_unused=True)
    for a, b in zip(torch.autograd.grad(ours, wanted), theirs):
        assert torch.allclose(a, torch.zeros_like(a) if b is None else b, atol=1e-12)


@pytest.mark.parametrize("block", [1, 3, 5, 64])
def test_gradients_equal_finite_differences(block):
    torch.manual_seed(0)
    head, embeddings = LanguageMatchingHead(3, 4).double(), torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    inputs = (embeddings, *(weight.detach().clone().requires_grad_() for weight in head.parameters()))

    def loss(embeddings, *weights):
        named = dict(zip((name for name, _ in head.named_parameters()), weights))
        gate, up = ((embeddings @ named[f"{name}.first.weight"].T, embeddings @ named[f"{name}.second.weight"].T) for name in ("gate_proj", "up_proj"))
        return language_matching_loss(gate, up, named["down_proj.weight"], torch.tensor([0, 1, -1, 0, 2]), block=block).loss

    assert torch.autograd.gradcheck(loss, inputs)


def test_a_weighted_share_of_the_loss_has_that_share_of_the_gradient():
    torch.manual_seed(0)
    head, languages = LanguageMatchingHead(6, 4).double(), torch.tensor([0, 1, 0, 2, 1])
    embeddings = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    ((head(embeddings * 2, languages).loss * 0.4 + embeddings.sum() * 3) / 8).backward()
    naive = by_concatenation(head, embeddings * 2, languages)
    expected = torch.autograd.grad((naive * 0.4 + embeddings.sum() * 3) / 8, (embeddings, *head.parameters()))
    assert all(torch.allclose(each.grad, wanted, atol=1e-12) for each, wanted in zip((embeddings, *head.parameters()), expected))


def test_numbers_beside_the_loss_equal_those_of_all_logits():
    torch.manual_seed(0)
    head, embeddings = LanguageMatchingHead(6, 4), torch.randn(9, 6)
    languages = torch.tensor([0, 1, 0, 2, -1, 1, 0, 0, -1])
    same, counted = pair_questions(languages, slice(0, 9))
    right = pair_logits(head.gate_proj(embeddings), head.up_proj(embeddings), head.down_proj.weight).argmax(-1).bool() == same
    for block in (1, 4, 9):
        output = in_blocks(head, embeddings, languages, block=block)
        assert output.pairs == 42 and torch.allclose(output.same_share, torch.tensor(14 / 42)) and torch.allclose(output.majority, torch.tensor(28 / 42))
        assert torch.allclose(output.accuracy, right[counted].float().mean())


def test_order_of_the_pair_matters_but_order_of_the_batch_does_not():
    torch.manual_seed(0)
    head, embeddings, languages = LanguageMatchingHead(6), torch.randn(5, 6), torch.tensor([0, 1, 0, 2, 1])
    logits, turned = pair_logits(head.gate_proj(embeddings), head.up_proj(embeddings), head.down_proj.weight), torch.tensor([3, 1, 4, 0, 2])
    assert not torch.allclose(logits, logits.transpose(0, 1))
    assert torch.allclose(head(embeddings[turned], languages[turned]).loss, head(embeddings, languages).loss, atol=1e-6)


def test_accuracy_is_over_counted_pairs_only():
    halves, down = (torch.full((3, 2), 1.0), torch.zeros(3, 2)), torch.tensor([[0.0, 0.0], [1.0, 1.0]])  # always "same"
    output = language_matching_loss(halves, halves, down, torch.tensor([4, 4, -1]))
    assert output.accuracy == 1 and output.majority == 1 and output.same_share == 1 and output.pairs == 2
    assert language_matching_loss(halves, halves, down, torch.tensor([4, 5, 4])).accuracy == torch.tensor(2 / 6)


@pytest.mark.parametrize("languages", [[-1, -1, -1], [-1, 3, -1], [2]])
def test_no_pair_gives_a_loss_and_gradients_of_zero(languages):
    head, embeddings = LanguageMatchingHead(6), torch.randn(len(languages), 6, requires_grad=True)
    output = head(embeddings, torch.tensor(languages))
    output.loss.backward()
    assert output.loss == 0 and output.pairs == 0
    assert all(value.isnan() for value in (output.accuracy, output.majority, output.same_share))
    assert all(each.grad is not None and not each.grad.any() for each in (embeddings, *head.parameters()))


def test_unknown_sentences_get_no_gradient():
    head, embeddings = LanguageMatchingHead(6), torch.randn(4, 6, requires_grad=True)
    head(embeddings, torch.tensor([0, -1, 1, 0])).loss.backward()
    assert not embeddings.grad[1].any() and embeddings.grad[0].any()


def test_float32_under_autocast():
    head, languages = LanguageMatchingHead(6), torch.tensor([0, 1, 1, 0])
    embeddings = torch.randn(4, 6).bfloat16().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = head(embeddings, languages).loss
    plain = head(embeddings.detach().bfloat16(), languages).loss
    assert mixed.dtype == torch.float32 and torch.equal(mixed, plain)
    mixed.backward()
    assert embeddings.grad.dtype == torch.float32 and embeddings.grad.any()


def test_no_gradient_work_without_gradients(monkeypatch):
    head, embeddings, languages = LanguageMatchingHead(6), torch.randn(4, 6), torch.tensor([0, 1, 1, 0])
    expected = head(embeddings, languages).loss
    monkeypatch.setattr(language_matching, "add_block_gradients", lambda *_: pytest.fail("gradients were computed"))
    with torch.no_grad():
        output = head(embeddings, languages)
    assert torch.equal(output.loss, expected) and not output.loss.requires_grad
    assert torch.equal(head.requires_grad_(False)(embeddings, languages).loss, expected)
    with pytest.raises(pytest.fail.Exception):
        head.requires_grad_(True)(embeddings, languages)


def test_names_of_saved_heads():
    assert list(LanguageMatchingHead(4, 3).state_dict()) == [
        "gate_proj.first.weight", "gate_proj.second.weight", "up_proj.first.weight", "up_proj.second.weight", "down_proj.weight",
    ]


class LiveBytes(TorchDispatchMode):
    "The most bytes that tensors made inside this context held at one time."

    def __init__(self):
        super().__init__()
        self.sizes, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.sizes:
                    self.sizes[key] = storage.nbytes()
                    weakref.finalize(storage, self.sizes.pop, key, None)
        self.peak = max(self.peak, sum(self.sizes.values()))
        return result


def peak(sentences, loss):
    head, embeddings = LanguageMatchingHead(8, 16), torch.randn(sentences, 8, requires_grad=True)
    with LiveBytes() as live:
        loss(head, embeddings, torch.arange(sentences) % 5).backward()
    return live.peak


def all_pairs_at_once(head, embeddings, languages):
    same, counted = pair_questions(languages, slice(0, len(languages)))
    return F.cross_entropy(pair_logits(head.gate_proj(embeddings), head.up_proj(embeddings), head.down_proj.weight)[counted], same[counted].long())


def test_memory_is_linear_in_the_number_of_sentences(monkeypatch):
    monkeypatch.setitem(language_matching.BLOCK_BYTES, "cpu", 2**15)
    ours = [peak(n, lambda head, embeddings, languages: head(embeddings, languages).loss) for n in (256, 512)]
    assert ours[1] < 2.2 * ours[0] and ours[1] < 40 * 512 * 16 * 4
    plain = [peak(n, all_pairs_at_once) for n in (256, 512)]
    assert plain[1] > 3.5 * plain[0] and plain[1] > 50 * ours[1]


def test_blocks_stay_within_their_limit_and_have_at_least_a_row():
    for sentences in (1, 7, 500, 10**5):
        half = torch.empty(sentences, 128)
        rows = rows_per_block(half)
        assert rows == 1 or rows * half.numel() * 4 <= language_matching.BLOCK_BYTES["cpu"] < (rows + 1) * half.numel() * 4
    assert rows_per_block(torch.empty(0, 128)) >= 1 and rows_per_block(torch.empty(64, 128, device="meta")) == 2**25 // (64 * 128 * 4)
