import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from align_batches import CONFIGS, VOCAB, bare, collate, row, rows, tiny
from alignx.align.model import AlignmentConfig, AlignmentModel
from alignx.align.token_loss import (
    LearnedTokens,
    loss_in_forward,
    next_token_loss,
    output_logits,
    output_weights,
    plain_rows,
    predictable_labels,
    soft_targets,
    summed_loss,
)
from alignx.errors import UsageError
from transformers import AutoModelForCausalLM, Gemma2Config, MixtralConfig, OPTConfig


def labels_of(batch):
    return predictable_labels(batch["labels"], batch["attention_mask"])


def inputs_of(batch):
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def some_labels(count=4):
    batch = collate(rows(count))
    batch["labels"][:, 2:4] = -100
    return batch


def learned(lm, batch, labels, **settings):
    tokens = LearnedTokens(lm, **settings)
    tokens.add(lm.base_model(**inputs_of(batch))[0], batch, labels)
    return tokens


def gradients(lm, loss):
    return torch.autograd.grad(loss, list(lm.parameters()), allow_unused=True, materialize_grads=True)


@pytest.fixture
def float64():
    "XGLM's attention makes numbers of the default precision."
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Widest(TorchDispatchMode):
    "The most rows that a tensor with a column for each entry of the vocabulary ever had; weights, [V, D] and transposed, aside."

    def __init__(self, width):
        super().__init__()
        self.width, self.rows = width, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(each, torch.Tensor) and each.dim() and each.shape[-1] == VOCAB and each.shape != (self.width, VOCAB):
                self.rows = max(self.rows, each.numel() // VOCAB)
        return out


@pytest.mark.parametrize("chunk", [0, 1, 4, 1000])
@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_all_gradients_equal_those_of_whole_logits(name, chunk, float64):
    lm, batch = tiny(name).double(), some_labels()
    labels = labels_of(batch)
    body = lm.base_model
    whole = next_token_loss(lm(**inputs_of(batch)).logits, labels)
    ours = learned(lm, batch, labels, chunk=chunk).loss()
    assert ours.dtype == torch.float64 and abs(ours - whole).item() < 1e-10
    for one, other in zip(gradients(lm, ours), gradients(lm, whole)):
        assert torch.allclose(one, other, atol=1e-10, rtol=0)
    assert lm.base_model is body


@pytest.mark.parametrize("config", [
    Gemma2Config(vocab_size=VOCAB, hidden_size=32, num_attention_heads=2, num_key_value_heads=2, head_dim=16, num_hidden_layers=2, intermediate_size=48, final_logit_softcapping=2.0),
    MixtralConfig(vocab_size=VOCAB, hidden_size=32, num_attention_heads=2, num_key_value_heads=2, num_hidden_layers=2, intermediate_size=48, num_local_experts=2),
    OPTConfig(vocab_size=VOCAB, hidden_size=32, word_embed_proj_dim=32, num_attention_heads=2, num_hidden_layers=2, ffn_dim=48, max_position_embeddings=64),
], ids=lambda config: config.model_type)
def test_output_layers_of_other_kinds(config):
    torch.manual_seed(0)
    lm, batch = AutoModelForCausalLM.from_config(config).eval(), some_labels()
    whole = next_token_loss(lm(**inputs_of(batch)).logits, labels_of(batch))
    expected, ours = gradients(lm, whole), learned(lm, batch, labels_of(batch), chunk=3).loss()
    with loss_in_forward(LearnedTokens(lm, chunk=3), batch, labels_of(batch)):
        inside = lm(**inputs_of(batch)).loss
    for loss in (ours, inside):
        assert torch.allclose(loss, whole, rtol=1e-5)
        assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(gradients(lm, loss), expected))


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("chunk", [0, 1, 3])
def test_distillation_by_chunks_equals_the_formula(share, chunk):
    lm, before = tiny().double(), tiny(seed=4).double()
    batch = collate([row(2, 3, seed=1), bare(5, seed=2), row(1, 2, seed=3), bare(3, seed=4)])
    labels, total, count = labels_of(batch), 0, 0
    plain = plain_rows(batch["input_ids"], labels, batch["attention_mask"], batch["spans"])
    now, said = lm(**inputs_of(batch)).logits, before(**inputs_of(batch)).logits.detach()
    for b in range(4):
        for t in range(labels.shape[1] - 1):
            if labels[b, t + 1] != -100:
                target = torch.eye(VOCAB, dtype=torch.float64)[labels[b, t + 1]]
                target = share * said[b, t].softmax(0) + (1 - share) * target if plain[b] else target
                total, count = total - (target * now[b, t].log_softmax(0)).sum(), count + 1
    ours = learned(lm, batch, labels, before=before, share=share, chunk=chunk).loss()
    assert plain.tolist() == [False, True, False, True] and abs(ours - total / count).item() < 1e-10
    assert all(torch.allclose(*pair, atol=1e-10, rtol=0) for pair in zip(gradients(lm, ours), gradients(lm, total / count)))


