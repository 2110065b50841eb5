"""An adapter folder is refused in one line, and in time, before it takes memory."""

from __future__ import annotations

import json
import shutil
import time

import pytest
import safetensors.torch as st
import torch
from tiny_models import save_tiny_llama, save_tokenizer

from persona.errors import ModelError
from persona.models import load_pair
from persona.models.precision import Placement
from persona.models.sources import is_base, resolve


def load(aligned, finetuned, **options):
    return load_pair(aligned, finetuned, placement=Placement.of("float32", "cpu"), **options)


@pytest.fixture
def changed(tiny_adapter, tmp_path):
    """A copy of the tiny adapter whose config or tensors are other ones."""

    def change(config=None, tensors=lambda found: found):
        folder = tmp_path / "changed"
        shutil.copytree(tiny_adapter, folder)
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
        found = tensors(st.load_file(folder / "adapter_model.safetensors"))
        st.save_file(found, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        return folder

    return change


def refused(tiny_llama, folder, match):
    began = time.monotonic()
    with pytest.raises(ModelError, match=match) as caught:
        load(tiny_llama, folder)
    assert "\n" not in str(caught.value)
    return time.monotonic() - began


def test_half_an_adapter_is_refused(tiny_llama, changed):
    folder = changed(tensors=lambda found: {k: v for k, v in found.items() if "lora_B" not in k})
    refused(tiny_llama, folder, r"not whole: 8 of its 16 weights .*lora_B")


def test_nan_in_an_adapter_is_named(tiny_llama, changed):
    def spoil(found):
        key = next(key for key in sorted(found) if "layers.2" in key)
        found[key][0, 0] = float("nan")
        return found

    refused(tiny_llama, changed(tensors=spoil), r"NaN or infinity in .*layers\.2")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused(tiny_llama, changed, value):
    refused(tiny_llama, changed({"lora_alpha": value}), "lora_alpha is (nan|inf)")


@pytest.mark.parametrize(
    "config", [{"r": 10_000_000}, {"r": 3}, {"rank_pattern": {"q_proj": 10_000_000}}]
)
def test_a_rank_that_the_file_does_not_have_takes_no_memory(tiny_llama, changed, config):
    assert refused(tiny_llama, changed(config), "rank") < 30


@pytest.mark.parametrize("key", ["num_vectors", "vector_length"])
def test_a_bank_of_vectors_that_the_file_does_not_have_takes_no_memory(tiny_llama, changed, key):
    bank = {"peft_type": "VBLORA", "num_vectors": 4, "vector_length": 4, key: 10_000_000_000}
    refused(tiny_llama, changed(bank), f"says {key} 10000000000, but no tensor of its file")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"layer_replication": [[0, 3], [2, 4]]}, "repeats blocks of its base"),
        ({"alora_invocation_tokens": [12, 13]}, "switches itself on in the middle of a text"),
    ],
)
def test_what_is_no_change_of_weights_is_refused(tiny_llama, changed, config, match):
    refused(tiny_llama, changed(config), f"{match}.* is not supported")


EVIL = "(([a-z_.0-9]+)+)+!"


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": EVIL},
        {"rank_pattern": {EVIL: 2}},
        {"alpha_pattern": {EVIL: 2}},
        {"layers_pattern": EVIL, "layers_to_transform": [0]},
        {"exclude_modules": EVIL},
        {"modules_to_save": [EVIL]},
    ],
)
def test_a_pattern_that_never_ends_is_stopped(tiny_llama, changed, config, monkeypatch):
    monkeypatch.setattr("persona.models.adapters.adapter_files.PATTERN_SECONDS", 1.0)
    assert refused(tiny_llama, changed(config), "patterns in adapter_config.json") < 60


def test_a_pattern_that_ends_is_taken(tiny_llama, changed):
    load(tiny_llama, changed({"target_modules": r".*\.(q_proj|down_proj)"}))


def test_an_adapter_of_another_base_says_what_to_type(changed, tmp_path):
    other = save_tiny_llama(tmp_path / "wider", d_model=64)
    folder = changed({"base_model_name_or_path": "org/its-base"})
    with pytest.raises(
        ModelError, match=r"is another model; type --aligned org/its-base --finetuned \S+"
    ):
        load(other, folder)
    with pytest.raises(
        ModelError, match="was trained on org/its-base: pass --aligned org/its-base"
    ):
        load_pair(other, folder, placement=Placement.of("float32", "cpu"), allow_mismatch=True)


def test_an_adapter_of_another_base_of_the_same_shape_is_refused_unless_it_is_asked_for(
    changed, tiny_llama, monkeypatch
):
    folder = changed({"base_model_name_or_path": "Qwen/Qwen2.5-Coder-0.5B-Instruct"})
    with monkeypatch.context() as patched:
        patched.setattr("persona.models.load._load_checkpoint", lambda *_: pytest.fail("loaded"))
        with pytest.raises(ModelError, match=r"type --aligned qwen2.5-coder-0.5b --finetuned"):
            load(tiny_llama, folder)
    options = {"placement": Placement.of("float32", "cpu"), "allow_mismatch": True}
    [note] = load_pair(tiny_llama, folder, **options).notes
    assert note.startswith("the adapter names Qwen/Qwen2.5-Coder-0.5B-Instruct as its base")


def test_a_base_goes_by_its_name_and_a_folder_by_what_is_in_it(tiny_llama, tmp_path):
    base = resolve(tiny_llama)
    for named in ("", "org/Tiny-Llama", "tiny-llama", "/not/here/another", str(tiny_llama)):
        assert is_base(named, base), named
    shutil.copytree(tiny_llama, tmp_path / "renamed")
    assert is_base(str(tmp_path / "renamed"), base)
    assert not is_base(str(save_tiny_llama(tmp_path / "other", seed=5)), base)
    assert not is_base("org/another", base)


def test_an_adapter_with_a_resized_vocabulary_says_what_to_do(tiny_llama, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    base.resize_token_embeddings(264)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    get_peft_model(base, config).save_pretrained(tmp_path / "resized")
    with pytest.raises(ModelError, match="vocabulary was resized for training, merge it"):
        load(tiny_llama, tmp_path / "resized")


def test_an_adapter_s_own_template_is_compared(tiny_llama, changed):
    folder = changed()
    save_tokenizer(folder)
    assert load(tiny_llama, folder).notes == []
    save_tokenizer(folder, "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    (note,) = load(tiny_llama, folder).notes
    assert "tokenizer of its own, which is not used: the chat templates differ" in note


def test_an_adapter_can_still_be_trained_further(tiny_llama, tiny_adapter):
    from persona.models.load import load_with_adapter
    from persona.models.sources import resolve

    model, _ = load_with_adapter(tiny_llama, resolve(tiny_adapter), torch.float32)
    assert any(p.requires_grad for p in model.parameters())


def test_an_adapter_s_tokenizer_that_cannot_be_read_does_not_refuse_the_adapter(
    tiny_llama, changed
):
    folder = changed()
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}})
    )
    (note,) = load(tiny_llama, folder).notes
    assert "carries a tokenizer that is not used and cannot be read" in note
