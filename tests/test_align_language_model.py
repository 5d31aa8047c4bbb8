import pytest
import torch

from align_batches import CONFIGS, bare, collate, row, rows, tiny
from alignx.align.language_model import (
    capture_states,
    decoder_layers,
    distilled_loss,
    next_token_loss,
    original_configs,
    plain_rows,
    predictable_labels,
    row_loss,
    save_language_model,
    states_up_to,
)
from alignx.errors import UsageError
from transformers import AutoModelForCausalLM


def count_hooks(lm):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in lm.modules())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layer_of_every_architecture(name):
    lm, batch = tiny(name), collate(rows(3), "left")
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        reported = lm(**inputs, output_hidden_states=True).hidden_states
        hooks = count_hooks(lm)  # transformers has hooks of its own
        for layer, expected in enumerate(reported):
            with capture_states(lm, layer) as states:
                lm(**inputs, use_cache=False)
            assert torch.equal(states["layer"], expected) and torch.equal(states["last"], reported[-1])
            if layer < len(reported) - 1:
                assert torch.equal(states_up_to(lm, layer, **inputs), expected)
    assert len(decoder_layers(lm)[2]) == 3
    assert count_hooks(lm) == hooks, "no hook is left behind"


@pytest.mark.parametrize("name", CONFIGS)
def test_loss_is_the_architectures_own_where_that_is_a_plain_mean(name):
    lm, batch = tiny(name), collate(rows(3))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    output = lm(**inputs)
    assert torch.allclose(next_token_loss(output.logits, batch["labels"]), output.loss, atol=1e-5)


def test_loss_in_parts_adds_up_to_the_loss_of_the_whole():
    logits, labels = torch.randn(4, 6, 9, dtype=torch.float32), torch.randint(0, 9, (4, 6))
    labels[0, 2:] = -100
    count = (labels[:, 1:] != -100).sum()
    parts = sum(next_token_loss(logits[i : i + 1], labels[i : i + 1], count) for i in range(4))
    assert torch.allclose(parts, next_token_loss(logits, labels), atol=1e-6)
    picked = logits[:, :-1].log_softmax(-1).gather(2, labels[:, 1:, None].clamp(min=0))[..., 0]
    assert torch.allclose(parts, -picked[labels[:, 1:] != -100].mean(), atol=1e-6)


def test_layers_are_put_back_after_an_error():
    lm = tiny()
    stack, hooks = decoder_layers(lm)[2], count_hooks(lm)
    with pytest.raises((ValueError, TypeError, RuntimeError, AttributeError, IndexError)):
        states_up_to(lm, 1, torch.tensor([[999]]), torch.ones(1, 1))
    assert decoder_layers(lm)[2] is stack and count_hooks(lm) == hooks


def test_a_model_without_layers_is_refused():
    lm = tiny()
    lm.config.num_hidden_layers = 9
    with pytest.raises(UsageError, match="9 layers"):
        decoder_layers(lm)


def test_configs_come_back_as_they_were(tmp_path):
    lm = tiny("gpt2")
    lm.generation_config.temperature = 0.5
    lm.generation_config.do_sample = True
    original = original_configs(lm)
    lm.config.use_cache, lm.config.pad_token_id, lm.generation_config.temperature = False, 5, 0.1
    save_language_model(lm, tmp_path, original)
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert again.config.use_cache and again.config.pad_token_id == 0 and again.generation_config.temperature == 0.5
    assert not lm.config.use_cache and lm.config.pad_token_id == 5, "the model in training keeps its own"


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_distilled_loss_and_gradient_equal_the_formula(share):
    torch.manual_seed(3)
    logits = torch.randn(3, 6, 9, requires_grad=True)
    before, labels = torch.randn(3, 6, 9), torch.randint(0, 9, (3, 6))
    labels[0, 2:4] = labels[2, 1:] = -100
    total = torch.zeros((), dtype=torch.float64)
    for b in range(3):
        for t in range(5):
            if labels[b, t + 1] != -100:
                said, now = before[b, t].double().softmax(0), logits[b, t].double().log_softmax(0)
                target = share * said + (1 - share) * torch.eye(9, dtype=torch.float64)[labels[b, t + 1]]
                total = total - (target * now).sum() / 7
    ours = distilled_loss(logits, before, labels, share, 7)
    assert torch.allclose(ours.double(), total, atol=1e-6)
    assert torch.allclose(*(torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, total)), atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_plain_rows_are_those_with_every_label_and_no_span(side):
    sentence, task, masked = bare(5, seed=1), row(2, 3, seed=2), bare(4, seed=3)
    masked["labels"][:4] = [-100] * 4  # an instruction without languages: only its answer is learned
    batch = collate([sentence, task, masked, bare(2, seed=4)], side)
    labels = predictable_labels(batch["labels"], batch["attention_mask"])
    assert plain_rows(batch["input_ids"], labels, batch["attention_mask"], batch["spans"]).tolist() == [True, False, False, True]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_model_that_has_not_changed_has_nothing_to_learn_from_itself(name):
    lm = tiny(name)
    batch = collate([bare(5, seed=1), bare(3, seed=2)])
    labels = predictable_labels(batch["labels"], batch["attention_mask"])
    logits = lm(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    row_loss(logits, batch, labels, before=tiny(name), share=1.0).backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in lm.parameters())


def test_tasks_are_learned_from_the_text_whatever_the_share():
    lm, batch = tiny(), collate(rows(3))
    labels = predictable_labels(batch["labels"], batch["attention_mask"])
    logits = lm(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert row_loss(logits, batch, labels, before=tiny(seed=5), share=0.9) == next_token_loss(logits, labels)
