import math
from copy import deepcopy

import pytest
import torch
from datasets import Dataset

from align_batches import CONFIGS, bare, collate, row, rows, tiny
from alignx.align.model import AlignmentConfig, AlignmentModel, load_alignment
from alignx.align.step import RunningMeans
from alignx.align.trainer import AlignmentArguments, AlignmentTrainer
from alignx.errors import InputError, UsageError
from transformers import AutoModelForCausalLM


def trainer(folder, data, model=None, collator=collate, eval_dataset=None, **settings):
    defaults = {"layer": 2, "language_matching_size": 8, "per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no"}
    args = AlignmentArguments(output_dir=str(folder), report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, seed=3, **{**defaults, **settings})
    torch.manual_seed(0)
    return AlignmentTrainer(model or tiny(), args, collator, Dataset.from_list(data), None if eval_dataset is None else Dataset.from_list(eval_dataset))


def with_dropout():
    config = deepcopy(CONFIGS["gpt2"])
    config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.2
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def weights(trained):
    return {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}


def test_the_seed_decides_the_first_weights_of_the_heads(tmp_path):
    "Whatever was drawn in the process before."
    def heads(seed, drawn):
        torch.manual_seed(drawn)
        args = AlignmentArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True, layer=2, language_matching_size=8, seed=seed)
        return torch.cat([weight.flatten() for weight in AlignmentTrainer(tiny(), args, collate, Dataset.from_list(rows(4))).model.heads.parameters()])

    assert torch.equal(heads(3, 1), heads(3, 2)) and not torch.equal(heads(3, 1), heads(4, 1))


@pytest.mark.parametrize("side", ["left", "right"])
def test_four_micro_batches_of_one_row_are_one_batch_of_four(tmp_path, side):
    data, found = [row(2, 9, seed=1), row(3, 1, seed=2), row(5, 2, seed=3), row(1, 4, seed=4)], []
    for size, steps in ((4, 1), (1, 4)):
        run = trainer(tmp_path, data, collator=lambda some: collate(some, side), objectives="lm", per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=2, optim="sgd", max_grad_norm=0)
        run.train()
        found.append((weights(run), run.state.log_history[0]))
    (one, log), (other, other_log) = found
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
    assert math.isclose(log["loss"], other_log["loss"], rel_tol=1e-4) and math.isclose(log["lm_loss"], other_log["lm_loss"], rel_tol=1e-4)


@pytest.mark.parametrize("pooling", ["row", "alone"])
def test_micro_batches_compete_as_one_batch(tmp_path, pooling):
    data, found = rows(8), []
    for size, steps in ((8, 1), (2, 4)):
        run = trainer(tmp_path, data, objectives="lm,contrastive", pooling=pooling, per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=2, optim="sgd", max_grad_norm=0)
        run.train()
        found.append((weights(run), run.state.log_history[0]))
    (one, log), (other, other_log) = found
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    assert all(math.isclose(log[name], other_log[name], rel_tol=1e-4) for name in ("loss", "lm_loss", "contrastive_loss", "retrieval_accuracy", "contrastive_pairs"))


@pytest.mark.parametrize("pooling", ["row", "alone"])
def test_dropout_is_the_same_in_both_passes(tmp_path, monkeypatch, pooling):
    import alignx.align.model as module

    seen, original = [], module.pair_embeddings
    monkeypatch.setattr(module, "pair_embeddings", lambda *args: seen.append(original(*args)) or seen[-1])
    run = trainer(tmp_path, rows(8), model=with_dropout(), objectives="lm,contrastive", pooling=pooling, per_device_train_batch_size=2, gradient_accumulation_steps=4, max_steps=1)
    run.train()
    assert len(seen) == 8 and all(torch.allclose(a.source, b.source, atol=1e-5) and torch.allclose(a.target, b.target, atol=1e-5) for a, b in zip(seen[:4], seen[4:]))
    again = run.model.train()(**collate(rows(2)), embed_only=True).source
    assert not torch.allclose(again, run.model(**collate(rows(2)), embed_only=True).source, atol=1e-3), "dropout is on"


