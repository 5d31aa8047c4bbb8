"""The pipeline end to end on a few sentences, what is skipped, what goes on after an interruption, and exit codes."""
import json
import subprocess
import sys

import pandas as pd
import pytest

from alignx import pipeline, results
from alignx.cli import main
from alignx.errors import InputError, UsageError
from alignx.recipe import load_recipe, make_recipe, override
from alignx.run_measures import model_names
from alignx.run_folder import Run, describe_source, fingerprint, write_folder, write_text


def values(folder, **changes):
    "A run so small that it takes seconds."
    return override(
        {
            "languages": ["en", "de", "sw"],
            "output_dir": str(folder),
            "data": {"template": "plain", "max_length": 64, "max_characters": 40, "pairs": 48, "tune_pairs": 8},
            "align": {"layer": 2, "pooling": "mirror", "max_steps": 4, "per_device_train_batch_size": 8, "save_steps": 2, "report_to": "none"},
            "tune": {"max_steps": 2, "per_device_train_batch_size": 4, "report_to": "none"},
            "evaluate": {"tuples": 20, "explorer_tuples": 5},
        },
        changes,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "A whole run, and the lines that it said."
    said = []
    run = Run(make_recipe(values(tmp_path_factory.mktemp("run"))), said.append)
    for step in (pipeline.build, pipeline.align, pipeline.tune, pipeline.evaluate, results.explore):
        step(run)
    return run, said


def test_run_folder_holds_what_the_design_names(finished):
    run, _ = finished
    names = {p.name for p in run.path.iterdir()}
    assert {"data", "aligned", "tuned", "metrics.json", "tables", "figures", "report.html", "explorer.html", "recipe.yaml", "environment.json"} <= names
    assert not list((run.path / "checkpoints").rglob("*.safetensors"))


def test_the_explorer_of_a_run_can_be_opened_again(finished):
    from alignx.explore import LayerExplorer

    explorer = LayerExplorer(finished[0].path)
    shown = pd.read_parquet(finished[0].path / "data" / "test.parquet")
    explorer.selection = list(range(explorer.data["count"]))
    table = explorer.selected_df()
    assert explorer.models_shown == ["base", "aligned", "tuned"] and set(table["language"]) == {"en", "de", "sw"}
    for row in table[table["language"] != "en"].itertuples():
        assert row.text in set(shown[(shown["id"] == row.id) & (shown["target_lang"] == row.language)]["target"])


def test_metrics_have_the_agreed_keys(finished):
    metrics = json.loads((finished[0].path / "metrics.json").read_text())
    assert set(metrics) >= {"languages", "pivot", "layer", "models", "seconds", "seed", "version"}
    assert list(metrics["models"]) == ["base", "aligned", "tuned"]
    for model in metrics["models"].values():
        assert set(model) >= {"retrieval_top1", "retrieval_top1_mean", "mexa_mean", "margin_mean", "perplexity"}
        assert set(model["retrieval_top1"]) == {"de", "sw"} and set(model["retrieval_top1"]["de"]) == {"from_pivot", "to_pivot"}


@pytest.mark.parametrize("name", ["aligned", "tuned"])
def test_saved_models_are_plain_and_generate(finished, name):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, info = AutoModelForCausalLM.from_pretrained(finished[0].path / name, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(finished[0].path / name)
    encoded = tokenizer("English to German:\ncat\n", return_tensors="pt")
    assert model.generate(encoded["input_ids"], max_new_tokens=3, do_sample=False).shape[1] > encoded["input_ids"].shape[1]
    assert model.config.use_cache


def test_second_run_does_nothing(finished):
    run, said = finished
    before = len(said)
    for step in (pipeline.build, pipeline.align, pipeline.tune, pipeline.evaluate, results.explore):
        step(run)
    assert len(said) - before == 11 and all("unchanged" in line for line in said[before:])


def test_a_change_repeats_only_what_follows_from_it(finished):
    run, _ = finished
    said = []
    changed = Run(make_recipe(values(run.path, **{"tune.max_steps": "1"})), said.append)
    for step in (pipeline.build, pipeline.align, pipeline.tune):
        step(changed)
    assert ["unchanged" in line for line in said] == [True, True, False]
    pipeline.tune(Run(make_recipe(values(run.path)), said.append))


@pytest.mark.parametrize("change, again", [({"data.tune_pairs": "7"}, [True, False, True]), ({"data.lm_share": "0.3"}, [True, True, True]), ({"evaluate.tuples": "30"}, [True, False, False])])
def test_a_stage_is_trained_again_where_its_own_rows_have_changed(tmp_path, change, again):
    few, said = {"align.max_steps": "1", "tune.max_steps": "1"}, []
    for settings in (few, few | change):
        run = Run(make_recipe(values(tmp_path, **settings)), said.append)
        for step in (pipeline.build, pipeline.align, pipeline.tune):
            step(run)
    assert ["unchanged" not in line for line in said] == [True] * 3 + again


def test_interrupted_stage_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    import torch
    from safetensors.torch import load_file

    from alignx.align.trainer import AlignmentTrainer

    whole = Run(make_recipe(values(tmp_path / "whole")), lambda line: None)
    pipeline.build(whole), pipeline.align(whole)
    broken = Run(make_recipe(values(tmp_path / "broken")), lambda line: None)
    pipeline.build(broken)
    step, calls = AlignmentTrainer.training_step, []

    def stops(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(AlignmentTrainer, "training_step", stops)
    with pytest.raises(KeyboardInterrupt):
        pipeline.align(broken)
    assert not (tmp_path / "broken" / "aligned").exists()
    monkeypatch.setattr(AlignmentTrainer, "training_step", lambda self, *a, **k: calls.append(1) or step(self, *a, **k))
    pipeline.align(broken)
    assert len(calls) == 4 + 2, "two steps were left after the checkpoint at step 2"
    a, b = (load_file(tmp_path / name / "aligned" / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_few_labels_and_replay_make_the_rows_that_the_recipe_asks_for(tmp_path):
    from datasets import load_from_disk

    changes = {"data.lm_share": "0.25", "data.replay": "12", "data.tune_replay": "6", "data.replay_pivot_share": "1.0", "align.pooling": "alone", "align.logging_steps": "1"}
    run = Run(make_recipe(values(tmp_path, **changes)), lambda line: None)
    pipeline.build(run)
    align, tune = (load_from_disk(str(tmp_path / "data" / stage)) for stage in ("align", "tune"))
    plain = [language < 0 for language in align["source_lang"]]
    labelled = [any(label != -100 for label in labels) for labels in align["labels"]]
    assert len(align) == 48 + 12 and sum(plain) == 12 and sum(labelled) == 12 + 12
    assert all(label for label, each in zip(labelled, plain) if each)
    without = Run(make_recipe(values(tmp_path / "without", **changes | {"data.tune_replay": "0"})), lambda line: None)
    pipeline.build(without)
    assert len(tune) == 6 + len(load_from_disk(str(tmp_path / "without" / "data" / "tune")))
    pipeline.align(run)
    assert "contrastive_loss" in pd.read_parquet(tmp_path / "tables" / "align_log.parquet")


def test_report_needs_no_network(finished):
    page = (finished[0].path / "report.html").read_text(encoding="utf-8")
    assert 'src="http' not in page and "<link" not in page and "data-alignx" in page


def test_tuning_alone_starts_from_the_base_model(tmp_path):
    recipe = make_recipe(values(tmp_path) | {"stages": ["tune"]})
    assert model_names(recipe) == ["base", "tuned"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["demo", "--align.temprature", "1"], 2, "'temperature'"),
        (["demo", "--data.templat", "x"], 2, "'template'"),
        (["demo", "--preset", "papper"], 2, "'paper'"),
        (["demo", "--evaluate.metrics", "[mexxa]"], 2, "'mexa'"),
        (["demo", "--languages", "[en, xq]"], 2, "xq"),
        (["demo", "--languages", "[en, en]"], 2, "two different"),
        (["demo", "--stages", "[algn]"], 2, "'align'"),
        (["demo", "--seed"], 2, ""),
        (["evaluate", "no/such-model"], 2, "no/such-model"),
        (["evaluate", "demo", "--data", "nowhere.jsonl"], 2, "nowhere.jsonl"),
        (["evaluate", "demo", "no/such"], 2, "no/such"),
        (["evaluate", "demo", "demo"], 2, "twice"),
        (["evaluate", "demo", "--translate", "-3"], 2, "translations -3"),
        (["evaluate", "demo", "--tasks", "xnlli"], 2, "xnlli"),
        (["dmo"], 2, ""),
    ],
)  # fmt: skip
def test_bad_usage_is_one_line_and_exit_code_2(words, code, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(words) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_malformed_row_is_a_failure(tmp_path, capsys):
    rows = [{"source": "cat", "target": "Katze", "source_lang": "en", "target_lang": "de"}, {"source": "dog", "source_lang": "en", "target_lang": "de"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["evaluate", "demo", "--data", str(tmp_path / "rows.jsonl"), "--languages", "en,de", "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "rows.jsonl" in error and "2" in error and "target" in error


def test_recipe_with_broken_yaml_names_the_line(tmp_path):
    (tmp_path / "r.yaml").write_text("model: demo\nlanguages: [en, de\nseed: 1\n")
    with pytest.raises(InputError, match="line"):
        load_recipe(tmp_path / "r.yaml")


def test_overrides_refuse_a_part_of_a_single_value():
    with pytest.raises(UsageError, match="single value"):
        override({"model": "demo"}, {"model.name": "x"})


def test_a_folder_that_fails_halfway_leaves_the_old_one(tmp_path):
    write_folder(tmp_path / "f", lambda new: write_text(new / "x", "old"))

    def fails(new):
        write_text(new / "x", "new")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_folder(tmp_path / "f", fails)
    assert (tmp_path / "f" / "x").read_text() == "old"


def test_fingerprint_depends_on_every_part():
    assert len({fingerprint("a"), fingerprint("b"), fingerprint("a", 1), fingerprint("a", {"x": 1})}) == 4


def test_import_is_light():
    code = "import alignx, alignx.data, alignx.align, alignx.evaluate, alignx.explore, alignx.tune, sys; print({'torch', 'transformers', 'nbdev', 'fastcore'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_a_changed_file_of_a_moses_pair_is_noticed(tmp_path):
    for language, text in (("en", "cat\n"), ("de", "Katze\n")):
        (tmp_path / f"pairs.{language}").write_text(text, encoding="utf-8")
    before = [describe_source(str(tmp_path / name)) for name in ("pairs", "pairs.en")]
    (tmp_path / "pairs.de").write_text("Kater!\n", encoding="utf-8")
    after = [describe_source(str(tmp_path / name)) for name in ("pairs", "pairs.en")]
    assert all(a != b for a, b in zip(before, after))
    assert describe_source("org/a-dataset-on-the-hub") == "org/a-dataset-on-the-hub" and describe_source(None) is None


def test_a_watched_run_looks_at_validation_rows_and_keeps_the_best_checkpoint(tmp_path):
    from datasets import Dataset

    from alignx.loading import load_model
    from alignx.evaluate.alignment import heldout_retrieval
    from alignx.explore.plots import training_losses

    changes = {"align.eval_strategy": "steps", "align.eval_steps": "2", "align.load_best_model_at_end": "true", "align.metric_for_best_model": "retrieval_layer_2", "align.greater_is_better": "true"}
    changes |= {"align.learning_rate": "0.01", "align.diagnostics_steps": "2", "align.logging_steps": "2", "evaluate.validation_tuples": "30"}
    run = Run(make_recipe(values(tmp_path, **changes)), lambda line: None)
    pipeline.build(run), pipeline.align(run)
    test, validation = (Dataset.from_parquet(str(tmp_path / "data" / f"{name}.parquet")) for name in ("test", "validation"))
    assert len(set(validation["id"])) == 30 and not set(validation["id"]) & set(test["id"])
    log = pd.read_parquet(tmp_path / "tables" / "align_log.parquet")
    measured = log.dropna(subset="eval_retrieval_layer_2").set_index("step")["eval_retrieval_layer_2"]
    assert list(measured.index) == [2, 4] and log["gradient_norm_lm"].notna().sum() == 2 and log["loss"].notna().sum() == 2
    titles = [axis.get_title("left") or axis.get_title() for axis in training_losses(log).axes]
    assert titles == ["loss", "lm loss", "contrastive loss", "language matching loss"], "a weighted loss is no panel of its own"
    model, tokenizer = load_model(str(tmp_path / "aligned"))
    assert heldout_retrieval(validation, tokenizer)(model)["retrieval_layer_2"] == measured.max(), "the model that was kept is the best one"


def test_watching_needs_rows_of_its_own_and_excludes_them_from_training(tmp_path):
    for split in ("test", "train", "null"):
        with pytest.raises(UsageError, match="validation_split"):
            pipeline.build(Run(make_recipe(values(tmp_path, **{"align.eval_strategy": "epoch", "evaluate.validation_split": split})), lambda line: None))
    texts = [{"id": str(i), "text": {"en": f"sentence number {i} of them", "de": f"Satz Nummer {i} von ihnen"}, "domain": "d", "split": split} for i, split in enumerate(["train"] * 30 + ["test"] * 5 + ["validation"] * 5)]
    texts += [{**texts[-1], "id": "leak", "split": "train"}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(each) + "\n" for each in texts), encoding="utf-8")
    kept = []
    for strategy in ("no", "steps"):
        folder = tmp_path / strategy
        changes = {"data.parallel": str(tmp_path / "corpus.jsonl"), "data.instructions": "null", "languages": "[en, de]", "align.eval_strategy": strategy, "data.filters": "[in the evaluation rows]"}
        run = Run(make_recipe(values(folder, **changes)), lambda line: None)
        pipeline.build(run)
        kept.append(json.loads((folder / "data" / "card.json").read_text())["pairs"]["kept"])
        assert (folder / "data" / "validation.parquet").is_file() == (strategy == "steps")
        assert run.recipe.align["eval_strategy"] == strategy, "YAML reads no as false"
    assert kept[0] == kept[1] + 1


@pytest.mark.parametrize("room", ["data", "align", "tune", "evaluate", "explore"])
def test_every_public_name_of_a_room_is_there(room):
    import importlib

    module = importlib.import_module(f"alignx.{room}")
    assert module.__all__ and all(getattr(module, name) is not None for name in module.__all__)


def test_a_corpus_of_pairs_is_measured_pair_by_pair(tmp_path):
    from alignx.building import test_rows as measured

    for name in ("de-en", "en-sw", "de-sw"):
        (tmp_path / name).mkdir()
        codes = name.split("-")
        rows = [{"translation": {code: f"{code} {name} {number}" for code in codes}} for number in range(9)]
        (tmp_path / name / "test.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for tuples, expected in ((4, 4), (None, 9)):
        recipe = make_recipe(override({"languages": ["en", "de", "sw"]}, {"data.parallel": str(tmp_path), "evaluate.tuples": str(tuples or "null")}))
        rows = measured(recipe)
        assert sorted(zip(rows["source_lang"], rows["target_lang"])) == [("en", "de")] * expected + [("en", "sw")] * expected
