import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.align.language_matching import LanguageMatchingHead, language_matching_loss


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


@given(st.lists(st.integers(-1, 2), min_size=1, max_size=6), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_loss_and_all_gradients_equal_plain_concatenation(languages, include_self, seed):
    torch.manual_seed(seed)
    head, languages = LanguageMatchingHead(5, 4).double(), torch.tensor(languages)
    embeddings = torch.randn(len(languages), 5, dtype=torch.float64, requires_grad=True)
    wanted = [embeddings, *head.parameters()]
    ours, naive = head(embeddings, languages, include_self).loss, by_concatenation(head, embeddings, languages, include_self)
    assert torch.allclose(ours, naive, atol=1e-12)
    theirs = torch.autograd.grad(naive, wanted, allow_unused=True)
    for a, b in zip(torch.autograd.grad(ours, wanted), theirs):
        assert torch.allclose(a, torch.zeros_like(a) if b is None else b, atol=1e-12)


def test_order_of_the_pair_matters_but_order_of_the_batch_does_not():
    torch.manual_seed(0)
    head, embeddings, languages = LanguageMatchingHead(6), torch.randn(5, 6), torch.tensor([0, 1, 0, 2, 1])
    output, turned = head(embeddings, languages), torch.tensor([3, 1, 4, 0, 2])
    assert not torch.allclose(output.logits, output.logits.transpose(0, 1))
    assert torch.allclose(head(embeddings[turned], languages[turned]).loss, output.loss, atol=1e-6)


def test_accuracy_is_over_counted_pairs_only():
    logits = torch.zeros(3, 3, 2)
    logits[..., 1] = 1.0  # always "same"
    output = language_matching_loss(logits, torch.tensor([4, 4, -1]))
    assert output.accuracy == 1 and output.majority == 1 and output.counted.sum() == 2
    assert language_matching_loss(logits, torch.tensor([4, 5, 4])).accuracy == torch.tensor(2 / 6)


def test_unknown_sentences_get_no_gradient():
    head, embeddings = LanguageMatchingHead(6), torch.randn(4, 6, requires_grad=True)
    head(embeddings, torch.tensor([0, -1, 1, 0])).loss.backward()
    assert not embeddings.grad[1].any() and embeddings.grad[0].any()


def test_float32_under_autocast():
    head, embeddings, languages = LanguageMatchingHead(6), torch.randn(4, 6), torch.tensor([0, 1, 1, 0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = head(embeddings.bfloat16().float(), languages).loss
    assert torch.equal(mixed, head(embeddings.bfloat16(), languages).loss)
