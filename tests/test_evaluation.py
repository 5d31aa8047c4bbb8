"""Any number of models, measured, compared and reported; what is asked once; what bad models are answered."""
import json

import numpy as np
import pandas as pd
import pytest
import torch
from evaluate_tools import byte_tokenizer, tiny_model

from alignx import results
from alignx.building import build
from alignx.cli import main
from alignx.errors import UsageError
from alignx.evaluation import evaluate
from alignx.run_measures import Subject, display_names, models_of
from alignx.recipe import make_recipe
from alignx.run_folder import Run


def save(folder, kind="llama", seed=0, spoil=None):
    model = tiny_model(kind, seed)
    if spoil:
        spoil(model)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    "Two models of one architecture, one of another, and an encoder; and the lines that the run said."
    folder, said = tmp_path_factory.mktemp("models"), []
    models = [save(folder / "one"), save(folder / "two", seed=1), save(folder / "gpt2", "gpt2"), save(folder / "encoder", "xlmr")]
    values = {"model": models[0], "languages": ["en", "de", "sw"], "stages": [], "output_dir": str(folder / "run"), "evaluate": {"models": models[1:], "tuples": 25, "explorer_tuples": 5, "card": True}}
    run = Run(make_recipe(values), said.append)
    build(run)
    evaluate(run)
    results.explore(run)
    return run, said, folder


def test_every_model_is_in_every_table(compared):
    run, _, _ = compared
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert list(metrics["models"]) == ["one", "two", "gpt2", "encoder"]
    scores = pd.read_parquet(run.path / "tables" / "scores.parquet")
    alignment = scores[scores["metric"] == "retrieval_top1"]
    assert set(scores["model"]) == set(metrics["models"]) and alignment["floor"].notna().all() and (alignment["n"] > 0).all()
    assert alignment[["value", "low", "high"]].notna().all(axis=None)
    perplexity = scores[scores["metric"] == "perplexity"].set_index(["model", "source_lang"])
    assert perplexity.loc[("encoder", "en"), "n"] == 0 and np.isnan(perplexity.loc[("encoder", "en"), "value"])
    assert metrics["models"]["encoder"]["perplexity"] == {"en": None, "de": None, "sw": None} and metrics["models"]["gpt2"]["perplexity"]["sw"] > 1


def test_models_of_one_architecture_share_a_floor_and_a_layer(compared):
    run, _, _ = compared
    models = json.loads((run.path / "metrics.json").read_text())["models"]
    assert models["one"]["layer"] == models["two"]["layer"] and models["one"]["floor"] == models["two"]["floor"] != models["gpt2"]["floor"]
    assert sorted(p.name for p in (run.path / "tables").glob("floor_*") if "items" not in p.name) == ["floor_encoder.parquet", "floor_gpt2.parquet", "floor_one.parquet"]
    assert Subject(run, "one").architecture == Subject(run, "two").architecture != Subject(run, "encoder").architecture


def test_gains_and_price_are_against_the_first(compared):
    run, _, _ = compared
    gains, price = (pd.read_parquet(run.path / "tables" / f"{name}.parquet") for name in ("gains", "price"))
    assert set(gains["against"]) == {"one"} and set(gains["model"]) == {"two", "gpt2", "encoder"}
    assert set(price["model"]) == {"two", "gpt2"} and set(price["language"]) == {"en", "de", "sw"}
    means = pd.read_parquet(run.path / "tables" / "overall.parquet").query("metric == 'retrieval_top1'").set_index("model")["value"]
    whole = gains.query("metric == 'retrieval_top1' and language == 'all'").set_index("model")
    assert whole.loc["gpt2", "difference"] == pytest.approx(means["gpt2"] - means["one"])


def test_the_report_and_cards_name_every_model_with_intervals(compared):
    run, _, folder = compared
    page, card = (run.path / "report.html").read_text(encoding="utf-8"), (run.path / "evaluation.md").read_text(encoding="utf-8")
    for title in ("Gains by language", "Every language with every other", "Translations and other sentences", "What it cost", "All scores"):
        assert title in page
    assert 'src="http' not in page and "<link" not in page
    rows = [line for line in card.splitlines() if line.startswith(("| one ", "| two ", "| gpt2 ", "| encoder "))]
    assert len(rows) == 4 and all("[" in row and " 25 " in row for row in rows) and rows[3].count("–") >= 1
    assert all((folder / name / "evaluation.md").is_file() for name in ("one", "two", "gpt2", "encoder"))


