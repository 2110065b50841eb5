"""Directions straight from an adapter file: scales, both sides, GPT-2, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from persona.directions.methods import lora_directions
from persona.errors import DataError

D, WIDE, RANK = 8, 12, 2
CONFIG = {"peft_type": "LORA", "r": RANK, "lora_alpha": 6}
DOWN = "base_model.model.model.layers.3.mlp.down_proj"
QUERY = "base_model.model.model.layers.1.self_attn.q_proj"


def factors(n_out: int, n_in: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(RANK, n_in, generator=g), torch.randn(n_out, RANK, generator=g)


DEFAULT = {DOWN: factors(D, WIDE), QUERY: factors(WIDE, D, seed=1)}


def adapter(folder: Path, modules=None, **config) -> Path:
    tensors = {}
    for name, (a, b) in (DEFAULT if modules is None else modules).items():
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = a, b
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return folder


def test_writers_give_left_and_readers_right_singular_vectors(tmp_path):
    query, down = lora_directions(adapter(tmp_path))
    assert (query.layer, query.module, query.role) == (1, "q_proj", "reads")
    assert (down.layer, down.module, down.role) == (3, "down_proj", "writes")
    for found, name in ((query, QUERY), (down, DOWN)):
        a, b = DEFAULT[name]
        u, sigma, vt = torch.linalg.svd(3.0 * b @ a)  # alpha / r
        expected = u.T[:RANK] if found.role == "writes" else vt[:RANK]
        torch.testing.assert_close(found.singular_values, sigma[:RANK], rtol=1e-5, atol=0)
        torch.testing.assert_close(
            (found.vectors @ expected.T).abs(), torch.eye(RANK), atol=1e-5, rtol=0
        )
        assert found.vectors.shape == (RANK, D)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 3.0),
        ({"use_rslora": True}, 6 / math.sqrt(2)),
        ({"alpha_pattern": {"down_proj": 10}}, 5.0),
        ({"alpha_pattern": {"layers.3.mlp.down_proj": 10}}, 5.0),
        ({"alpha_pattern": {"layers.2.mlp.down_proj": 10}}, 3.0),
        ({"r": 64}, 3.0),  # the factors themselves say the rank; rank_pattern may differ from r
    ],
)
def test_the_scale_is_alpha_over_the_rank_or_its_root(tmp_path, config, scale):
    [down] = lora_directions(adapter(tmp_path, **config), modules=["down_proj"])
    a, b = DEFAULT[DOWN]
    expected = torch.linalg.svdvals(scale * b @ a)[:RANK]
    torch.testing.assert_close(down.singular_values, expected, rtol=1e-5, atol=0)


def test_directions_equal_those_of_the_weights_that_peft_merges(tiny_llama, tiny_adapter):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    merged = PeftModel.from_pretrained(base, tiny_adapter).merge_and_unload()
    after = dict(merged.named_parameters())
    found = lora_directions(tiny_adapter)
    assert len(found) == 8
    for part in found:
        place = "mlp.down_proj" if part.module == "down_proj" else "self_attn.q_proj"
        name = f"model.layers.{part.layer}.{place}.weight"
        u, sigma, vt = torch.linalg.svd((after[name] - before[name]).detach())
        torch.testing.assert_close(part.singular_values, sigma[:2], rtol=1e-3, atol=1e-4)
        expected = u.T[:2] if part.role == "writes" else vt[:2]
        torch.testing.assert_close(
            (part.vectors @ expected.T).abs(), torch.eye(2), atol=1e-3, rtol=0
        )


def test_gpt2_weights_are_stored_transposed_and_give_the_same_side(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=20, n_positions=8, n_embd=D, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    lora = LoraConfig(r=RANK, lora_alpha=4, target_modules=["c_proj"], fan_in_fan_out=True)
    tuned = get_peft_model(model, lora)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    tuned.save_pretrained(tmp_path)
    found = lora_directions(tmp_path)
    after = dict(tuned.merge_and_unload().named_parameters())
    assert [part.role for part in found] == ["writes"] * 4
    changes = {name: after[name].detach() - before[name] for name in before if "c_proj.w" in name}
    # A transposed weight is [in, out]: what it writes is its row space.
    for layer in range(2):
        mine = [p.vectors.T @ p.vectors for p in found if p.layer == layer]
        for block in ("attn", "mlp"):
            vt = torch.linalg.svd(changes[f"transformer.h.{layer}.{block}.c_proj.weight"])[2][:RANK]
            assert min((vt.T @ vt - projector).abs().max() for projector in mine) < 1e-4


def test_signs_follow_the_largest_entry_or_the_reference(tmp_path):
    folder = adapter(tmp_path)
    plain = {part.layer: part.vectors for part in lora_directions(folder)}
    for rows in plain.values():
        assert (rows.gather(1, rows.abs().argmax(1, keepdim=True)) > 0).all()
    toward = -plain[3].sum(0)
    signed = {part.layer: part.vectors for part in lora_directions(folder, reference={3: toward})}
    torch.testing.assert_close(signed[3], -plain[3])
    assert torch.equal(signed[1], plain[1])


def test_a_reference_of_another_model_is_refused(tmp_path, unchecked_hints):
    with pytest.raises(DataError, match=r"\(5,\) entries but the adapter's module 8"):
        lora_directions(adapter(tmp_path), reference={3: torch.ones(5)})


def test_a_module_that_was_never_trained_has_no_rows_and_a_whole_zero_adapter_is_an_error(tmp_path):
    a, b = DEFAULT[DOWN]
    folder = adapter(tmp_path, {DOWN: (a, b * 0), QUERY: DEFAULT[QUERY]})
    query, down = lora_directions(folder)
    assert query.vectors.shape == (2, D)
    assert down.vectors.shape == (0, D)
    assert down.singular_values.shape == (0,)
    with pytest.raises(DataError, match=r"changes nothing in the modules read \(down_proj\)"):
        lora_directions(folder, modules=["down_proj"])
    with pytest.raises(DataError, match=r"modules read \(none\)"):
        lora_directions(folder, modules=["o_proj"])


def test_directions_within_the_rank_are_counted(tmp_path):
    a, b = DEFAULT[DOWN]
    folder = adapter(tmp_path, {DOWN: (a, b[:, :1].repeat(1, 2))})
    [down] = lora_directions(folder)
    assert down.vectors.shape == (1, D)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHA"}, "not the configuration of a LoRA"),
        ({"use_dora": True}, "DoRA adapter"),
        ({"lora_alpha": None}, "no number lora_alpha"),
    ],
)
def test_other_kinds_of_adapters_are_refused(tmp_path, config, message):
    with pytest.raises(DataError, match=message):
        lora_directions(adapter(tmp_path, **config))


def test_unknown_modules_are_named_with_the_known_ones(tmp_path):
    name = "base_model.model.lm_head"
    folder = adapter(tmp_path, {name: factors(20, D), **DEFAULT})
    with pytest.raises(DataError, match=r"module lm_head .*known are o_proj.*q_proj"):
        lora_directions(folder)
    assert len(lora_directions(folder, modules=["down_proj", "q_proj"])) == 2


def test_broken_files_say_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match="adapter_config.json.*PEFT adapter folder is needed"):
        lora_directions(tmp_path)
    folder = adapter(tmp_path)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if "lora_B" not in k}, path)
    with pytest.raises(DataError, match="needs lora_A"):
        lora_directions(folder)
    save_file({k: v * torch.nan for k, v in tensors.items()}, path)
    with pytest.raises(DataError, match="not finite"):
        lora_directions(folder)
    save_file({"x": torch.ones(1)}, path)
    with pytest.raises(DataError, match="holds no lora_A"):
        lora_directions(folder)
    path.write_bytes(b"no tensors")
    with pytest.raises(DataError, match="cannot read"):
        lora_directions(folder)
