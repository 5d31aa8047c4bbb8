"""Watched losses are exact and by language, looking changes nothing, and nothing that is watched is trained on."""
import json
import math

import pandas as pd
import pytest
import torch
from datasets import Dataset, load_from_disk

from align_batches import collate, tiny
from alignx import pipeline
from alignx.errors import InputError, UsageError
from alignx.recipe import make_recipe
from alignx.run_folder import Run
from alignx.tune.trainer import InstructionTrainer, TuneArguments
from alignx.tune.watching import language_losses
from test_pipeline import values
from test_tune_trainer import DATA, completion

HELD = {"en": [completion(20 + i, 2 + i % 3, 1 + i % 4) for i in range(5)], "de": [completion(40 + i, 3, 1 + i % 5) for i in range(4)], "sw": [completion(60, 2, 2)]}


def trainer(folder, held=HELD, model=None, side="right", measures=None, **settings):
    defaults = {"per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no", "per_device_eval_batch_size": 3}
    args = TuneArguments(output_dir=str(folder), report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, seed=3, **{**defaults, **settings})
    held = {name: Dataset.from_list(rows) for name, rows in held.items()} if isinstance(held, dict) else held and Dataset.from_list(held)
    return InstructionTrainer(model or tiny(), args, lambda some: collate(some, side), Dataset.from_list(DATA), held, measures=measures)


def naive_loss(model, rows):
    "Row by row and token by token, in float64."
    model, total, count = model.double().eval(), 0.0, 0
    with torch.no_grad():
        for row in rows:
            scores = model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
            for place, label in enumerate(row["labels"]):
                if label != -100 and place:
                    total, count = total - scores[place - 1, label].item(), count + 1
    return total / count


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])
def test_losses_by_language_are_those_of_a_naive_loop(tmp_path, name):
    found = trainer(tmp_path, model=tiny(name)).evaluate()
    for language, rows in HELD.items():
        assert math.isclose(found[f"eval_{language}_loss"], naive_loss(tiny(name), rows), rel_tol=1e-5)
    assert math.isclose(found["eval_loss"], naive_loss(tiny(name), [row for rows in HELD.values() for row in rows]), rel_tol=1e-5)


def test_batches_chunks_padding_order_and_packing_change_nothing(tmp_path):
    losses = lambda **settings: {key: value for key, value in trainer(tmp_path, **settings).evaluate().items() if key.endswith("loss")}
    first = losses()
    others = [{"per_device_eval_batch_size": 1}, {"per_device_eval_batch_size": 64}, {"logit_chunk": 2}, {"logit_chunk": 0}, {"side": "left"}, {"packing": True}]
    others += [{"train_sampling_strategy": "group_by_length"}, {"held": {name: HELD[name][::-1] for name in ("sw", "de", "en")}}]
    for other in others:
        assert losses(**other) == pytest.approx(first, rel=1e-5), other
    assert set(first) == {"eval_loss", "eval_en_loss", "eval_de_loss", "eval_sw_loss"}


def test_one_dataset_is_watched_as_a_whole_and_another_can_be_given(tmp_path):
    whole = [row for rows in HELD.values() for row in rows]
    run = trainer(tmp_path, held=whole)
    assert run.evaluate()["eval_loss"] == pytest.approx(naive_loss(tiny(), whole), rel=1e-5)
    again = run.evaluate({"tr": Dataset.from_list(HELD["de"])}, metric_key_prefix="late")
    assert again["late_tr_loss"] == again["late_loss"] == pytest.approx(naive_loss(tiny(), HELD["de"]), rel=1e-5)
    with pytest.raises(InputError, match="sw, row 1"):
        trainer(tmp_path, held={"sw": [HELD["sw"][0], completion(1) | {"labels": [-100] * 11}]})


def test_a_language_without_a_token_has_no_number():
    import numpy as np

    assert language_losses(np.array([2.0]), np.array([4]), {"en": 1, "de": 0}) == {"loss": 0.5, "en_loss": 0.5}


def test_a_watched_run_ends_with_the_weights_of_an_unwatched_one(tmp_path):
    runs = []
    for strategy in ("steps", "no"):
        runs.append(trainer(tmp_path / strategy, lora_rank=2, lora_dropout=0.5, eval_strategy=strategy, eval_steps=1))
        runs[-1].train()
        torch.rand(7)
    watched, unwatched = runs
    assert all(torch.equal(a, b) for a, b in zip(watched.model.state_dict().values(), unwatched.model.state_dict().values(), strict=True))
    lines = [entry for entry in watched.state.log_history if "eval_loss" in entry]
    assert [line["step"] for line in lines] == [1, 2, 3, 4] and all("eval_sw_loss" in line for line in lines), "one line an evaluation"


@pytest.mark.parametrize("metric", ["de_loss", "eval_sw_loss", "en_perplexity"])
def test_the_best_checkpoint_by_any_of_them(tmp_path, metric):
    rising = iter((5.0, 3.0, 4.0, 6.0))
    run = trainer(tmp_path, measures=lambda model: {"en_perplexity": next(rising)}, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True, metric_for_best_model=metric, learning_rate=0.1)
    run.train()
    seen = {entry["step"]: entry["eval_" + metric.removeprefix("eval_")] for entry in run.state.log_history if "eval_loss" in entry}
    assert run.state.best_global_step == min(seen, key=seen.get) and len(seen) == 4
    if metric == "de_loss":
        assert naive_loss(run.model, HELD["de"]) == pytest.approx(min(seen.values()), rel=1e-5)