def test_nothing_is_asked_twice_and_new_questions_alone(compared):
    run, said, _ = compared
    before = len(said)
    evaluate(run), results.explore(run)
    assert len(said) > before and all("unchanged" in line for line in said[before:])
    values = run.recipe.to_dict() | {"evaluate": run.recipe.to_dict()["evaluate"] | {"floor": False, "models": run.recipe.evaluate.models[:1]}}
    fewer = Run(make_recipe(values), said.append)
    before = len(said)
    metrics = evaluate(fewer)
    assert list(metrics["models"]) == ["one", "two"] and "floor" not in metrics["models"]["one"] and all("unchanged" in line for line in said[before:])


def test_some_metrics_are_enough_for_everything_that_follows(tmp_path):
    said, models = [], [save(tmp_path / "one"), save(tmp_path / "two", seed=1)]

    def measured(metrics):
        asked = {"models": models[1:], "tuples": 25, "explorer_tuples": 5, "metrics": metrics}
        run = Run(make_recipe({"model": models[0], "languages": ["en", "de", "sw"], "stages": [], "output_dir": str(tmp_path / "run"), "evaluate": asked}), said.append)
        before = len(said)
        build(run), evaluate(run), results.explore(run)
        read = {name: pd.read_parquet(run.path / "tables" / f"{name}.parquet") for name in ("scores", "profile", "gains", "overall")}
        return run, said[before:], read, json.loads((run.path / "metrics.json").read_text(), parse_constant=pytest.fail)

    run, _, tables, metrics = measured(["margin", "mexa"])
    wanted = {"retrieval_top1", "mexa", "margin"}
    assert set(tables["profile"]["metric"]) == set(tables["gains"]["metric"]) == set(tables["overall"]["metric"]) == wanted
    assert set(tables["scores"]["metric"]) == wanted | {"perplexity", "bits_per_byte"}
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Profile of one" in page and "does a translation find its sentence?" in page and "can the language still be told" not in page
    text = results.before_after(run)
    assert "MEXA" in text and "margin" in text and all(one["mexa_mean"] is not None for one in metrics["models"].values())

    _, lines, _, same = measured(["mexa", "retrieval_top1", "margin"])
    assert all("unchanged" in line for line in lines) and same["models"] == metrics["models"], "the order of names does not matter"

    run, lines, tables, few = measured([])
    assert sum(line.startswith(("measure", "floor")) and "unchanged" not in line for line in lines) == 3
    assert set(tables["profile"]["metric"]) == {"retrieval_top1"}
    for name, one in few["models"].items():
        assert one["mexa_mean"] is one["margin_mean"] is one["floor"]["mexa_mean"] is None and one["retrieval_top1_mean"] == metrics["models"][name]["retrieval_top1_mean"]
    text = results.before_after(run)
    assert "MEXA" not in text and "margin" not in text and "retrieval top-1" in text and "NaN" not in text
    assert "| one " in (run.path / "evaluation.md").read_text(encoding="utf-8")

    _, lines, tables, _ = measured(["isotropy"])
    assert set(tables["profile"]["metric"]) == {"retrieval_top1", "isotropy"} and "isotropy" not in set(tables["gains"]["metric"])


def test_names_tell_models_apart():
    assert display_names(["runs/a/tuned", "runs/b/tuned", "org/model"]) == ["a-tuned", "b-tuned", "org-model"]
    with pytest.raises(UsageError, match="twice"):
        display_names(["a", "b", "a"])
    recipe = make_recipe({"languages": ["en", "de"], "evaluate": {"models": ["x/tuned", "org/other"]}})
    assert models_of(recipe) == {"base": "demo", "aligned": None, "tuned": None, "other-tuned": "x/tuned", "other": "org/other"}


def broken(model):
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = torch.nan


