"""The recipes that ship beside the package are right."""
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from alignx.align.step import competition_mode
from alignx.align.trainer import AlignmentArguments
from alignx.recipe import load_recipe
from alignx.tune.trainer import TuneArguments

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.mark.parametrize("name, devices", [("one_gpu", 1), ("eight_gpus", 8)])
def test_recipes_load_and_their_numbers_fit(tmp_path, name, devices):
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    align = AlignmentArguments(output_dir=str(tmp_path), **{**recipe.align, "bf16": False})
    TuneArguments(output_dir=str(tmp_path), **{**recipe.tune, "bf16": False})
    assert competition_mode(align.contrastive_batch, align.per_device_train_batch_size, devices, align.gradient_accumulation_steps) == "cache"


@pytest.mark.parametrize("path", sorted((RECIPES / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_configs(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == 8 and config.mixed_precision == "bf16"
