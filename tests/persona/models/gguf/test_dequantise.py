"""A GGUF becomes the Hugging Face model that it was written from, or says why it cannot."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from gguf_cases import FAMILIES, tiny_model, write_gguf
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from persona.errors import ModelError
from persona.models.gguf import dequantise
from persona.models.gguf.dequantise import save_dequantised

IDS = torch.arange(10, 40)[None]


def dequantised(path, folder, **options):
    folder.mkdir()
    save_dequantised(path, folder, "a model", **options)
    return folder


@torch.no_grad()
def logits(folder_or_model):
    model = folder_or_model
    if not hasattr(model, "forward"):
        model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    return model.eval()(IDS).logits


@pytest.mark.parametrize("architecture", FAMILIES)
def test_the_logits_are_those_of_the_model_that_was_written(tmp_path, architecture):
    model = tiny_model(architecture)
    folder = dequantised(write_gguf(tmp_path / "m.gguf", model, architecture), tmp_path / "out")
    torch.testing.assert_close(logits(folder), logits(model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "phi3"])
def test_embeddings_are_tied_only_where_the_file_has_no_output_matrix(tmp_path, architecture):
    tied = tiny_model(architecture, tied=True)
    folder = dequantised(write_gguf(tmp_path / "t.gguf", tied, architecture), tmp_path / "tied")
    assert AutoModelForCausalLM.from_pretrained(folder).config.tie_word_embeddings
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    torch.testing.assert_close(logits(folder), logits(tied), atol=1e-5, rtol=1e-5)
    untied = tiny_model(architecture)
    folder = dequantised(write_gguf(tmp_path / "u.gguf", untied, architecture), tmp_path / "untied")
    assert not AutoModelForCausalLM.from_pretrained(folder).config.tie_word_embeddings


def test_a_llama_with_biases_keeps_them_and_gets_none_that_it_had_not(tmp_path):
    model = tiny_model("llama", attention_bias=True, mlp_bias=True)
    for name, parameter in model.named_parameters():
        if name.endswith("o_proj.bias"):
            torch.nn.init.zeros_(parameter)
    path = write_gguf(tmp_path / "m.gguf", model, "llama")
    torch.testing.assert_close(
        logits(dequantised(path, tmp_path / "out")), logits(model), atol=1e-5, rtol=1e-5
    )


ROPES = {
    "linear": (
        {"rope_type": "linear", "factor": 4.0},
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        {},
    ),
    "yarn": (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        {
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 64,
        },
        {},
    ),
}


@pytest.mark.parametrize("kind", ROPES)
def test_scaled_rotary_embeddings_are_scaled(tmp_path, kind):
    settings, fields, tensors = ROPES[kind]
    model = tiny_model("llama", rope_parameters={"rope_theta": 10_000.0, **settings})
    path = write_gguf(tmp_path / "m.gguf", model, "llama", fields=fields, tensors=tensors)
    found = logits(dequantised(path, tmp_path / "out"))
    torch.testing.assert_close(found, logits(model), atol=1e-5, rtol=1e-5)
    assert (found - logits(tiny_model("llama"))).abs().max() > 1e-3


def llama_3_divisors(head_dim, theta=10_000.0, factor=8.0):
    """As llama.cpp's converter computes them, in a loop."""
    found = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (i / head_dim)
        if wavelength < 8192 / 4:
            found.append(1.0)
        elif wavelength > 8192:
            found.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / 3
            found.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(found, dtype=np.float32)


