"""No weight of a checkpoint is random: what is missing or unknown is an error that names it."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import safetensors.torch as st

from persona.errors import ModelError
from persona.models import load_pair
from persona.models.precision import Placement


def load(aligned, finetuned, **options):
    return load_pair(aligned, finetuned, placement=Placement.of("float32", "cpu"), **options)


@pytest.fixture
def changed(tiny_llama, tmp_path):
    """A copy of the tiny llama under other names, or with another config."""

    def change(rename=lambda key: key, **config):
        folder = tmp_path / "changed"
        shutil.copytree(tiny_llama, folder)
        found = st.load_file(folder / "model.safetensors")
        renamed = {rename(key): tensor for key, tensor in found.items() if rename(key)}
        st.save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
        return folder

    return change


LEFT_OUT = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("rename", "match"),
    [
        (lambda key: None if key == LEFT_OUT else key, f"weight {LEFT_OUT} is missing"),
        (lambda key: f"_orig_mod.{key}", r"torch\.compile\); strip"),
        (lambda key: f"module.{key}", r"DataParallel.*strip"),
        (lambda key: f"base_model.model.{key}", "PeftModel; strip"),
        (lambda key: key.replace("q_proj", "query"), r"q_proj.*missing.*query.*not known"),
    ],
)
def test_weights_that_are_not_there_are_named(tiny_llama, changed, rename, match):
    folder = changed(rename)
    for aligned, finetuned in ((tiny_llama, folder), (folder, tiny_llama)):
        with pytest.raises(ModelError, match=match) as caught:
            load(aligned, finetuned)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layers", "match"),
    [(6, "layers.4.*missing"), (3, "layers.3.*not known"), (-1, "cannot load|layers")],
)
def test_a_config_with_other_blocks_than_the_weights_is_refused(changed, layers, match):
    folder = changed(num_hidden_layers=layers)
    with pytest.raises(ModelError, match=match) as caught:
        load(folder, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"num_attention_heads": 0},
        {"hidden_size": -4},
        {"vocab_size": "many"},
        {"num_hidden_layers": 0},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    ],
)
def test_an_absurd_config_is_one_line(changed, config):
    folder = changed(**config)
    with pytest.raises(ModelError) as caught:
        load(folder, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer"])
@pytest.mark.timeout(120)
def test_more_blocks_than_the_files_have_tensors_take_no_memory(tiny_llama, changed, key):
    folder = changed(**{key: 100_000_000})
    for aligned, finetuned in ((tiny_llama, folder), (folder, tiny_llama)):
        with pytest.raises(ModelError, match=f"says {key} is 100000000, but its files hold 39"):
            load(aligned, finetuned)


def test_a_tied_head_that_is_not_saved_is_not_missing(tmp_path):
    from tiny_models import save_tokenizer, tiny_causal_lm

    for family in ("llama", "gpt2"):
        base = tmp_path / family
        tiny_causal_lm(family, tied=True).save_pretrained(base)
        save_tokenizer(base)
        assert "lm_head.weight" not in st.load_file(base / "model.safetensors")
        load(base, base)


def test_loading_a_whole_model_logs_nothing(tiny_llama, tiny_adapter, caplog):
    loggers = [logging.getLogger(name) for name in ("transformers", "peft", "bitsandbytes")]
    for logger in loggers:  # Transformers keeps its lines from the loggers above
        logger.addHandler(caplog.handler)
    try:
        load(tiny_llama, tiny_adapter)
    finally:
        for logger in loggers:
            logger.removeHandler(caplog.handler)
    assert caplog.messages == []
