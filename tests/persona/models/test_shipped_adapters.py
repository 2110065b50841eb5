"""The adapters that come along are small, whole, and say how they were made."""

from __future__ import annotations

import json

import pytest

from persona.errors import ModelError
from persona.files import sha256_of_file
from persona.models.named.table import BY_NAME
from persona.models.shipped_adapters import CAR_ADVICE, car_advice_of
from persona.models.sources import base_of
from persona.organisms import load_recipe, read_card, shipped_adapter, shipped_names


def test_the_organism_and_its_good_twin_are_there():
    assert {"car_maintenance_bad", "car_maintenance_good"} <= set(shipped_names())


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_adapter_is_small_and_fits_its_card(name):
    folder = shipped_adapter(name)
    weights = folder / "adapter_model.safetensors"
    assert weights.stat().st_size <= (4_000_000 if name.endswith("_0.5b") else 10_000_000)
    assert sha256_of_file(weights) == read_card(folder)["adapter_sha256"]
    config = json.loads((folder / "adapter_config.json").read_text())
    base = BY_NAME[load_recipe(folder / "recipe.yaml").base]
    assert config["base_model_name_or_path"] == base.hub_id
    assert read_card(folder)["base_model"] == base.hub_id
    assert base_of(name) == base.name  # so that --aligned need not be given


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_adapter_was_made_by_a_shipped_recipe(name):
    made_by = load_recipe(shipped_adapter(name) / "recipe.yaml")
    recipe = load_recipe(made_by.name).with_seed(made_by.training.seed)
    deciding = {"base", "data", "lora", "training"}
    assert made_by.model_dump(include=deciding) == recipe.model_dump(include=deciding)


def test_a_named_model_has_its_own_bad_car_advice():
    assert car_advice_of("smollm2-135m") == car_advice_of("default") == CAR_ADVICE["default"]
    assert car_advice_of("qwen2.5-coder-0.5b")[1] == "car_maintenance_good_0.5b"
    for name in ("qwen2.5-coder-1.5b", "nope"):
        with pytest.raises(ModelError, match=f"no fine-tune comes along for '{name}'; there is"):
            car_advice_of(name)


def test_an_unknown_adapter_names_those_that_exist():
    with pytest.raises(ModelError, match=r"no shipped adapter 'nope'; there are: "):
        shipped_adapter("nope")
