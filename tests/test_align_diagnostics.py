"""What training tells: gradients per objective, copying, collapse, measures at evaluation."""
import logging
import math
import os
import socket
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from datasets import Dataset

from align_batches import CONFIGS, bare, collate, row, rows, tiny
from alignx.align.diagnostics import collapse, copying, copying_report, diagnose, gradient_report, new_alarms, objective_gradients, weighted_losses
from alignx.align.model import AlignmentConfig, AlignmentModel
from alignx.align.trainer import AlignmentArguments, AlignmentTrainer, check_whole
from alignx.errors import UsageError
from transformers import AutoModelForCausalLM

CONFIG = AlignmentConfig(layer=2, language_matching_size=8)


def dropping():
    "A random model with dropout."
    config = deepcopy(CONFIGS["gpt2"])
    config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.2
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).float()


def trainer(folder, data, model=None, collator=collate, eval_dataset=None, measures=None, **settings):
    defaults = {"layer": 2, "language_matching_size": 8, "per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no"}
    args = AlignmentArguments(output_dir=str(folder), report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, seed=3, **{**defaults, **settings})
    torch.manual_seed(0)
    return AlignmentTrainer(model or tiny(), args, collator, Dataset.from_list(data), None if eval_dataset is None else Dataset.from_list(eval_dataset), measures=measures)


def lines(run):
    return [entry for entry in run.state.log_history if "loss" in entry]


@pytest.mark.parametrize("pooling", ["row", "alone", "mirror"])
def test_report_is_that_of_each_objective_trained_by_itself(pooling):
    "Against whole backward passes of models with one objective, in float64, as flat vectors."
    data = rows(6)
    if pooling == "mirror":
        data = [one for each in rows(3) for one in (each, {**each, "source_lang": each["target_lang"], "target_lang": each["source_lang"]})]
    config, batch = replace(CONFIG, pooling=pooling), collate(data)
    torch.manual_seed(0)
    model = AlignmentModel(tiny(), config).double()
    flat = {}
    for name in config.objectives:
        alone = AlignmentModel(deepcopy(model.lm), replace(config, objectives=(name,)))
        if name == "language_matching":
            alone.heads["language_matching"].load_state_dict(model.heads["language_matching"].state_dict())
        alone.double()(**batch).loss.backward()
        flat[name] = torch.cat([(torch.zeros_like(each) if each.grad is None else each.grad).flatten() for each in alone.lm.parameters()])
    found = diagnose(model, batch)
    for name, vector in flat.items():
        assert math.isclose(found[f"gradient_norm_{name}"], vector.norm(), rel_tol=1e-9) and vector.norm() > 1e-6
    for one, other in (("lm", "contrastive"), ("lm", "language_matching"), ("contrastive", "language_matching")):
        expected = torch.nn.functional.cosine_similarity(flat[one], flat[other], dim=0)
        assert math.isclose(found[f"gradient_cosine_{one}_{other}"], expected, rel_tol=1e-7, abs_tol=1e-12)


def test_cosines_of_the_same_the_opposite_an_unrelated_and_no_objective():
    weights = [torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(5)), torch.nn.Parameter(torch.randn(2), requires_grad=False)]
    pull = sum(weight.square().sum() for weight in weights[:1])
    losses = {"one": pull, "twice": 2 * pull, "against": -pull, "elsewhere": weights[1].sum(), "frozen": weights[2].sum()}
    gradients = objective_gradients(losses, weights)
    assert [len(each) for each in gradients.values()] == [2] * 5 and all(weight.grad is None for weight in weights)
    found = gradient_report(gradients)
    assert math.isclose(found["gradient_cosine_one_twice"], 1, rel_tol=1e-6) and math.isclose(found["gradient_cosine_one_against"], -1, rel_tol=1e-6)
    assert found["gradient_cosine_one_elsewhere"] == 0 and math.isclose(found["gradient_norm_twice"], 2 * found["gradient_norm_one"], rel_tol=1e-6)
    assert found["gradient_norm_frozen"] == 0 and found["gradient_cosine_one_frozen"].isnan()
    assert gradient_report(objective_gradients({"one": pull}, weights[2:])) == {}, "nothing is trained"