@pytest.mark.parametrize("chunk", [0, 5])
def test_no_more_logits_than_a_chunk_are_ever_held(chunk):
    lm, batch = tiny(), collate([*rows(4), bare(9)])
    labels, held = labels_of(batch), Widest(32)
    tokens = learned(lm, batch, labels, chunk=chunk, before=tiny(seed=2), share=0.5)
    with held:
        tokens.loss().backward()
    assert held.rows == (chunk or max(9, (labels[:4, 1:] != -100).sum()))
    with Widest(32) as held, loss_in_forward(LearnedTokens(lm, chunk=chunk), batch, labels):
        lm(**inputs_of(batch)).loss.backward()
    assert held.rows == (chunk or (labels[:, 1:] != -100).sum())


def test_the_model_of_stage_1_holds_no_more_than_a_chunk_with_all_objectives():
    aligned = AlignmentModel(tiny("qwen3"), AlignmentConfig(layer=2, pooling="alone", logit_chunk=7))
    with Widest(32) as held:
        aligned(**collate(rows(7))).loss.backward()
    assert held.rows == 7
    with pytest.raises(UsageError, match="logit_chunk -1"):
        AlignmentConfig(logit_chunk=-1)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("chunk", [0, 2])
def test_without_labels_the_loss_and_all_gradients_are_zero(name, chunk):
    lm, batch = tiny(name), collate(rows(2))
    loss = learned(lm, batch, torch.full_like(batch["labels"], -100), chunk=chunk).loss()
    loss.backward()
    assert loss == 0 and all(weight.grad is not None and not weight.grad.any() for weight in lm.parameters()), "DDP waits for each of them"


def test_the_body_is_back_after_an_error(monkeypatch):
    lm = tiny()
    body = lm.base_model
    with pytest.raises(RuntimeError):
        output_logits(lm, torch.zeros(3, 31))
    assert lm.base_model is body
    assert [tuple(weight.shape) for weight in output_weights(lm)] == [(VOCAB, 32)] and output_weights(lm)[0] is lm.get_input_embeddings().weight


def test_frozen_weights_and_a_second_backward_pass():
    lm, batch = tiny("qwen3"), some_labels()
    lm.get_output_embeddings().weight.requires_grad_(False)
    loss = learned(lm, batch, labels_of(batch), chunk=3).loss()
    weights = [weight for weight in lm.parameters() if weight.requires_grad]
    first, second = (torch.autograd.grad(2 * loss, weights, retain_graph=True) for _ in range(2))
    expected = torch.autograd.grad(2 * learned(lm, batch, labels_of(batch), chunk=0).loss(), weights)
    assert all(torch.equal(a, b) and torch.allclose(a, c, atol=1e-6) for a, b, c in zip(first, second, expected))
    lm.requires_grad_(False)
    assert not learned(lm, batch, labels_of(batch), chunk=3).loss().requires_grad


def test_weights_that_are_elsewhere_until_the_backward_pass_are_left_to_autograd():
    weight, calls = torch.nn.Parameter(torch.ones(3)), []
    weight.ds_id = 1

    def loss(part, start):
        calls.append((len(part), start))
        return (part * weight).sum()

    summed_loss(loss, torch.ones(5, 3), [2, 2, 1], [weight]).backward()
    assert calls == [(2, 0), (2, 2), (1, 4)] and weight.grad.tolist() == [5.0] * 3


