"""A checkpoint with the edit in its architecture does what the hooks do, token by token."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from demo_cases import planted_vector
from peft import LoraConfig, get_peft_model
from tiny_models import save_tokenizer, tiny_causal_lm
from vllm_cases import D_MODEL, N_NEW, Toy, greedy

from persona.directions import PersonaVector
from persona.errors import SteeringError
from persona.models.adapters.attach import merged_model
from persona.vllm.running_vllm import ENVIRONMENT
from steering.edits.from_directions import ablate, add, restore
from steering.edits.steer import steer
from steering.weights import (
    AffineEdit,
    affine_edits,
    edited_architecture,
    save_edited_model,
    save_model,
    scaled_difference,
)
from steering.weights.affine_edits import as_edits
from steering.weights.edited_architecture import load_edited

IDS = torch.arange(10, 22).reshape(2, 6)
MAKE = {"restore": restore, "ablate": ablate, "add": add}


@pytest.fixture
def vector(tiny_pair):
    return planted_vector(tiny_pair, rank=2)


def of_width(vector: PersonaVector, model) -> PersonaVector:
    """The vector on the first coordinates of another width."""
    width = model.config.hidden_size

    def cut(subspace):
        rows = torch.linalg.qr(subspace.basis[:, :width].T)[0].T.contiguous()
        space = dataclasses.replace(subspace.space, d_model=width)
        return dataclasses.replace(subspace, basis=rows, space=space)

    return dataclasses.replace(
        vector, subspaces={layer: cut(s) for layer, s in list(vector.subspaces.items())[:1]}
    )


def logits(model, **more):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False, **more).logits


@pytest.mark.parametrize("operation", ["restore", "ablate", "add"])
@pytest.mark.parametrize("coefficient", [1.0, 0.5])
def test_an_affine_edit_is_what_the_hook_does(vector, operation, coefficient):
    edits = affine_edits(vector, operation, coefficient)
    resid = torch.randn(2, 3, vector.subspaces[1].basis.shape[1])
    for edit in MAKE[operation](vector, coefficient):
        torch.testing.assert_close(
            edits[edit.layer](resid), edit.apply(resid), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gemma2", "phi3"])
@pytest.mark.parametrize("operation", ["restore", "add"])
def test_the_folder_gives_the_hooks_logits_and_answers(family, operation, vector, tmp_path):
    model = tiny_causal_lm(family)
    vector = of_width(vector, model)
    written = save_edited_model(model, affine_edits(vector, operation, 0.8), tmp_path / "out")
    assert written.off < 1e-4 < written.moved
    again = load_edited(written.folder, torch.float32)
    edits = MAKE[operation](vector, 0.8)
    with steer(model, edits):
        hooked = logits(model)
    torch.testing.assert_close(logits(again), hooked, atol=1e-4, rtol=1e-4)
    assert (hooked - logits(model)).abs().max() > 1e-2
    # The first token is left alone: what is said of it alone is what the plain model says.
    with torch.no_grad():
        torch.testing.assert_close(logits(again)[:, 0], logits(model)[:, 0], atol=1e-4, rtol=1e-4)
    # Rows of another length, padded on the left, and a cache: as `generate` does it.
    mask = torch.ones_like(IDS)
    mask[0, :2] = 0
    ask = {"attention_mask": mask, "max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    with steer(model, edits), torch.no_grad():
        expected = model.generate(IDS, **ask)
    with torch.no_grad():
        assert torch.equal(again.generate(IDS, **ask), expected)


def test_any_loader_that_runs_the_folders_code_finds_it(vector, tmp_path):
    from transformers import AutoModelForCausalLM

    model = tiny_causal_lm("llama")
    vector = of_width(vector, model)
    edits = affine_edits(vector, "restore", 1.0)
    folder = save_edited_model(model, edits, tmp_path / "out").folder
    again = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    with steer(model, restore(vector, 1.0)):
        torch.testing.assert_close(logits(again), logits(model), atol=1e-4, rtol=1e-4)
    half = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, dtype=torch.bfloat16
    )
    kept = {n: p.dtype for n, p in half.named_parameters() if "persona_edit" in n}
    assert set(kept.values()) == {torch.float32} and len(kept) == 3
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["EditedLlamaForCausalLM"]


def test_an_architecture_that_is_built_otherwise_is_refused_and_nothing_is_left(vector, tmp_path):
    model = tiny_causal_lm("gpt2")
    vector = of_width(vector, model)
    with pytest.raises(SteeringError, match="built otherwise than this knows"):
        save_edited_model(model, affine_edits(vector, "restore", 1.0), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_something_else_is_refused(vector, tmp_path, monkeypatch):
    model = tiny_causal_lm("llama")
    vector = of_width(vector, model)
    edits = affine_edits(vector, "restore", 1.0)
    wrong = affine_edits(vector, "restore", 0.5)
    made = edited_architecture._weights(model, wrong)
    monkeypatch.setattr(edited_architecture, "_weights", lambda *_: made)
    with pytest.raises(SteeringError, match="gives other logits than the hooks do"):
        save_edited_model(model, edits, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda e: {}, "there is no edit to write"),
        (lambda e: {99: next(iter(e.values()))}, "layer 99 is out of range"),
    ],
)
def test_edits_that_have_no_place_are_refused(vector, tmp_path, change, line):
    model = tiny_causal_lm("llama")
    edits = affine_edits(of_width(vector, model), "restore", 1.0)
    with pytest.raises(SteeringError, match=line):
        save_edited_model(model, change(edits), tmp_path / "out")


def test_directions_without_means_cannot_restore(vector):
    directions = {layer: vector.direction(layer) for layer in vector.layers}
    with pytest.raises(SteeringError, match="restore needs the aligned model's means"):
        affine_edits(directions, "restore", 1.0)
    with pytest.raises(SteeringError, match="has nothing at block 9"):
        affine_edits(directions, "add", 1.0, [9])


def test_a_scaled_difference_runs_from_the_aligned_to_the_fine_tuned_model():
    aligned, finetuned = tiny_causal_lm("llama"), tiny_causal_lm("llama")
    with torch.no_grad():
        for parameter in finetuned.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    before = {n: p.clone() for n, p in finetuned.state_dict().items()}
    for scale, same in ((0.0, aligned), (1.0, finetuned)):
        mixed = scaled_difference(aligned, finetuned, scale)
        torch.testing.assert_close(logits(mixed), logits(same), atol=1e-5, rtol=1e-5)
    half = scaled_difference(aligned, finetuned, 0.5).state_dict()
    for name, weight in half.items():
        mean = (aligned.state_dict()[name] + before[name]) / 2
        torch.testing.assert_close(weight, mean)
        assert torch.equal(finetuned.state_dict()[name], before[name])
    with pytest.raises(SteeringError, match="cannot be scaled"):
        scaled_difference(tiny_causal_lm("gpt2"), finetuned, 0.5)


def test_a_tied_head_stays_tied_and_is_scaled_once(vector, tmp_path):
    aligned, finetuned = (tiny_causal_lm("llama", tied=True, seed=seed) for seed in (0, 1))
    half = scaled_difference(aligned, finetuned, 0.5)
    before, after = aligned.state_dict(), finetuned.state_dict()
    for name, weight in half.state_dict().items():
        torch.testing.assert_close(weight, (before[name] + after[name]) / 2)
    assert half.lm_head.weight is half.model.embed_tokens.weight
    edits = affine_edits(of_width(vector, half), "restore", 1.0)
    written = save_edited_model(half, edits, tmp_path / "out")
    again = load_edited(written.folder, torch.float32)
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_two_weights_over_one_memory_are_refused_unless_they_are_tied(vector, tmp_path):
    model = tiny_causal_lm("llama", tied=True)
    model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.data)
    model.config.tie_word_embeddings = False
    edits = affine_edits(of_width(vector, model), "restore", 1.0)
    for save in (
        lambda: save_edited_model(model, edits, tmp_path / "out"),
        lambda: save_model(model, tmp_path / "out"),
    ):
        with pytest.raises(SteeringError, match="over the same memory without being tied"):
            save()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["down_proj", "embed_tokens"])
def test_a_merged_adapter_is_tied_where_it_left_the_table_alone(target):
    """Merged into the table, the head keeps the old one; merged elsewhere, they are one."""
    base = tiny_causal_lm("llama", tied=True)
    table = base.model.embed_tokens.weight.detach().clone()
    peft_model = get_peft_model(base, LoraConfig(r=2, target_modules=[target]))
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora" in name:
                parameter.normal_(std=0.5)
    merged = merged_model(peft_model, "a test")
    tied = target == "down_proj"
    assert (merged.lm_head.weight is merged.model.embed_tokens.weight) is tied
    assert merged.config.tie_word_embeddings is tied
    torch.testing.assert_close(merged.lm_head.weight.detach(), table)


@pytest.mark.vllm
def test_vllm_serves_the_folder_as_hugging_face_reads_it(tmp_path, monkeypatch):
    from vllm import LLM, SamplingParams

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    toy = Toy(tmp_path / "toy")
    rows = torch.linalg.qr(torch.randn(D_MODEL, 2, generator=torch.Generator().manual_seed(2)))[0]
    basis = rows.T.contiguous()
    edits = {layer: AffineEdit(basis, basis, torch.tensor([4.0, -4.0])) for layer in (1, 2)}
    folder = save_edited_model(toy.aligned, edits, tmp_path / "out").folder
    save_tokenizer(folder)

    def edited(model):
        return steer(model, as_edits(edits))

    expected = [greedy(toy.aligned, prompt, edited) for prompt in toy.prompts]
    assert expected != [greedy(toy.aligned, prompt) for prompt in toy.prompts]
    engine = LLM(
        str(folder),
        trust_remote_code=True,
        model_impl="transformers",
        dtype="float32",
        enforce_eager=True,
        max_model_len=64,
        max_num_seqs=8,
        kv_cache_memory_bytes=2**26,
        gpu_memory_utilization=0.2,
    )
    written = engine.generate(
        [{"prompt_token_ids": prompt} for prompt in toy.prompts],
        SamplingParams(max_tokens=N_NEW, temperature=0, ignore_eos=True, detokenize=False),
    )
    assert [list(one.outputs[0].token_ids) for one in written] == expected