def test_a_metric_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    run = trainer(tmp_path, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True, metric_for_best_model="fr_loss")
    with pytest.raises(UsageError, match="unknown metric_for_best_model 'fr_loss'"):
        run.train()


def test_watched_and_resumed_is_watched_and_uninterrupted(tmp_path):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "eval_strategy": "steps", "eval_steps": 2, "lora_rank": 2, "lora_dropout": 0.5}
    whole = trainer(tmp_path, **settings)
    whole.train()
    resumed = trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=f"{tmp_path}/checkpoint-3")
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True))
    both = [[{key: value for key, value in entry.items() if key.endswith("loss") and key != "train_loss"} for entry in run.state.log_history] for run in (whole, resumed)]
    assert both[0] == both[1]


CHANGES = {"tune.eval_strategy": "steps", "tune.eval_steps": "1", "tune.logging_steps": "1", "evaluate.validation_tuples": "12"}


def test_a_recipe_that_asks_for_it_is_watched(tmp_path):
    changes = CHANGES | {"stages": "[tune]", "tune.load_best_model_at_end": "true", "tune.metric_for_best_model": "sw_loss", "tune.save_steps": "1"}
    run = Run(make_recipe(values(tmp_path, **changes)), lambda line: None)
    pipeline.build(run), pipeline.tune(run)
    log = pd.read_parquet(tmp_path / "tables" / "tune_log.parquet")
    for name in ("loss", "en_loss", "de_loss", "sw_loss", "en_perplexity", "de_perplexity", "sw_perplexity"):
        assert log[f"eval_{name}"].dropna().between(0, 1e4, inclusive="neither").sum() == 2, name
    asked = Dataset.from_parquet(str(tmp_path / "data" / "validation_instructions.parquet"))
    assert pd.Series(asked["lang"]).value_counts().to_dict() == {"en": 12, "de": 12, "sw": 12}


def test_what_is_watched_is_not_trained_on(tmp_path):
    texts = [{"id": str(i), "text": {"en": f"sentence number {i} of them", "de": f"Satz Nummer {i} von ihnen"}, "domain": "d", "split": split} for i, split in enumerate(["train"] * 30 + ["test"] * 5 + ["validation"] * 5)]
    texts += [{**texts[-1], "id": "leak", "split": "train"}]
    asked = [{"instruction": f"What is {i}?", "input": "", "output": f"It is {i}.", "lang": "en", "split": "train" if i < 20 else "test"} for i in range(25)]
    asked += [{**asked[22], "instruction": " what IS 22?", "split": "train"}] + [{**row, "lang": "de"} for row in asked[:3] + asked[-3:]]
    for name, rows in (("corpus", texts), ("asked", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    changes = CHANGES | {"data.parallel": str(tmp_path / "corpus.jsonl"), "data.instructions": str(tmp_path / "asked.jsonl"), "languages": "[en, de]", "data.filters": "[in the evaluation rows]", "data.tune_replay": "20", "data.tune_pairs": "null", "data.pairs": "null"}
    read = {}
    for strategy in ("no", "steps"):
        run = Run(make_recipe(values(tmp_path / strategy, **changes | {"tune.eval_strategy": strategy})), lambda line: None)
        pipeline.build(run)
        tokenizer = pipeline.load_model("demo")[1]
        read[strategy] = " ".join(tokenizer.decode(ids) for ids in load_from_disk(str(run.path / "data" / "tune"))["input_ids"])
    assert "what IS 22?" in read["no"] and "what IS 22?" not in read["steps"]
    assert "sentence number 39" in read["no"] and not any(f"sentence number {i} " in read["steps"] for i in range(30, 40))
    assert "It is 19." in read["steps"] and "It is 21." not in read["steps"]


def test_instructions_that_are_trained_on_cannot_be_watched(tmp_path):
    with pytest.raises(UsageError, match="instructions_split 'train' is trained on"):
        pipeline.build(Run(make_recipe(values(tmp_path, **CHANGES | {"evaluate.instructions_split": "train"})), lambda line: None))
    run = Run(make_recipe(values(tmp_path, **CHANGES | {"evaluate.instructions_split": "null"})), lambda line: None)
    pipeline.build(run)
    assert not (tmp_path / "data" / "validation_instructions.parquet").exists() and (tmp_path / "data" / "validation.parquet").exists()
    for split in ("test", "train"):
        with pytest.raises(UsageError, match="validation_split .* with tune.eval_strategy"):
            pipeline.build(Run(make_recipe(values(tmp_path, **CHANGES | {"evaluate.validation_split": split})), lambda line: None))


def test_the_line_about_a_finished_stage_that_is_resumed_has_a_true_loss(tmp_path, monkeypatch):
    said = []
    changes = {"stages": "[tune]", "tune.save_steps": "2", "tune.logging_steps": "1"}
    run = Run(make_recipe(values(tmp_path, **changes)), said.append)
    pipeline.build(run)
    monkeypatch.setattr(pipeline, "write_folder", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pipeline.tune(run)
    monkeypatch.undo()
    pipeline.tune(run)
    log = pd.read_parquet(tmp_path / "tables" / "tune_log.parquet")
    assert f"2 steps, loss {log['loss'].dropna().iloc[-1]:.3f}" in said[-1] and "loss 0.000" not in said[-1]
