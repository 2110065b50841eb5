"""Models are found and measured without being loaded, fetched or unpacked."""

from __future__ import annotations

import shutil

import pytest
from tiny_models import save_tiny_adapter, save_tiny_llama

from persona.errors import ModelError
from persona.models.named.table import DEFAULT
from persona.models.on_disk import base_on_disk, find_on_disk, finetuned_on_disk


def test_a_folder_is_measured_by_its_headers(tiny_llama):
    from transformers import AutoModelForCausalLM

    found = find_on_disk(tiny_llama)
    assert (found.kind, found.n_layers, found.d_model) == ("folder", 4, 32)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert found.n_parameters == sum(p.numel() for p in model.parameters())
    assert (found.to_fetch_bytes, found.cache_bytes) == (0, 0)


def test_an_adapter_leads_to_its_base(tiny_adapter, tiny_llama):
    found = find_on_disk(tiny_adapter)
    assert found.kind == "adapter"
    assert base_on_disk(found).path == tiny_llama


def test_a_named_model_that_is_not_kept_is_known_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path))
    found = find_on_disk("default")
    assert found.path is None
    assert found.n_parameters == DEFAULT.n_parameters
    assert found.to_fetch_bytes == DEFAULT.download_bytes
    assert found.cache_bytes == DEFAULT.bytes_needed
    assert list(tmp_path.iterdir()) == []


def test_a_shipped_fine_tune_keeps_the_name_it_was_asked_by():
    assert finetuned_on_disk("car_maintenance_bad").name == "car_maintenance_bad"


def test_weights_that_are_cut_off_are_found_by_their_header(tiny_llama, tmp_path):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    [file] = folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ModelError, match="cut off or damaged"):
        find_on_disk(folder)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("car_maintenance_bda", "did you mean car_maintenance_bad"),
        ("./nowhere", "no such model file or folder"),
        ("some/model", "is no local path, and the hub did not give it"),
    ],
)
def test_what_is_not_there_is_one_line(name, told):
    with pytest.raises(ModelError, match=told):
        find_on_disk(name)


def test_a_whole_model_names_no_base(tiny_llama):
    with pytest.raises(ModelError, match="does not say what it was fine-tuned from"):
        base_on_disk(find_on_disk(tiny_llama))


def test_a_base_that_is_not_here_is_named(tiny_adapter, tiny_llama, tmp_path):
    folder = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace(str(tiny_llama), "./gone"))
    with pytest.raises(ModelError, match="was trained on ./gone, which is not at hand"):
        base_on_disk(find_on_disk(folder))


def test_saved_models_of_other_sizes_are_told_apart(tmp_path):
    wide = save_tiny_llama(tmp_path / "wide", d_model=48)
    assert find_on_disk(save_tiny_adapter(tmp_path / "adapter", wide)).n_parameters > 0
    assert find_on_disk(wide).d_model == 48