@pytest.mark.parametrize("make, code, said", [
    (lambda folder: save(folder, spoil=broken), 1, "layers.1.mlp.up_proj.weight"),
    (lambda folder: tiny_model().save_pretrained(folder) or str(folder), 2, "tokenizer"),
    (lambda folder: save(folder, "t5"), 2, "encoder with a decoder"),
    (lambda folder: folder.mkdir() or str(folder), 2, "config.json"),
])  # fmt: skip
def test_models_that_cannot_be_measured_are_one_line(make, code, said, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ["evaluate", make(tmp_path / "model"), "--languages", "en,de", "--evaluate.tuples", "20", "--output", str(tmp_path / "run")]
    assert main(words) == code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("alignx: error") and said in error and "Traceback" not in error


def test_a_corpus_of_one_sentence_is_refused(tmp_path, capsys):
    (tmp_path / "one.jsonl").write_text(json.dumps({"source": "cat", "target": "Katze", "source_lang": "en", "target_lang": "de"}) + "\n")
    assert main(["evaluate", "demo", "--data", str(tmp_path / "one.jsonl"), "--languages", "en,de", "--output", str(tmp_path / "out")]) == 1
    assert "only one" in capsys.readouterr().err


def test_a_run_asks_for_translations_facts_and_benchmarks(tmp_path):
    for language in ("en", "de"):
        (tmp_path / "xnli" / language).mkdir(parents=True)
        rows = [{"premise": f"He has {k} cats.", "hypothesis": "He has cats.", "label": k % 3} for k in range(6)]
        for split in ("validation", "test"):
            (tmp_path / "xnli" / language / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = {"models": [save(tmp_path / "encoder", "xlmr")], "tuples": 20, "translations": 3, "max_new_tokens": 8, "knowledge": True, "tasks": ["xnli"], "task_data": {"xnli": str(tmp_path / "xnli")}, "explorer_tuples": 5}
    run = Run(make_recipe({"model": "demo", "languages": ["en", "de"], "stages": [], "output_dir": str(tmp_path / "run"), "data": {"template": "plain"}, "evaluate": asked}), lambda line: None)
    build(run)
    metrics = evaluate(run)
    results.explore(run)
    scores = pd.read_parquet(run.path / "tables" / "scores.parquet").set_index(["model", "metric", "source_lang", "target_lang"])
    for metric, pair, n in (("chrf", ("en", "de"), 3), ("bleu", ("de", "en"), 3), ("off_target", ("en", "de"), None), ("knowledge_novel", ("de", "de"), 378), ("knowledge_real", ("en", "en"), 100), ("xnli/acc", ("de", "de"), 6)):
        row = scores.loc[("demo", metric, *pair)]
        assert row["n"].item() == n if n else row["n"].item() <= 3
        if metric != "bleu":
            assert scores.loc[("encoder", metric, *pair), "n"].item() == 0 and np.isnan(scores.loc[("encoder", metric, *pair), "value"].item())
    assert {"chrf", "bleu"} == set(metrics["signatures"]) and "knowledge_novel_transfer" in metrics["models"]["demo"]["scores"]
    assert "chrf" not in set(pd.read_parquet(run.path / "tables" / "gains.parquet")["metric"]), "an encoder has nothing to compare"
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Off-target translations" in page and "Invented facts" in page and "xnli" in page


def test_facts_are_taught_in_english_only_and_not_twice_by_default(tmp_path):
    from datasets import load_from_disk

    from alignx.loading import load_tokenizer

    found = {}
    for times, ratio in ((0, 1.0), (2, None), (3, 1.0)):
        values = {"languages": ["en", "de"], "output_dir": str(tmp_path / str(times)), "data": {"template": "plain", "instructions": "demo", "pairs": 40, "tune_pairs": 4, "general_ratio": ratio, "teach_facts": times}, "evaluate": {"tuples": 20}}
        run = Run(make_recipe(values), lambda line: None)
        build(run)
        rows = load_from_disk(str(run.path / "data" / "tune"))
        texts = load_tokenizer("demo").batch_decode(list(rows["input_ids"]))
        found[times] = sum("Balakia" in text for text in texts)
    assert found[0] == 0 and found[2] > 0 and found[2] % 2 == 0 and found[3] == found[2] // 2 * 3
