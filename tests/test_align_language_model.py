import pytest
import torch

from align_batches import CONFIGS, collate, rows, tiny
from alignx.align.language_model import (
    capture_states,
    decoder_layers,
    original_configs,
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