def test_sizes_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UsageError, match="an optimiser step has 8 pairs"):
        trainer(tmp_path, rows(8), contrastive_batch=3, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    with pytest.raises(UsageError, match="learn_temperature"):
        trainer(tmp_path, rows(8), objectives="lm", learn_temperature=True)


def test_the_heads_have_a_rate_of_their_own_and_the_temperature_moves(tmp_path):
    run = trainer(tmp_path, rows(8), objectives="lm,contrastive", learn_temperature=True, learning_rate=1e-5, heads_learning_rate=1e-2, weight_decay=0.1, max_steps=3, optim="adamw_torch", lr_scheduler_type="constant")
    before = run.model.temperature.item()
    run.train()
    groups = {tuple(sorted({group["lr"], group["weight_decay"]})): len(group["params"]) for group in run.optimizer.param_groups if group["params"]}
    assert groups[0.0, 1e-2] == 1, "the temperature does not decay"
    assert abs(run.model.temperature.item() - before) > 1e-3


def test_a_bad_row_of_a_later_micro_batch_is_named_in_the_first_pass(tmp_path):
    data = rows(8)
    run = trainer(tmp_path, data, per_device_train_batch_size=2, gradient_accumulation_steps=4, max_steps=1, train_sampling_strategy="sequential")
    embed = run.model.lm.get_input_embeddings()
    bad = data[5]["input_ids"]

    def poison(module, args, out):
        hit = torch.tensor([ids[: len(bad)] == bad for ids in args[0].tolist()])
        return torch.where(hit[:, None, None], float("nan"), out)

    embed.register_forward_hook(poison)
    with pytest.raises(InputError, match=r"step 1, micro-batch 3 of 4: .*rows \[1\]"):
        run.train()


def test_accumulation_averages_the_alignment_losses_of_micro_batches(tmp_path):
    run = trainer(tmp_path, rows(8), contrastive_batch=4, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=1, train_sampling_strategy="sequential", optim="sgd", max_grad_norm=0, lr_scheduler_type="constant")
    before = weights(run)
    parts = [run.model(**collate(rows(8)[start : start + 4])) for start in (0, 4)]
    count = sum((collate(rows(8)[start : start + 4])["labels"][:, 1:] != -100).sum() for start in (0, 4))
    whole = run.model(**collate(rows(8)), num_items_in_batch=count).lm_loss + sum(part.alignment_loss for part in parts) / 2
    gradients = dict(zip(dict(run.model.named_parameters()), torch.autograd.grad(whole, list(run.model.parameters()))))
    run.train()
    after = weights(run)
    assert all(torch.allclose(after[name], before[name] - 1e-2 * gradient, atol=1e-6) for name, gradient in gradients.items())
    assert math.isclose(run.state.log_history[0]["loss"], whole.item(), rel_tol=1e-4)


def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(tmp_path):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    whole = trainer(tmp_path, rows(10), **settings)
    whole.train()
    resumed = trainer(tmp_path, rows(10), model=tiny(seed=9), **settings)
    resumed.train(resume_from_checkpoint=f"{tmp_path}/checkpoint-3")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(resumed).values(), strict=True))
    assert whole.state.log_history[3]["loss"] == resumed.state.log_history[3]["loss"]


def test_rows_without_a_pair_train_on(tmp_path):
    run = trainer(tmp_path, [bare(5, seed=i) for i in range(4)] + [{**row(3, 0), "target_lang": -1}], per_device_train_batch_size=5)
    run.train()
    losses = [entry["lm_loss"] for entry in run.state.log_history if "lm_loss" in entry]
    assert losses[-1] < losses[0] and all(tensor.isfinite().all() for tensor in weights(run).values())
    assert "retrieval_accuracy" not in run.state.log_history[0], "what is not defined is not logged"


def test_mirror_rows_reach_the_collator_and_other_columns_do_not(tmp_path):
    def pair(i):
        forth, back = row(2, 3, 10, 11, seed=i), row(3, 2, 11, 10, seed=90 + i)
        return forth | {f"mirror_{name}": value for name, value in back.items()} | {"id": str(i), "truncated": 0}

    def interleave(some):
        assert "id" not in some[0]
        return collate([one for each in some for one in ({k: v for k, v in each.items() if not k.startswith("mirror_")}, {k.removeprefix("mirror_"): v for k, v in each.items() if k.startswith("mirror_")})])

    run = trainer(tmp_path, [pair(i) for i in range(4)], collator=interleave, pooling="mirror", max_steps=2)
    run.train()
    assert run.state.log_history[0]["contrastive_pairs"] == 4
    with pytest.raises(UsageError, match="mirror=True"):
        trainer(tmp_path, rows(4), pooling="mirror")


