"""The norm-matched null takes the restoration's own steps, elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from persona.directions import ActivationSpace, Direction, PersonaVector, Subspace, orthonormal
from persona.errors import SteeringError
from persona.models.hooks import hooked
from steering import add, restore, steer
from steering.evidence.random_edits import RecordedSteps


def planted(pair):
    g = torch.Generator().manual_seed(0)
    return PersonaVector(
        {
            layer: Subspace(
                orthonormal(torch.randn(2, pair.d_model, generator=g)),
                torch.randn(2, generator=g),
                torch.zeros(2),
                pair.space(layer),
            )
            for layer in (1, 2)
        },
        "planted",
    )


def test_recording_changes_nothing_and_random_steps_have_its_lengths(tiny_pair):
    ids = torch.arange(10, 22).reshape(2, 6)
    vector = planted(tiny_pair)
    restoration = RecordedSteps(restore(vector, 0.8))
    with tiny_pair.active("finetuned") as bridge, torch.no_grad():
        with steer(bridge, restore(vector, 0.8)):
            expected = bridge(ids)
        with steer(bridge, restoration.edits()):
            torch.testing.assert_close(bridge(ids), expected, atol=1e-5, rtol=1e-5)
        taken = {layer: restoration.steps[place].clone() for place, layer in enumerate((1, 2))}
        moves = {}
        for layer in (1, 2):
            before, after = [], []
            keep = hooked(bridge, [(f"blocks.{layer}.hook_resid_post", before.append)])
            seen = hooked(bridge, [(f"blocks.{layer + 1}.hook_in", after.append)])
            with keep, steer(bridge, restoration.random_edits(7)), seen:
                bridge(ids)
            moves[layer] = (after[0] - before[0])[:, 1:]
    for layer in (1, 2):
        torch.testing.assert_close(
            moves[layer].norm(dim=-1), taken[layer][:, 1:].norm(dim=-1), atol=1e-4, rtol=1e-4
        )
        overlap = moves[layer] @ vector.subspaces[layer].basis.T
        assert overlap.norm() < 0.9 * moves[layer].norm()


def test_a_replay_on_another_text_is_refused(tiny_pair):
    restoration = RecordedSteps(restore(planted(tiny_pair), 1.0))
    with tiny_pair.active("finetuned") as bridge, torch.no_grad():
        with steer(bridge, restoration.edits()):
            bridge(torch.arange(10, 16)[None])
        with pytest.raises(SteeringError, match="same batch"):
            with steer(bridge, restoration.random_edits(0)):
                bridge(torch.arange(10, 15)[None])


def test_the_steps_of_an_addition_are_repeated_with_its_length():
    space = ActivationSpace("m", "r", "blocks.3.hook_resid_post", 3, 8)
    direction = Direction(torch.arange(1.0, 9.0), space, "ramp")
    recorded = RecordedSteps(add(direction, 0.5))
    [given], [drawn] = recorded.edits(), recorded.random_edits(0)
    resid = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    torch.testing.assert_close(given.apply(resid), add(direction, 0.5)[0].apply(resid))
    # In bfloat16 the step is kept as it was meant, not as it was rounded beside the residual.
    length = torch.full((2, 3), 0.5 * direction.norm)
    torch.testing.assert_close(recorded.steps[0].norm(dim=-1), length, rtol=1e-5, atol=0)
    torch.testing.assert_close(drawn.basis.norm(), torch.tensor(1.0))
    moved = drawn.apply(resid.float()) - resid.float()
    torch.testing.assert_close(moved.norm(dim=-1), length, rtol=1e-4, atol=0)


@pytest.mark.parametrize("change", [{"basis": None}, {"hook_name": "blocks.*.hook_resid_post"}])
def test_an_edit_whose_steps_cannot_be_told_is_refused(tiny_pair, change):
    edit = replace(restore(planted(tiny_pair))[0], **change)
    with pytest.raises(SteeringError, match="cannot be recorded"):
        RecordedSteps([edit])
