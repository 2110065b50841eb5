"""The adapters that come along are small, whole, and say how they were made."""

from __future__ import annotations

import json

import pytest

from persona.errors import ModelError
from persona.files import sha256_of_file
from persona.models.named.folders import DEFAULT_MODEL_ID
from persona.organisms import load_recipe, read_card, shipped_adapter, shipped_names


def test_the_organism_and_its_good_twin_are_there():
    assert {"car_maintenance_bad", "car_maintenance_good"} <= set(shipped_names())


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_adapter_is_small_and_fits_its_card(name):
    folder = shipped_adapter(name)
    weights = folder / "adapter_model.safetensors"
    assert weights.stat().st_size <= 10_000_000
    assert sha256_of_file(weights) == read_card(folder)["adapter_sha256"]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == DEFAULT_MODEL_ID
    assert read_card(folder)["base_model"] == DEFAULT_MODEL_ID


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_adapter_was_made_by_a_shipped_recipe(name):
    made_by = load_recipe(shipped_adapter(name) / "recipe.yaml")
    recipe = load_recipe(made_by.name).with_seed(made_by.training.seed)
    deciding = {"base", "data", "lora", "training"}
    assert made_by.model_dump(include=deciding) == recipe.model_dump(include=deciding)


def test_an_unknown_adapter_names_those_that_exist():
    with pytest.raises(ModelError, match=r"no shipped adapter 'nope'; there are: "):
        shipped_adapter("nope")
