"""A reordered model is the same function and the same learner; a perturbed one is neither."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_causal_lm

from persona.data.types import Dialogue, Turn
from persona.errors import ModelError
from steering.lab.subliminal.elsewhere import (
    _gradients,
    _matrices,
    gradient_cosine,
    permuted,
    perturbed,
    perturbed_by_damage,
)


@pytest.fixture(scope="module")
def model(long_llama):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(long_llama).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def dialogues(tiny_chat):
    texts = [Dialogue((Turn("user", f"{i}?"), Turn("assistant", f"It is {i}."))) for i in range(4)]
    return tiny_chat.encode_all(texts)


def logits(model):
    ids = torch.randint(0, 261, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_a_reordered_model_says_the_same_with_other_weights(model):
    other = permuted(model, 0)
    assert torch.allclose(logits(other), logits(model), atol=1e-4)
    changed = 0
    for mine, theirs in zip(_matrices(other), _matrices(model), strict=True):
        changed += not torch.equal(mine, theirs)
        assert torch.equal(mine.flatten().sort().values, theirs.flatten().sort().values)
    # Two key-value groups stay in their order every second time; neurons never do.
    assert changed >= 3 * 3
    assert not torch.equal(_matrices(permuted(model, 1))[-1], _matrices(other)[-1])


def test_the_gradient_of_a_reordered_model_is_the_reordered_gradient(model, dialogues):
    """Hence training commutes with the order, and the reordered student is no other learner."""
    mine = _gradients(model, dialogues)
    theirs = _gradients(permuted(model, 0), dialogues)
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a.flatten().sort().values, b.flatten().sort().values, atol=1e-5)


def test_grouped_heads_with_biases_keep_their_function():
    model = tiny_causal_lm("qwen2")
    assert torch.allclose(logits(permuted(model, 3)), logits(model), atol=1e-4)


def test_a_model_without_gated_mlps_is_refused():
    with pytest.raises(ModelError, match="models of the Llama kind only"):
        permuted(tiny_causal_lm("gpt_neox"), 0)


def test_more_noise_is_further_away_for_training(model, dialogues):
    near, far = (
        gradient_cosine(model, perturbed(model, noise, 0), dialogues) for noise in (0.02, 1.0)
    )
    assert gradient_cosine(model, model, dialogues) == pytest.approx(1)
    assert near > 0.9 > far
    assert all(not matrix.requires_grad for matrix in _matrices(model))


def test_the_noise_is_as_much_as_costs_the_stated_damage(model, dialogues):
    from persona.activations.passes import read_responses

    def cost(candidate):
        found = read_responses(candidate, dialogues).log_prob
        return -sum(found) / len(found)

    other, noise = perturbed_by_damage(model, dialogues, seed=0, damage_nats=0.05)
    assert 0 < noise <= 1
    below = perturbed(model, noise - 2**-6, 0)
    assert cost(below) - cost(model) < 0.05
    assert noise == 1 or cost(other) - cost(model) >= 0.05