def test_bf16_autocast_takes_the_loss_in_float32_and_trains_float32_weights():
    lm, batch = tiny("qwen3"), some_labels()
    with torch.autocast("cpu", torch.bfloat16):
        found = [learned(lm, batch, labels_of(batch), chunk=chunk).loss() for chunk in (0, 3)]
    one, other = ([each.clone() for each in gradients(lm, loss)] for loss in found)
    assert found[0].dtype == found[1].dtype == torch.float32 and torch.allclose(*found, rtol=1e-4)
    assert all(a.dtype == torch.float32 and torch.allclose(a, b, atol=2e-2 * a.abs().max().item()) for a, b in zip(one, other))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_call_of_the_model_returns_the_loss(name):
    lm, batch = tiny(name), some_labels()
    with loss_in_forward(LearnedTokens(lm, chunk=3), batch, labels_of(batch), 9):
        output = lm(**inputs_of(batch))
    plain = lm(**inputs_of(batch))
    assert list(output.keys()) == ["loss"] and torch.isclose(output.loss, next_token_loss(plain.logits, labels_of(batch), 9), rtol=1e-5) and plain.loss is None
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(gradients(lm, output.loss), gradients(lm, next_token_loss(plain.logits, labels_of(batch), 9))))


@pytest.mark.parametrize("name", CONFIGS)
def test_loss_is_the_architectures_own_where_that_is_a_plain_mean(name):
    lm, batch = tiny(name), collate(rows(3))
    output = lm(**inputs_of(batch), labels=batch["labels"])
    assert torch.allclose(next_token_loss(output.logits, batch["labels"]), output.loss, atol=1e-5)


def test_loss_in_parts_adds_up_to_the_loss_of_the_whole():
    logits, labels = torch.randn(4, 6, 9, dtype=torch.float32), torch.randint(0, 9, (4, 6))
    labels[0, 2:] = -100
    count = (labels[:, 1:] != -100).sum()
    parts = sum(next_token_loss(logits[i : i + 1], labels[i : i + 1], count) for i in range(4))
    assert torch.allclose(parts, next_token_loss(logits, labels), atol=1e-6)
    picked = logits[:, :-1].log_softmax(-1).gather(2, labels[:, 1:, None].clamp(min=0))[..., 0]
    assert torch.allclose(parts, -picked[labels[:, 1:] != -100].mean(), atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_soft_targets_are_a_mixture(share):
    torch.manual_seed(3)
    before, tokens = torch.randn(5, 9).double(), torch.randint(0, 9, (5,))
    expected = torch.stack([share * before[i].softmax(0) + (1 - share) * torch.eye(9, dtype=torch.float64)[tokens[i]] for i in range(5)])
    assert torch.allclose(soft_targets(before, tokens, share), expected, atol=1e-12)


@pytest.mark.parametrize("side", ["left", "right"])
def test_plain_rows_are_those_with_every_label_and_no_span(side):
    sentence, task, masked = bare(5, seed=1), row(2, 3, seed=2), bare(4, seed=3)
    masked["labels"][:4] = [-100] * 4  # an instruction without languages: only its answer is learned
    batch = collate([sentence, task, masked, bare(2, seed=4)], side)
    assert plain_rows(batch["input_ids"], labels_of(batch), batch["attention_mask"], batch["spans"]).tolist() == [True, False, False, True]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_model_that_has_not_changed_has_nothing_to_learn_from_itself(name):
    lm, batch = tiny(name), collate([bare(5, seed=1), bare(3, seed=2)])
    learned(lm, batch, labels_of(batch), before=tiny(name), share=1.0, chunk=2).loss().backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in lm.parameters())


def test_tasks_are_learned_from_the_text_whatever_the_share():
    lm, batch = tiny(), collate(rows(3))
    labels = labels_of(batch)
    assert torch.isclose(learned(lm, batch, labels, before=tiny(seed=5), share=0.9).loss(), next_token_loss(lm(**inputs_of(batch)).logits, labels), rtol=1e-6)