def test_evaluation_reports_every_loss_and_any_may_choose_the_best(tmp_path):
    run = trainer(tmp_path, rows(8), eval_dataset=rows(6, seed=1), max_steps=3, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True, metric_for_best_model="contrastive_loss", greater_is_better=False)
    run.train()
    found = [entry["eval_contrastive_loss"] for entry in run.state.log_history if "eval_contrastive_loss" in entry]
    assert len(found) == 3 and math.isclose(run.state.best_metric, min(found))
    assert math.isclose(run.evaluate()["eval_contrastive_loss"], min(found), rel_tol=1e-6)
    entry = run.evaluate()
    assert math.isclose(entry["eval_loss"], entry["eval_lm_loss"] + 0.3 * entry["eval_contrastive_loss"] + 0.4 * entry["eval_language_matching_loss"], rel_tol=1e-4)


def test_saved_model_is_plain_whatever_the_trainer_did_to_it(tmp_path):
    run = trainer(tmp_path, rows(4), max_steps=1)
    assert not run.model.config.use_cache
    run.train()
    run.save_model()
    plain, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and plain.config.use_cache and plain.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(weights(run).values(), load_alignment(tmp_path).state_dict().values(), strict=True))
    assert not list(tmp_path.glob("*.bin"))


def test_the_rows_that_break_a_run_are_named(tmp_path):
    config = deepcopy(CONFIGS["gpt2"])
    config.tie_word_embeddings = False
    lm, data = AutoModelForCausalLM.from_config(config), rows(4)
    lm.get_input_embeddings().weight.data[7] = 1e38  # finite, but its mean is not
    for one in data:
        one["input_ids"] = [8 if token == 7 else token for token in one["input_ids"]]
    data[2]["input_ids"][4] = 7
    run = trainer(tmp_path, data, model=lm, train_sampling_strategy="sequential")
    before = weights(run)
    with pytest.raises(InputError, match=r"step 1: the loss is not finite .*rows \[2\]"):
        run.train()
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(run).items()), "stopped before the weights were touched"


def test_bf16_and_activation_checkpointing(tmp_path):
    run = trainer(tmp_path, rows(4), bf16=True, activation_checkpointing=True, max_steps=2)
    run.train()
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in weights(run).values())


def test_arguments():
    args = AlignmentArguments(output_dir="unused", objectives="contrastive", layer="2", report_to="none")
    assert args.ddp_find_unused_parameters and args.alignment_config() == AlignmentConfig(objectives=("contrastive",), layer=2)
    assert AlignmentArguments(output_dir="unused", report_to="none").label_names == ["labels"]
    args.to_json_string()


def test_a_wrapper_and_arguments_that_disagree(tmp_path):
    wrapper = AlignmentModel(tiny(), AlignmentConfig(layer=1, language_matching_size=8))
    with pytest.raises(UsageError, match="layer: the arguments say 2"):
        trainer(tmp_path, rows(4), model=wrapper)
    trainer(tmp_path, rows(4), model=wrapper, layer=1)
    with pytest.raises(UsageError, match="'spans' is missing"):
        trainer(tmp_path, [{k: v for k, v in one.items() if k != "spans"} for one in rows(2)])


def test_running_means_weigh_and_skip():
    means = RunningMeans()
    means.add({"a": torch.tensor(2.0), "b": torch.tensor(math.inf)}, 0.5)
    means.add({"a": torch.tensor(8.0)}, 1.0)
    assert means.pop() == {"a": 6.0}


@pytest.mark.parametrize("pooling", ["row", "alone"])
def test_activation_checkpointing_changes_nothing(tmp_path, pooling):
    found = []
    for checkpointing in (False, True):
        run = trainer(tmp_path, rows(8), model=with_dropout(), pooling=pooling, per_device_train_batch_size=2, gradient_accumulation_steps=4, max_steps=2, optim="sgd", max_grad_norm=0, gradient_checkpointing=checkpointing)
        run.train()
        found.append(weights(run))
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


def test_bf16_trains_float32_weights_and_float32_cosines(tmp_path):
    runs = {}
    for bf16 in (False, True):
        run = trainer(tmp_path, rows(8), bf16=bf16, per_device_train_batch_size=2, gradient_accumulation_steps=4, max_steps=3, learning_rate=1e-3, optim="sgd")
        run.train()
        assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in run.model.parameters())
        runs[bf16] = run.state.log_history[0]
    assert runs[True]["loss"] == pytest.approx(runs[False]["loss"], rel=2e-2) and runs[True]["loss"] != runs[False]["loss"]
    assert runs[True]["contrastive_loss"] == pytest.approx(runs[False]["contrastive_loss"], rel=5e-2)


def test_liger_that_is_not_there_is_said_at_once(tmp_path):
    with pytest.raises(UsageError, match="pip install liger-kernel"):
        trainer(tmp_path, rows(8), use_liger_kernel=True)
