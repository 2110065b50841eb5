"""The norm-matched null takes the restoration's own steps, elsewhere."""

from __future__ import annotations

import pytest
import torch

from persona.directions import PersonaVector, Subspace, orthonormal
from persona.errors import SteeringError
from persona.models.hooks import hooked
from steering import restore, steer
from steering.evidence.random_edits import RecordedRestoration


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
    restoration = RecordedRestoration(vector, 0.8)
    with tiny_pair.active("finetuned") as bridge, torch.no_grad():
        with steer(bridge, restore(vector, 0.8)):
            expected = bridge(ids)
        with steer(bridge, restoration.edits()):
            torch.testing.assert_close(bridge(ids), expected, atol=1e-5, rtol=1e-5)
        taken = {layer: step.clone() for layer, step in restoration.steps.items()}
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
    restoration = RecordedRestoration(planted(tiny_pair), 1.0)
    with tiny_pair.active("finetuned") as bridge, torch.no_grad():
        with steer(bridge, restoration.edits()):
            bridge(torch.arange(10, 16)[None])
        with pytest.raises(SteeringError, match="same batch"):
            with steer(bridge, restoration.random_edits(0)):
                bridge(torch.arange(10, 15)[None])
