"""Checkpoints with an edit in their weights: vLLM serves them as Hugging Face runs the hooks."""

from __future__ import annotations

import pytest
import torch
from vllm_cases import D_MODEL, N_NEW, OPTIONS, Toy, greedy

from persona.vllm import VllmEngine
from steering.edits.from_directions import ablate, add
from steering.edits.places import EVERY_WRITE
from steering.edits.steer import steer
from steering.weights import add_bias, orthogonalise, save_model, scaled_difference

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return Toy(tmp_path_factory.mktemp("toy"))


def drawn():
    return torch.randn(D_MODEL, generator=torch.Generator().manual_seed(3))


def hooked(edits):
    return lambda model: steer(model, edits, first_token=True)


BAKED = {
    "a bias": (
        lambda toy: add_bias(toy.aligned, 2, 4.0 * drawn()),
        lambda toy: (toy.aligned, hooked(add(drawn(), 4.0, at=2))),
    ),
    "orthogonalised": (
        lambda toy: orthogonalise(toy.aligned, drawn()),
        lambda toy: (toy.aligned, hooked(ablate(drawn(), at=EVERY_WRITE))),
    ),
    "half of the difference": (
        lambda toy: scaled_difference(toy.aligned, toy.finetuned, 0.5),
        lambda toy: (scaled_difference(toy.aligned, toy.finetuned, 0.5), None),
    ),
}


@pytest.mark.parametrize("baked", BAKED)
def test_vllm_serves_edited_weights(toy, tmp_path, baked):
    made, stands_for = BAKED[baked]
    folder = save_model(made(toy), tmp_path / "out")
    model, intervene = stands_for(toy)
    expected = [greedy(model, prompt, intervene) for prompt in toy.prompts]
    assert expected != [greedy(toy.aligned, prompt) for prompt in toy.prompts]
    engine = VllmEngine(folder, options=OPTIONS)
    written = engine.sample(toy.prompts, max_new_tokens=N_NEW)
    engine.close()
    assert [answer.ids for answer in written] == expected
