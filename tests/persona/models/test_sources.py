"""A source's fingerprint covers every file that decides what the model computes."""

from __future__ import annotations

import json
import shutil

import pytest

from persona.errors import ModelError
from persona.models import Placement, load_pair
from persona.models.sources import Source, base_of, require_hub_id

QWEN = "qwen2.5-coder-0.5b"


def test_every_shard_counts_and_two_shards_keep_the_form_of_saved_directions(tmp_path):
    for shard in range(4):
        (tmp_path / f"model-{shard}.safetensors").write_bytes(bytes([shard]))
        if shard == 1:
            two = Source("m", "folder", tmp_path).revision
    four = Source("m", "folder", tmp_path).revision
    assert two.count("+") == 1 and four.startswith(two + "+")
    (tmp_path / "model-3.safetensors").write_bytes(b"other")
    assert Source("m", "folder", tmp_path).revision != four


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
)
def test_tokenizer_template_and_config_count(tiny_llama, tmp_path, name):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_llama, folder)
    before = Source("m", "folder", folder).fingerprint
    assert before == Source("m", "folder", tiny_llama).fingerprint
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write("\n")
    assert Source("m", "folder", folder).fingerprint != before


def test_the_scale_of_an_adapter_counts(tiny_adapter, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_adapter, folder)
    before = Source("a", "adapter", folder)
    fingerprint, revision = before.fingerprint, before.revision
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 4', '"lora_alpha": 8'))
    assert before.revision == revision
    assert before.fingerprint != fingerprint


def test_readings_of_a_pair_depend_on_its_fingerprints(tiny_pair):
    assert tiny_pair.revisions["aligned"] in tiny_pair.files("aligned")
    assert tiny_pair.files("aligned") != tiny_pair.files("finetuned")


def test_the_base_of_an_adapter_is_the_one_it_names(tiny_llama, tiny_adapter, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_adapter, folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    for named in ("Qwen/Qwen2.5-Coder-0.5B-Instruct", str(tiny_llama)):
        path.write_text(json.dumps(config | {"base_model_name_or_path": named}))
        assert base_of(folder) == named.replace("Qwen/Qwen2.5-Coder-0.5B-Instruct", QWEN)
    path.write_text(json.dumps(config | {"base_model_name_or_path": "/home/ann/base"}))
    with pytest.raises(ModelError, match="was trained on /home/ann/base, which is not at hand .no"):
        base_of(folder)
    path.write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(ModelError, match="does not say what it was trained on; name that model"):
        base_of(folder)
    path.write_text("[")
    with pytest.raises(ModelError, match=r"adapter_config.json cannot be read"):
        base_of(folder)
    with pytest.raises(ModelError, match="is a whole model, which does not say what it was fine-"):
        base_of(tiny_llama)


def test_a_pair_is_loaded_on_the_base_that_its_adapter_names(tiny_llama, tiny_adapter, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_adapter, folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": str(tiny_llama)}
    path.write_text(json.dumps(config))
    pair = load_pair(finetuned=folder, placement=Placement.of("float32", "cpu"))
    assert pair.names["aligned"] == str(tiny_llama)


def test_a_name_that_nothing_has_is_answered_with_those_there_are():
    with pytest.raises(ModelError) as caught:
        require_hub_id("nonsense")
    assert "smollm2-135m" in str(caught.value) and "car_maintenance_bad" in str(caught.value)
    with pytest.raises(ModelError) as caught:
        require_hub_id("car_maintenance_bda")
    assert "; did you mean car_maintenance_bad or " in str(caught.value)
    with pytest.raises(ModelError) as caught:
        require_hub_id("./nonsense")
    assert str(caught.value) == "no such model file or folder: ./nonsense"