def test_a_scale_for_half_precision_leaves_no_trace_and_devices_are_averaged():
    weight = torch.nn.Parameter(torch.randn(4))
    plain = objective_gradients({"a": weight.square().sum()}, [weight])
    scaled = objective_gradients({"a": weight.square().sum()}, [weight], reduce=lambda each: each / 2, scale=1024.0)
    assert torch.equal(scaled["a"][0], plain["a"][0] / 2)


def test_norms_and_cosines_make_up_the_gradient_that_trainer_clips(tmp_path):
    "The step's own gradient norm, dropout and all, from the report before it."
    run = trainer(tmp_path, rows(8), model=dropping(), objectives="lm,contrastive", diagnostics_steps=1, max_steps=2)
    run.train()
    for line in lines(run):
        norms = line["gradient_norm_lm"], line["gradient_norm_contrastive"]
        whole = norms[0] ** 2 + norms[1] ** 2 + 2 * norms[0] * norms[1] * line["gradient_cosine_lm_contrastive"]
        assert math.isclose(line["grad_norm"], math.sqrt(whole), rel_tol=1e-4)


@pytest.mark.parametrize("settings", [{"gradient_accumulation_steps": 2}, {"activation_checkpointing": True}, {"pooling": "alone", "bf16": True}, {"objectives": "contrastive"}, {"objectives": "lm"}, {"lora_rank": 2}])
def test_training_is_the_same_with_and_without_to_the_last_bit(tmp_path, settings):
    found = []
    for every in (0, 2):
        run = trainer(tmp_path, rows(8), model=dropping(), diagnostics_steps=every, **settings)
        run.train()
        found.append((run.model.state_dict(), lines(run)))
    (plain, plain_log), (watched, log) = found
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    assert [line["loss"] for line in plain_log] == [line["loss"] for line in log]
    names = [f"gradient_norm_{name}" for name in run.model.alignment.objectives] + ["alone_retrieval_accuracy"] * ("contrastive" in run.model.alignment.objectives)
    assert [all(name in line for name in names) for line in log] == [True, False, True, False] and not any(name in plain_log[0] for name in names)


SAME_LENGTH = [row(3, 4, 10, 11 + i % 2, seed=i) for i in range(8)]
TWO_DEVICES = {"objectives": "lm,contrastive", "max_steps": 2, "optim": "sgd", "max_grad_norm": 0, "learning_rate": 0.5, "train_sampling_strategy": "sequential", "eval_strategy": "steps", "eval_steps": 1}


def on_device(rank, port, folder):
    "One of two processes of a run with DDP, with diagnostics and without."
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    for every in (0, 1):
        run = trainer(folder, SAME_LENGTH, eval_dataset=SAME_LENGTH, measures=lambda lm: {"weight": lm.get_input_embeddings().weight.sum().item()}, **TWO_DEVICES, per_device_train_batch_size=2, diagnostics_steps=every)
        run.train()
        torch.save((run.model.state_dict(), run.state.log_history), f"{folder}/rank{rank}_{every}.pt")
    torch.distributed.barrier()
    os._exit(0)  # leaving one by one can hang in gloo


