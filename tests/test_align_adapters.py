"""Adapters: what is trained, what is saved and under which name, in both stages and in every architecture."""
import json
import os
import socket
import sys
from copy import deepcopy

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file

from align_batches import CONFIGS, bare, collate, rows, tiny
from alignx.align.adapters import LoraArguments, adapted_layers, add_adapters, adapters_off, has_adapters, load_adapters, merge_adapters, merged_weights, save_adapters, save_trained
from alignx.align.language_model import original_configs
from alignx.align.model import AlignmentConfig, AlignmentModel
from alignx.align.trainer import AlignmentArguments, AlignmentTrainer
from alignx.errors import InputError, UsageError
from alignx.tune.trainer import InstructionTrainer, TuneArguments
from transformers import AutoModelForCausalLM

COMMON = {"per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False, "seed": 3}


def align(folder, data=None, lm=None, eval_dataset=None, **settings):
    args = AlignmentArguments(output_dir=str(folder), **{**COMMON, "layer": 2, "language_matching_size": 8, "lora_rank": 2, **settings})
    torch.manual_seed(0)
    return AlignmentTrainer(lm or tiny(), args, collate, Dataset.from_list(data or rows(8)), None if eval_dataset is None else Dataset.from_list(eval_dataset))


def tune(folder, lm=None, base=None, **settings):
    args = TuneArguments(output_dir=str(folder), **{**COMMON, "lora_rank": 2, **settings})
    torch.manual_seed(0)
    return InstructionTrainer(lm or tiny(), args, collate, Dataset.from_list(rows(8)), base_model=base)


def exact(name="llama"):
    "A tiny model in float64; XGLM's attention in transformers knows float32 only."
    return tiny(name) if name == "xglm" else tiny(name).double()


def adapted(name="llama", rank=3, **settings):
    "A model whose adapters are far from zero."
    lm = exact(name)
    add_adapters(lm, LoraArguments(lora_rank=rank, **settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in adapted_layers(lm).values():
            layer.lora_B["default"].weight.normal_(std=0.3)
    return lm


def logits(lm, batch=None):
    batch = batch or collate(rows(4))
    with torch.no_grad():
        return lm(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits


def read_plain(folder, **settings):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **settings)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not has_adapters(model)
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_merged_folder_is_plain_and_says_what_the_live_model_says(tmp_path, name):
    lm = adapted(name)
    before = {key: tensor.clone() for key, tensor in lm.state_dict().items()}
    plain = exact(name)
    assert not torch.allclose(logits(lm), logits(plain), atol=1e-3), "the adapters do something"
    save_trained(lm, tmp_path, original_configs(lm))
    plain.load_state_dict(read_plain(tmp_path, dtype=lm.dtype).state_dict())
    assert torch.allclose(logits(plain), logits(lm), atol=1e-5 if name == "xglm" else 1e-12, rtol=0)
    assert all(torch.equal(before[key], tensor) for key, tensor in lm.state_dict().items()), "the live model is left alone"


@pytest.mark.parametrize("name", CONFIGS)
def test_merged_weight_is_the_formula(name):
    lm, plain = adapted(name, lora_alpha=5.0), exact(name).state_dict()
    merged = merged_weights(lm)
    for where, layer in adapted_layers(lm).items():
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        change = torch.zeros(len(up), down.shape[1], dtype=up.dtype)
        for i in range(3):
            change += 5.0 / 3 * torch.outer(up[:, i], down[i]).detach()
        expected = plain[f"{where}.weight"] + (change.T if name == "gpt2" else change)
        assert torch.allclose(merged[f"{where}.weight"], expected, atol=1e-6 if name == "xglm" else 1e-14)
    changed = {key for key in plain if not torch.equal(plain[key], merged[key])}
    assert changed == {f"{where}.weight" for where in adapted_layers(lm)}


@pytest.mark.parametrize("name", CONFIGS)
def test_all_linear_layers_inside_have_an_adapter_and_no_other(name):
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    lm = adapted(name)
    inside = {where for where, layer in tiny(name).base_model.named_modules() if isinstance(layer, (nn.Linear, Conv1D))}
    assert {where.removeprefix(f"{lm.base_model_prefix}.") for where in adapted_layers(lm)} == inside and len(inside) >= 3 * 4


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_adapters_and_heads_get_gradients(tmp_path, name, checkpointing):
    run = align(tmp_path, lm=tiny(name), max_steps=1)
    if checkpointing:
        run.model.activation_checkpointing_enable()
    run.model.train()
    run.model(**collate(rows(4))).loss.backward()
    for where, weight in run.model.named_parameters():
        trained = ".lora_" in where or where.startswith("heads.")
        assert weight.requires_grad == trained and (weight.grad is not None) == trained, where
    second = [weight for where, weight in run.model.named_parameters() if ".lora_B." in where]
    assert all(weight.grad.abs().sum() > 0 for weight in second)


def test_checkpointed_gradients_are_the_same(tmp_path):
    found = []
    for checkpointing in (False, True):
        run = align(tmp_path)
        if checkpointing:
            run.model.activation_checkpointing_enable()
        run.model.train()
        run.model(**collate(rows(4))).loss.backward()
        found.append({where: weight.grad for where, weight in run.model.named_parameters() if weight.grad is not None})
    assert found[0].keys() == found[1].keys() and all(torch.allclose(found[0][key], found[1][key], atol=1e-7) for key in found[0])


@pytest.mark.parametrize("stage", [align, tune])
def test_base_stays_checkpoints_are_small_and_the_result_is_plain(tmp_path, stage):
    lm = tiny()
    before = {key: tensor.clone() for key, tensor in lm.state_dict().items()}
    run = stage(tmp_path, lm=lm, save_strategy="steps", save_steps=2)
    run.train()
    now = {key.removeprefix("lm.").replace(".base_layer.", "."): tensor for key, tensor in run.model.state_dict().items()}
    assert all(torch.equal(tensor, now[key]) for key, tensor in before.items())
    files = {path.name for path in (tmp_path / "checkpoint-4").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= files and not {"model.safetensors", "config.json"} & files
    assert ("alignment_heads.safetensors" in files) == (stage is align)
    saved = sum(tensor.numel() for tensor in load_file(tmp_path / "checkpoint-4" / "adapter_model.safetensors").values())
    trained = sum(weight.numel() for where, weight in run.model.named_parameters() if ".lora_" in where)
    assert saved == trained < 0.2 * tiny().num_parameters()
    run.save_model(str(tmp_path / "result"))
    language_model = run.model.lm if stage is align else run.model
    plain = read_plain(tmp_path / "result")
    assert torch.allclose(logits(plain), logits(language_model.eval()), atol=1e-5) and plain.config.use_cache and plain.dtype == torch.float32
    assert not torch.allclose(logits(plain), logits(tiny()), atol=1e-3), "something was learned"
    assert not (tmp_path / "result" / "adapter_config.json").exists()
    by_peft = PeftModel.from_pretrained(tiny(), tmp_path / "checkpoint-4")
    assert torch.equal(logits(by_peft), logits(language_model))


@pytest.mark.parametrize("stage", [align, tune])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(tmp_path, stage):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "lora_dropout": 0.2}
    whole = stage(tmp_path, **settings)
    whole.train()
    resumed = stage(tmp_path, **settings)
    generator = torch.Generator().manual_seed(9)
    for weight in resumed.model.parameters():
        if weight.requires_grad:
            weight.data.normal_(generator=generator)
    resumed.train(resume_from_checkpoint=f"{tmp_path}/checkpoint-3")
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True))
    assert whole.state.log_history[3]["loss"] == resumed.state.log_history[3]["loss"]


def test_the_best_checkpoint_is_loaded(tmp_path):
    run = align(tmp_path, eval_dataset=rows(6, seed=1), max_steps=3, learning_rate=0.3, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True, metric_for_best_model="lm_loss", greater_is_better=False)
    run.train()
    found = [entry["eval_lm_loss"] for entry in run.state.log_history if "eval_lm_loss" in entry]
    assert run.evaluate()["eval_lm_loss"] == pytest.approx(min(found), rel=1e-6) and max(found) > min(found)


def test_accumulated_micro_batches_are_one_batch(tmp_path):
    found = []
    for size, steps in ((4, 1), (1, 4)):
        run = align(tmp_path, rows(4), objectives="lm", per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=2, optim="sgd", max_grad_norm=0, learning_rate=1.0)
        run.train()
        found.append(run.model.state_dict())
    assert all(torch.allclose(found[0][key], found[1][key], atol=1e-6) for key in found[0])


def on_device(rank, port, folder):
    "One of two processes of a run with DDP."
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    run = align(folder, rows(8), **TWO_DEVICES, per_device_train_batch_size=2, save_strategy="steps", save_steps=1)
    run.train()
    run.save_model(f"{folder}/result")
    torch.save(run.model.state_dict(), f"{folder}/rank{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)  # leaving one by one can hang in gloo


TWO_DEVICES = {"max_steps": 2, "optim": "sgd", "max_grad_norm": 0, "learning_rate": 0.5, "objectives": "lm,contrastive", "train_sampling_strategy": "sequential"}


def test_two_devices_are_one_with_twice_the_batch(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(on_device, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    alone = align(tmp_path / "alone", rows(8), **TWO_DEVICES, per_device_train_batch_size=4)
    start = {key: tensor.clone() for key, tensor in alone.model.state_dict().items()}
    alone.train()
    for key, tensor in alone.model.state_dict().items():
        assert torch.equal(first[key], second[key]) and torch.allclose(first[key], tensor, atol=2e-6), key
    assert any(not torch.allclose(start[key], tensor, atol=1e-4) for key, tensor in first.items())
    read_plain(tmp_path / "result")
    assert (tmp_path / "checkpoint-2" / "adapter_model.safetensors").exists() and not (tmp_path / "checkpoint-2" / "model.safetensors").exists()


def test_rank_zero_changes_nothing(tmp_path):
    lm = tiny()
    names = [(where, weight.requires_grad) for where, weight in lm.named_parameters()]
    add_adapters(lm, LoraArguments())
    assert [(where, weight.requires_grad) for where, weight in lm.named_parameters()] == names and not has_adapters(lm)
    run = align(tmp_path, lm=lm, lora_rank=0, save_strategy="steps", save_steps=4)
    run.train()
    assert (tmp_path / "checkpoint-4" / "model.safetensors").exists()


def test_bf16_weights_keep_their_type(tmp_path):
    run = align(tmp_path, lm=tiny().bfloat16(), bf16=True, max_steps=2)
    run.train()
    run.save_model()
    assert {tensor.dtype for where, tensor in run.model.named_parameters() if ".lora_" in where} == {torch.float32}
    assert read_plain(tmp_path).dtype == torch.bfloat16


def test_distillation_asks_the_model_without_its_adapters():
    batch = collate([*rows(2), bare(5), bare(6, seed=1)])
    lm = tiny("gpt2").double()
    lm.config.resid_pdrop = 0.5
    with_copy = AlignmentModel(lm, AlignmentConfig(layer=2, distillation=0.7, objectives="lm"))
    add_adapters(with_copy.lm, LoraArguments(lora_rank=2))
    without = AlignmentModel(adapted("gpt2", rank=2), AlignmentConfig(layer=2, distillation=0.7, objectives="lm"))
    with_copy.lm.load_state_dict(without.lm.state_dict())
    without.train()
    assert torch.allclose(with_copy(**batch).loss, without(**batch).loss, atol=1e-12)
    assert without.lm.training and all(layer.scaling["default"] == 2.0 for layer in adapted_layers(without.lm).values())
    with adapters_off(without.lm) as before:
        assert torch.equal(logits(before), logits(tiny("gpt2").double()))


def test_adapters_are_merged_in_place():
    lm = adapted("gpt2")
    live = logits(lm)
    merge_adapters(lm)
    assert not has_adapters(lm) and torch.allclose(logits(lm), live, atol=1e-12) and list(lm.state_dict()) == list(tiny("gpt2").state_dict())
    assert lm.lm_head.weight is lm.transformer.wte.weight, "still tied"


def test_the_base_share_of_a_run_with_adapters(tmp_path):
    plain, mixed = tune(tmp_path / "plain"), tune(tmp_path / "mixed", base=tiny(), base_share=0.25)
    plain.train(), mixed.train()
    expected = {key: 0.75 * tensor + 0.25 * tiny().state_dict()[key] for key, tensor in merged_weights(plain.model).items()}
    assert all(torch.allclose(expected[key], tensor, atol=1e-6) for key, tensor in mixed.model.state_dict().items())
    mixed.save_model()
    read_plain(tmp_path / "mixed")


def test_checkpoints_of_other_settings_are_refused(tmp_path):
    run = align(tmp_path, save_strategy="steps", save_steps=2, max_steps=2)
    run.train()
    for settings, said in (({"lora_rank": 4}, "do not fit"), ({"lora_alpha": 1.0}, "do not fit"), ({"lora_targets": "q_proj"}, "do not fit"), ({"lora_rank": 0}, "resume with lora_rank")):
        with pytest.raises(InputError, match=said):
            align(tmp_path, max_steps=3, **settings).train(resume_from_checkpoint=f"{tmp_path}/checkpoint-2")
    save_trained(tiny(), tmp_path / "whole", original_configs(tiny()))
    with pytest.raises(InputError, match="no adapter_model.safetensors"):
        load_adapters(adapted(), tmp_path / "whole")


def test_targets_by_name(tmp_path):
    lm = adapted(lora_targets="q_proj, v_proj")
    assert {where.rsplit(".", 1)[-1] for where in adapted_layers(lm)} == {"q_proj", "v_proj"} and len(adapted_layers(lm)) == 6
    save_adapters(lm, tmp_path)
    assert set(json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]) == {"q_proj", "v_proj"}


def test_bad_settings_are_refused(tmp_path, monkeypatch):
    for wrong, said in (({"lora_rank": 2.5}, "whole number"), ({"lora_rank": 2, "lora_targets": ""}, "at least one"), ({"lora_targets": "q_proj"}, "nothing reads it"), ({"lora_rank": 2, "lora_alpha": 0}, "above 0"), ({"lora_rank": 2, "lora_dropout": 1}, "below 1")):
        with pytest.raises(UsageError, match=said):
            TuneArguments(output_dir="unused", report_to="none", **wrong)
    with pytest.raises(UsageError, match="did you mean 'q_proj'"):
        align(tmp_path, lora_targets="q_prj")
    with pytest.raises(UsageError, match="embeddings are frozen"):
        align(tmp_path, layer=0)
    with pytest.raises(UsageError, match="has adapters already"):
        align(tmp_path, lm=adapted())
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"pip install 'alignx\[peft\]'"):
        align(tmp_path)
    align(tmp_path, lora_rank=0)


def test_a_recipe_with_adapters_ends_with_plain_folders(tmp_path):
    from alignx import pipeline
    from alignx.recipe import make_recipe
    from alignx.run_folder import Run

    common = {"max_steps": 2, "save_steps": 1, "lora_rank": 8, "learning_rate": 1e-3, "report_to": "none"}
    values = {
        "languages": ["en", "de"],
        "output_dir": str(tmp_path),
        "data": {"template": "plain", "max_length": 64, "max_characters": 40, "pairs": 24, "tune_pairs": 8},
        "align": {"layer": 2, "pooling": "row", "per_device_train_batch_size": 8, "bf16": True, "use_cpu": True, **common},
        "tune": {"per_device_train_batch_size": 4, **common},
    }
    run = Run(make_recipe(values), lambda line: None)
    pipeline.build(run), pipeline.align(run), pipeline.tune(run)
    for name, dtype in (("aligned", torch.bfloat16), ("tuned", torch.float32)):
        assert read_plain(tmp_path / name).dtype == dtype, "frozen weights are loaded as they are computed with"
        assert not (tmp_path / name / "adapter_config.json").exists() and (tmp_path / name / "tokenizer.json").exists()


def test_heads_and_wrapper_stay_as_they_were(tmp_path):
    model = AlignmentModel(tiny(), AlignmentConfig(layer=1, language_matching_size=8))
    heads = deepcopy(model.heads.state_dict())
    run = align(tmp_path, lm=model, layer=1)
    assert run.model is model and has_adapters(model) and all(torch.equal(heads[key], tensor) for key, tensor in model.heads.state_dict().items())
    run.train()
    assert not all(torch.equal(heads[key], tensor) for key, tensor in model.heads.state_dict().items())
