"""Packed rows are padded rows without the padding: same losses, same gradients; and models that mix rows are found out."""
from copy import deepcopy

import pytest
import torch
from datasets import Dataset

from align_batches import CONFIGS, bare, collate, row, rows, tiny
from alignx.align.language_model import capture_states
from alignx.align.model import AlignmentConfig, AlignmentModel
from alignx.align.packing import check_packing, packed_rows, packing_errors
from alignx.align.trainer import AlignmentArguments, AlignmentTrainer
from alignx.errors import UsageError
from alignx.tune.trainer import InstructionTrainer, TuneArguments
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, MistralConfig, XLMRobertaConfig

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 48, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 64}
GOOD, BAD = ("llama", "mistral", "qwen3", "gemma3", "gpt2"), ("bloom", "xglm", "bert", "xlm-r")
COMMON = {"per_device_train_batch_size": 4, "max_steps": 2, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False, "seed": 3}


def model(name):
    "A tiny model; Mistral and Gemma with windows that are shorter than the rows."
    torch.manual_seed(0)
    if name == "mistral":
        return AutoModelForCausalLM.from_config(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=4)).eval()
    if name in ("bert", "xlm-r"):
        return AutoModelForMaskedLM.from_config({"bert": BertConfig, "xlm-r": XLMRobertaConfig}[name](**SMALL)).eval()
    return tiny(name)


def mixed():
    "Rows of very different lengths, one of them no translation."
    return [row(12, 9, seed=1), row(1, 1, seed=2), bare(7, seed=3), row(5, 14, seed=4), row(3, 0, seed=5), row(2, 6, 10, 12, seed=6)]