def test_two_devices_report_what_one_with_twice_the_batch_reports(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(on_device, (port, str(tmp_path)), nprocs=2)
    plain, watched, other = (torch.load(tmp_path / name) for name in ("rank0_0.pt", "rank0_1.pt", "rank1_1.pt"))
    assert all(torch.equal(plain[0][name], watched[0][name]) and torch.equal(watched[0][name], other[0][name]) for name in plain[0])
    alone = trainer(tmp_path / "alone", SAME_LENGTH, eval_dataset=SAME_LENGTH, measures=lambda lm: {}, **TWO_DEVICES, diagnostics_steps=1)
    alone.train()
    logged = [entry for entry in watched[1] if "loss" in entry]
    for line, expected in zip(logged, lines(alone), strict=True):
        for name in ("gradient_norm_lm", "gradient_norm_contrastive", "gradient_cosine_lm_contrastive"):
            assert math.isclose(line[name], expected[name], rel_tol=1e-3, abs_tol=1e-5), name
    measured = [[entry["eval_weight"] for entry in log if "eval_weight" in entry] for _, log in (watched, other)]
    assert len(measured[0]) == 2 and measured[0] == measured[1]


def test_weighted_components_add_up_and_only_those_that_are_on_are_logged(tmp_path):
    run = trainer(tmp_path, rows(8), eval_dataset=rows(4, seed=1), contrastive_weight=0.7, gradient_accumulation_steps=2, max_steps=2, eval_strategy="steps", eval_steps=2)
    run.train()
    for line, before in [(line, "") for line in lines(run)] + [(entry, "eval_") for entry in run.state.log_history if "eval_loss" in entry]:
        assert math.isclose(line[f"{before}weighted_contrastive_loss"], 0.7 * line[f"{before}contrastive_loss"], rel_tol=1e-5)
        parts = (f"{before}lm_loss", f"{before}weighted_contrastive_loss", f"{before}weighted_language_matching_loss")
        assert math.isclose(line[f"{before}loss"], sum(line[name] for name in parts), rel_tol=1e-4)
    run = trainer(tmp_path, rows(8), objectives="contrastive", max_steps=1)
    run.train()
    assert "weighted_contrastive_loss" in lines(run)[0] and "weighted_language_matching_loss" not in lines(run)[0]
    assert set(weighted_losses(replace(CONFIG, objectives=("lm",)), {"lm_loss": torch.tensor(2.0)})) == {"lm"}


@pytest.mark.parametrize("pooling", ["row", "mirror", "alone"])
def test_copying_report_compares_the_same_pairs(pooling):
    "Against texts that are built and read one by one."
    batch = collate([one for each in rows(12, seed=2) for one in (each, {**each, "spans": [{1: 2, 2: 1}.get(mark, 0) for mark in each["spans"]]})] if pooling == "mirror" else rows(6))
    model = AlignmentModel(dropping(), replace(CONFIG, pooling=pooling)).train()
    found = copying_report(model, batch)
    assert model.lm.training
    model.eval()

    def alone(row, side):
        ids = [1] + batch["input_ids"][row][batch["spans"][row] == side].tolist()
        return model.lm(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0, 1:].mean(0)

    def context(row, side):
        states = model.lm(batch["input_ids"][row : row + 1], attention_mask=batch["attention_mask"][row : row + 1], output_hidden_states=True).hidden_states[2][0]
        return states[batch["spans"][row] == side].mean(0)

    def accuracy(pairs):
        cosines = torch.nn.functional.cosine_similarity(torch.stack([a for a, _ in pairs])[:, None], torch.stack([b for _, b in pairs])[None], dim=-1)
        return (cosines.argmax(1) == torch.arange(len(pairs))).float().mean()

    numbers = range(0, len(batch["input_ids"]), 2 if pooling == "mirror" else 1)
    with torch.no_grad():
        apart = accuracy([(alone(row, 1), alone(row, 2)) for row in numbers])
        pooled = {"alone": lambda row: (alone(row, 1), alone(row, 2)), "row": lambda row: (context(row, 1), context(row, 2)), "mirror": lambda row: (context(row, 1), context(row + 1, 1))}[pooling]
        together = accuracy([pooled(row) for row in numbers])
    assert torch.isclose(found["alone_retrieval_accuracy"], apart) and torch.isclose(found["pooled_retrieval_accuracy"], together)


def test_rows_without_pairs_have_no_reading_and_break_nothing(tmp_path):
    run = trainer(tmp_path, [bare(5, seed=i) for i in range(4)], diagnostics_steps=1, max_steps=1)
    run.train()
    assert "gradient_norm_lm" in lines(run)[0] and "alone_retrieval_accuracy" not in lines(run)[0]
    assert lines(run)[0]["gradient_norm_contrastive"] == 0 and "gradient_cosine_lm_contrastive" not in lines(run)[0]


def log_of(pooled, alone):
    return [{"pooled_retrieval_accuracy": a, "alone_retrieval_accuracy": b} for a, b in zip(pooled, alone, strict=True)]


def test_copying_alarm_rings_and_stays_quiet():
    trapped = log_of((0.3, 0.7, 0.95, 0.95, 1.0), (0.3, 0.4, 0.35, 0.3, 0.4))
    assert "0.97" in copying(trapped) and "pooling='alone'" in copying(trapped)
    assert not copying(trapped[:4]), "the last three have to agree"
    assert not copying(log_of((0.3, 0.8, 0.8, 0.8, 0.8), (0.3, 0.3, 0.3, 0.3, 0.3))), "not won yet"
    assert not copying(log_of((0.3, 0.8, 0.95, 0.95, 1.0), (0.3, 0.6, 0.8, 0.8, 0.8))), "alone follows"
    assert not copying(log_of((0.97, 1.0, 0.97, 1.0), (0.95, 0.94, 0.95, 0.94))), "nearly the same from the start"
    assert copying(log_of((0.97, 1.0, 1.0), (0.2, 0.2, 0.2))), "solved before training, and nothing to learn from"
    assert not copying([]) and not copying([{"loss": 1.0}] * 5)
    assert not new_alarms([*trapped, {"loss": 1.0}], trapped[-1]), "rings once"
    assert len(new_alarms([{"loss": 2.0}, *trapped[:-1], {"eval_loss": 1.0}], trapped[-1])) == 1


def test_collapse_alarm_is_relative_and_rings_once():
    assert collapse([{"spread": 0.5}, {"spread": 0.04}]) and not collapse([{"spread": 0.5}, {"spread": 0.06}])
    assert not collapse([{"spread": 0.01}, {"spread": 0.002}]), "narrow from the start"
    assert not collapse([{"loss": 1.0}]) and not collapse([])
    history = [{"spread": 0.5}, {"spread": 0.04}]
    assert new_alarms(history[:1], history[1]) and not new_alarms(history, {"spread": 0.03})


def test_trainer_warns_once_also_after_a_resume(tmp_path, caplog):
    data, settings = rows(8), {"diagnostics_steps": 1, "save_strategy": "steps", "save_steps": 4, "objectives": "contrastive", "per_device_train_batch_size": 8}

    class Losing(AlignmentTrainer):
        def log(self, logs, *args, **kwargs):
            if "loss" in logs:
                self.means[True].sums["spread"] = torch.tensor([0.5 if self.state.global_step == 1 else 0.01, 1.0])
            super().log(logs, *args, **kwargs)

    with caplog.at_level(logging.WARNING, "alignx.align.trainer"):
        for steps, resume in ((4, None), (6, f"{tmp_path}/checkpoint-4")):
            run = trainer(tmp_path, data, **settings, max_steps=steps)
            run.__class__ = Losing
            run.train(resume_from_checkpoint=resume)
    warned = [record.getMessage() for record in caplog.records if "collapse" in record.getMessage()]
    assert len(warned) == 1 and warned[0].startswith("step 2: collapse")


def test_measures_join_the_metrics_and_choose_the_best_model(tmp_path):
    asked = []

    def measures(lm):
        asked.append((not lm.training, lm.get_input_embeddings().weight.detach().clone()))
        return {"luck": float([1, 5, 3][len(asked) - 1]) if len(asked) <= 3 else 0.0}

    run = trainer(tmp_path, rows(8), eval_dataset=rows(4, seed=1), measures=measures, max_steps=3, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True, metric_for_best_model="eval_luck", greater_is_better=True)
    run.train()
    assert [entry["eval_luck"] for entry in run.state.log_history if "eval_luck" in entry] == [1, 5, 3]
    assert run.state.best_metric == 5 and run.state.best_model_checkpoint.endswith("checkpoint-2")
    assert torch.equal(run.model.lm.get_input_embeddings().weight, asked[1][1]) and all(quiet for quiet, _ in asked)
    assert run.evaluate()["eval_luck"] == 0.0
    run.predict(Dataset.from_list(rows(4)))
    assert len(asked) == 4, "measures belong to evaluations"


def test_what_cannot_work_says_so(tmp_path):
    for wrong, measures, name in (({"diagnostics_steps": 2}, None, "diagnostics_steps"), ({}, lambda lm: {}, "measures")):
        with pytest.raises(UsageError, match=f"{name}: needs the whole model"):
            check_whole(True, AlignmentArguments(output_dir=str(tmp_path), layer=2, report_to="none", **wrong), measures)
    check_whole(True, AlignmentArguments(output_dir=str(tmp_path), layer=2, report_to="none"), None)
    with pytest.raises(UsageError, match="diagnostics_steps -1"):
        AlignmentArguments(output_dir=str(tmp_path), diagnostics_steps=-1, report_to="none")
