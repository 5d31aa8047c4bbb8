"""The recipes that ship beside the package are right; presets, and values that have a few choices only."""
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from alignx.align.settings import AlignmentConfig
from alignx.align.step import competition_mode
from alignx.align.trainer import AlignmentArguments
from alignx.errors import InputError, UsageError
from alignx.evaluate.measuring import ALL_METRICS
from alignx.recipe import METRICS, PRESETS, Recipe, load_recipe, make_recipe
from alignx.run_folder import Run
from alignx.sweep import load_study
from alignx.tune.trainer import TuneArguments

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.mark.parametrize("name, devices", [("one_gpu", 1), ("eight_gpus", 8)])
def test_recipes_load_and_their_numbers_fit(tmp_path, name, devices):
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    align = AlignmentArguments(output_dir=str(tmp_path), **{**recipe.align, "bf16": False})
    TuneArguments(output_dir=str(tmp_path), **{**recipe.tune, "bf16": False})
    assert competition_mode(align.contrastive_batch, align.per_device_train_batch_size, devices, align.gradient_accumulation_steps) == "cache"


@pytest.mark.parametrize("path", sorted((RECIPES / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_run_of_the_studies_can_begin(path, tmp_path):
    study = load_study(path)
    assert {run.question for run in study.runs} >= {"", "pooling"} and len(study.measures) >= 3
    for run in study.runs:
        align = AlignmentArguments(output_dir=str(tmp_path), **{**run.recipe.align, "bf16": False})
        TuneArguments(output_dir=str(tmp_path), **{**run.recipe.tune, "bf16": False})
        if "align" in run.recipe.stages and "contrastive" in align.objectives:
            competition_mode(align.contrastive_batch, align.per_device_train_batch_size, 1, align.gradient_accumulation_steps)
        measured = {one.data.test for one in study.measures.values()} - {None}
        assert measured <= set(run.recipe.data.exclude or ()), run.key


@pytest.mark.parametrize("path", sorted((RECIPES / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_configs(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == 8 and config.mixed_precision == "bf16"


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_value_of_a_preset_is_a_setting_that_is_accepted(tmp_path, name):
    recipe = make_recipe({"preset": name})
    align = AlignmentArguments(output_dir=str(tmp_path), **recipe.align)
    TuneArguments(output_dir=str(tmp_path), **recipe.tune)
    assert competition_mode(align.contrastive_batch, align.per_device_train_batch_size, 1, align.gradient_accumulation_steps)


def test_the_paper_trains_batches_of_128_of_which_16_pairs_compete(tmp_path):
    recipe = make_recipe({"preset": "paper"})
    align = AlignmentArguments(output_dir=str(tmp_path), **recipe.align)
    assert align.per_device_train_batch_size * align.gradient_accumulation_steps == 128 and align.layer == "auto"
    assert competition_mode(align.contrastive_batch, align.per_device_train_batch_size, 1, align.gradient_accumulation_steps) == "batch"
    ours, apart = AlignmentConfig(), {"contrastive_batch"}
    assert all(getattr(align, each.name) == getattr(ours, each.name) for each in fields(AlignmentConfig) if each.name not in apart), "AlignmentConfig has the paper's formulae"
    assert (align.learning_rate, align.warmup_steps, align.num_train_epochs) == (2e-6, 100, 2) and recipe.tune["learning_rate"] == 2e-6


def test_the_values_of_a_recipe_go_over_those_of_its_preset():
    assert make_recipe({}).align == PRESETS["default"]["align"] and make_recipe({"preset": None}).align == {}
    recipe = make_recipe({"preset": "paper", "align": {"temperature": 0.05, "max_steps": 3}})
    assert recipe.align == PRESETS["paper"]["align"] | {"temperature": 0.05, "max_steps": 3}
    recipe.align["pooling"] = "mirror"
    assert make_recipe({"preset": "paper"}).align["pooling"] == "row", "recipes share no values"


@pytest.mark.parametrize("name", [*PRESETS, None])
def test_a_resolved_recipe_shows_the_values_and_is_read_as_the_same(tmp_path, name):
    first = make_recipe({"preset": name, "align": {"temperature": 0.2}, "output_dir": str(tmp_path)})
    Run(first)
    path = tmp_path / "recipe.yaml"
    text = path.read_text()
    assert all(f"  {key}: " in text for part in (PRESETS[name] if name else {}).values() for key in part)
    again = load_recipe(path)
    again.save(path)
    assert again == first == replace(first) and path.read_text() == text
    assert Recipe(preset=name, align={"temperature": 0.2}, output_dir=str(tmp_path)) == first, "built in Python as read from a file"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"preset": "papper"}, "mine.yaml: unknown preset 'papper'; did you mean 'paper'"),
        ({"preset": ["paper"]}, "mine.yaml: unknown preset"),
        ({"evaluate": {"metrics": ["mexxa"]}}, "section 'evaluate': unknown metric 'mexxa'; did you mean 'mexa'"),
        ({"evaluate": {"metrics": "mexa"}}, "'metrics': 'mexa' is not of type"),
        ({"data": {"exclude": "rows.jsonl"}}, "'exclude': 'rows.jsonl' is not of type"),
    ],
)
def test_what_does_not_exist_is_named(values, said):
    with pytest.raises(UsageError, match=said.replace("[", r"\[")):
        make_recipe(values, "mine.yaml")


def test_metrics_are_those_that_are_measured_and_need_no_torch():
    assert METRICS == ALL_METRICS
    code = "import sys; from alignx.recipe import make_recipe; make_recipe({'preset': 'paper', 'evaluate': {'metrics': ['mexa', 'cka']}}); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_a_key_that_stands_twice_is_refused(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text("align:\n  layer: 3\n  temperature: 0.1\n  layer: 4\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 4.*'layer' is there twice"):
        load_recipe(file)