def mirrored():
    return [one for i in range(3) for one in (row(2 + 3 * i, 9, 10, 11, seed=i), row(3, 4 + i, 11, 10, seed=50 + i))]


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("side", ["left", "right"])
def test_states_and_logits_are_those_of_rows_read_alone(name, side):
    lm, batch = model(name).double(), collate(mixed(), side)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad(), packed_rows(lm) as packed, capture_states(lm, 2) as states:
        logits = lm(**inputs).logits
        middle = packed.unpack(states["layer"])
        assert states["layer"].shape[:2] == (1, inputs["attention_mask"].sum())
    with torch.no_grad():
        for i, one in enumerate(mixed()):
            with capture_states(lm, 2) as alone:
                expected = lm(torch.tensor([one["input_ids"]])).logits[0]
            real = batch["attention_mask"][i].bool()
            assert torch.allclose(logits[i][real], expected, atol=1e-12)
            assert torch.allclose(middle[i][real], alone["layer"][0], atol=1e-12)
            assert not middle[i][~real].any()


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3", "gemma3"])
@pytest.mark.parametrize("pooling", ["row", "mirror", "alone"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_losses_and_gradients_are_those_of_padded_rows(name, pooling, side):
    batch, found = collate(mirrored() if pooling == "mirror" else mixed(), side), []
    for packing in (False, True):
        torch.manual_seed(1)
        wrapper = AlignmentModel(model(name), AlignmentConfig(layer=2, pooling=pooling, language_matching_size=8, distillation=0.3, packing=packing)).double().train()
        wrapper._before[0].double()
        output = wrapper(**batch)
        output.loss.backward()
        found.append((output, {key: weight.grad for key, weight in wrapper.named_parameters()}))
    (padded, expected), (packed, gradients) = found
    rounds = side == "left" or name == "gemma3"  # angles of positions and norms are float32 in any model
    for key in ("lm_loss", "contrastive_loss", "language_matching_loss"):
        assert torch.allclose(packed[key], padded[key], atol=1e-6 if rounds else 1e-12, rtol=0), key
    assert packed.contrastive_pairs == padded.contrastive_pairs > 1
    assert all(torch.allclose(gradients[key], expected[key], atol=1e-5 if rounds else 1e-12, rtol=0) for key in expected)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_every_layer(layer):
    batch, found = collate(mixed()), []
    for packing in (False, True):
        wrapper = AlignmentModel(model("llama").double(), AlignmentConfig(layer=layer, objectives="contrastive", packing=packing))
        pairs = wrapper(**batch, embed_only=True)
        found.append([wrapper(**batch).contrastive_loss, pairs.source, pairs.target])
    assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_models_that_keep_rows_apart_are_let_through(name, dtype):
    lm = model(name).to(dtype).train()
    check_packing(lm)
    assert lm.training and packing_errors(lm.eval())[0] < 0.01


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_that_mix_rows_are_refused(name, dtype):
    with pytest.raises(UsageError, match="packing: .*leave it out"):
        check_packing(model(name).to(dtype))


def test_a_model_that_does_not_take_positions_is_refused():
    class Deaf(type(tiny().base_model)):
        def forward(self, input_ids, attention_mask=None, use_cache=None):
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

    lm = tiny()
    lm.model.__class__ = Deaf
    with pytest.raises(UsageError, match="cannot read packed rows"):
        check_packing(lm)


def test_positions_that_start_elsewhere_are_noticed():
    class Shifted(type(tiny("gpt2").base_model)):
        def forward(self, *args, position_ids=None, **kwargs):
            return super().forward(*args, position_ids=position_ids if position_ids is None else position_ids + 2, **kwargs)

    lm = tiny("gpt2")
    lm.transformer.__class__ = Shifted
    with pytest.raises(UsageError, match="mixes rows"):
        check_packing(lm)


def align(folder, lm=None, data=None, **settings):
    args = AlignmentArguments(output_dir=str(folder), **{**COMMON, "layer": 2, "language_matching_size": 8, **settings})
    torch.manual_seed(0)
    return AlignmentTrainer(lm or tiny(), args, collate, Dataset.from_list(data or rows(8)))


def tune(folder, lm=None, data=None, **settings):
    torch.manual_seed(0)
    return InstructionTrainer(lm or tiny(), TuneArguments(output_dir=str(folder), **{**COMMON, **settings}), collate, Dataset.from_list(data or rows(8)))


@pytest.mark.parametrize("stage", [align, tune])
@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2, "activation_checkpointing": True}, {"lora_rank": 2}])
def test_a_packed_run_is_a_padded_run(tmp_path, stage, settings):
    padded, packed = (stage(tmp_path, tiny().double(), packing=packing, optim="sgd", learning_rate=0.5, max_grad_norm=0, **settings) for packing in (False, True))
    start = deepcopy(padded.model.state_dict())
    padded.train(), packed.train()
    assert all(torch.allclose(a, b, atol=2e-6) for a, b in zip(padded.model.state_dict().values(), packed.model.state_dict().values(), strict=True))
    assert any(not torch.allclose(start[key], tensor, atol=1e-3) for key, tensor in packed.model.state_dict().items())


def test_diagnostics_see_the_same(tmp_path):
    reports = []
    for packing in (False, True):
        run = align(tmp_path, packing=packing, max_steps=1, diagnostics_steps=1)
        run.train()
        reports.append({key: value for key, value in run.state.log_history[0].items() if "gradient" in key})
    assert len(reports[0]) > 3 and reports[1] == pytest.approx(reports[0], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("stage", [align, tune])
def test_trainers_refuse_a_model_that_mixes_rows(tmp_path, stage):
    with pytest.raises(UsageError, match="BloomForCausalLM mixes rows"):
        stage(tmp_path, tiny("bloom"), packing=True)


@pytest.mark.parametrize("stage", [align, tune])
def test_batches_of_similar_length(tmp_path, stage):
    padding = {}
    for strategy in ("random", "group_by_length"):
        run = stage(tmp_path, data=[row(1 + i % 16, 2, seed=i) for i in range(128)], train_sampling_strategy=strategy, max_steps=3)
        padding[strategy] = sum((batch["attention_mask"] == 0).sum().item() for batch in run.get_train_dataloader())
    assert 0 < 4 * padding["group_by_length"] < padding["random"]
    run.train()
    assert run.state.global_step == 3


def test_hooks_are_gone_afterwards():
    lm = tiny()
    with pytest.raises(RuntimeError), packed_rows(lm):
        raise RuntimeError
    assert not lm.base_model._forward_hooks and not lm.base_model._forward_pre_hooks


def test_every_architecture_has_its_answer():
    assert set(CONFIGS) <= {*GOOD, *BAD}