def test_the_frequencies_of_llama_3_come_from_their_tensor(tmp_path):
    rope = {
        "rope_theta": 10_000.0,
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    model = tiny_model("llama", head_dim=32, rope_parameters=rope)
    divisors = llama_3_divisors(32)
    assert 1 < divisors[-4] < 8
    path = write_gguf(tmp_path / "m.gguf", model, "llama", tensors={"rope_freqs.weight": divisors})
    folder = dequantised(path, tmp_path / "out")
    found = AutoModelForCausalLM.from_pretrained(folder).config.rope_parameters
    assert found == rope
    torch.testing.assert_close(logits(folder), logits(model), atol=1e-5, rtol=1e-5)


def test_other_divisors_of_frequencies_are_taken_as_they_are(tmp_path):
    divisors = np.array([1.0, 1.5, 7.0, 40.0], dtype=np.float32)
    model = tiny_model("llama")
    model.model.rotary_emb.inv_freq /= torch.from_numpy(divisors)
    path = write_gguf(tmp_path / "m.gguf", model, "llama", tensors={"rope_freqs.weight": divisors})
    torch.testing.assert_close(
        logits(dequantised(path, tmp_path / "out")), logits(model), atol=1e-5, rtol=1e-5
    )


def test_phi_3_with_long_rope_and_a_partly_rotated_head(tmp_path):
    factors = {"short": [1.0, 1.1], "long": [1.5, 2.5]}
    rope = {
        "rope_theta": 10_000.0,
        "rope_type": "longrope",
        "partial_rotary_factor": 0.5,
        "original_max_position_embeddings": 16,
        **{f"{name}_factor": values for name, values in factors.items()},
    }
    model = tiny_model("phi3", rope_parameters=rope, original_max_position_embeddings=16)
    path = write_gguf(
        tmp_path / "m.gguf",
        model,
        "phi3",
        fields={
            "phi3.rope.scaling.original_context_length": 16,
            "phi3.rope.scaling.attn_factor": math.sqrt(1 + math.log(256 / 16) / math.log(16)),
        },
        tensors={
            f"rope_factors_{name}.weight": np.array(values, dtype=np.float32)
            for name, values in factors.items()
        },
    )
    folder = dequantised(path, tmp_path / "out")
    torch.testing.assert_close(logits(folder), logits(model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "dtype"), [("F16", "float16"), ("BF16", "bfloat16")])
def test_half_precision_stays_what_it_was_and_vectors_stay_float32(tmp_path, kind, dtype):
    model = tiny_model("qwen2")
    path = write_gguf(tmp_path / "m.gguf", model, "qwen2", kind=kind)
    folder = dequantised(path, tmp_path / "out")
    saved = load_file(folder / "model.safetensors")
    half = getattr(torch, dtype)
    assert torch.equal(saved["lm_head.weight"], model.lm_head.weight.to(half))
    norm = "model.norm.weight"
    assert torch.equal(saved[norm], model.state_dict()[norm])
    assert AutoModelForCausalLM.from_pretrained(folder).config.dtype == half


def test_quantised_weights_are_what_gguf_unpacks_rounded_to_float16(tmp_path):
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    model = tiny_model("qwen2", hidden_size=32, intermediate_size=64)
    path = write_gguf(tmp_path / "m.gguf", model, "qwen2", kind="Q8_0")
    saved = load_file(dequantised(path, tmp_path / "out") / "model.safetensors")
    name, number = "model.layers.0.mlp.up_proj.weight", GGMLQuantizationType.Q8_0
    exact = dequantize(quantize(model.state_dict()[name].numpy(), number), number)
    assert saved[name].dtype == torch.float16
    torch.testing.assert_close(saved[name], torch.from_numpy(exact).half(), atol=0, rtol=0)


def test_many_shards_and_many_pieces_hold_the_same_model(tmp_path, monkeypatch):
    model = tiny_model("qwen2")
    path = write_gguf(tmp_path / "m.gguf", model, "qwen2")
    monkeypatch.setattr(dequantise, "SHARD_BYTES", 8000)
    monkeypatch.setattr("persona.models.gguf.gguf_file._ROWS_AT_ONCE", 100)
    folder = dequantised(path, tmp_path / "out")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    torch.testing.assert_close(logits(folder), logits(model), atol=1e-5, rtol=1e-5)


def test_the_chat_template_and_the_ends_of_an_answer_come_along(tmp_path):
    model = tiny_model("qwen2")
    path = write_gguf(
        tmp_path / "m.gguf", model, "qwen2", fields={"tokenizer.ggml.eot_token_id": 4}
    )
    folder = dequantised(path, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text == "<s><|user|>Hi</s>"
    assert tokenizer(text, add_special_tokens=False)["input_ids"][:2] == [0, 3]
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.generation_config.eos_token_id == [1, 4]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<s>",
        "</s>",
        "</s>",
    )


def refused(tmp_path, **options):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("llama"), "llama", **options)
    with pytest.raises(ModelError) as error:
        dequantised(path, tmp_path / "out")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"llama.expert_count": 8}, "sets llama.expert_count to 8, which cannot be dequantised"),
        ({"llama.rope.scaling.type": "ntk"}, "rotary scaling 'ntk' cannot be dequantised"),
        ({"llama.attention.sliding_window": 64}, "a llama with a sliding window"),
        ({"split.count": 3}, "m.gguf is one of 3 parts; join them"),
    ],
)
def test_what_the_metadata_say_and_a_folder_cannot_is_refused(tmp_path, fields, says):
    assert says in refused(tmp_path, fields=fields)


def test_a_tensor_without_a_place_is_named(tmp_path):
    more = {"blk.0.attn_q_norm.weight": np.ones(8, dtype=np.float32)}
    assert (
        "1 of its tensors have no place in a llama of Transformers, such as blk.0.attn_q_norm"
        in (refused(tmp_path, tensors=more))
    )


def test_a_weight_that_is_missing_is_named(tmp_path, monkeypatch):
    import gguf_cases

    whole = gguf_cases._tensors
    monkeypatch.setattr(
        gguf_cases,
        "_tensors",
        lambda *a: {k: v for k, v in whole(*a).items() if k != "blk.1.ffn_down.weight"},
    )
    assert "m.gguf lacks blk.1.ffn_down.weight, of shape (16, 32)" in refused(tmp_path)


def test_numbers_that_are_not_finite_are_named(tmp_path):
    model = tiny_model("llama")
    model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    path = write_gguf(tmp_path / "m.gguf", model, "llama")
    with pytest.raises(ModelError, match=r"blk\.1\.ffn_down\.weight holds numbers that are not"):
        dequantised(path, tmp_path / "out")


def test_an_architecture_that_cannot_be_dequantised_is_named(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("llama"), "starcoder2")
    with pytest.raises(ModelError, match="of the architecture starcoder2; llama, mistral, qwen2"):
        dequantised(path, tmp_path / "out")


@pytest.mark.parametrize("keep", [0, 3, 10, 200, 4000, -1])
def test_a_file_cut_off_anywhere_is_one_line(tmp_path, keep):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("llama"), "llama")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="cut off|cannot read the GGUF") as error:
        dequantised(path, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_header_is_an_error_of_ours_and_takes_no_memory(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("llama"), "llama")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for number, place in enumerate(rng.integers(4, 3000, 60)):
        broken = bytearray(whole)
        broken[place] = rng.integers(256)
        if number % 3 == 0:  # a count beyond everything
            broken[place : place + 8] = b"\xff" * 8
        path.write_bytes(broken)
        (tmp_path / str(number)).mkdir()
        with contextlib.suppress(ModelError):  # or the damage is where it does no harm
            save_dequantised(path, tmp_path / str(number), "a model")
