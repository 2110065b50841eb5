"""Block and coefficient: the largest that neutral text bears, then the highest score."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from persona.data import NeutralText
from persona.errors import SteeringError
from steering.traits.trait_place import (
    bearable,
    best_place,
    candidate_blocks,
    damage_of,
    vector_at,
)


def test_blocks_lie_between_the_depths_and_few_blocks_give_few():
    assert candidate_blocks(30, 4) == [9, 14, 18, 23]
    assert candidate_blocks(3, 4) == [1, 2]
    assert candidate_blocks(1, 4) == [0]
    assert candidate_blocks(30, 4, known=[2, 15, 23]) == [15, 23]


def damage(values):
    return pd.DataFrame(
        [
            {"direction": name, "coefficient": c, "ce_rise_nats": rise}
            for name, rises in values.items()
            for c, rise in zip((0.5, 1.0, 2.0), rises, strict=True)
        ]
    )


def test_the_largest_bearable_coefficient_is_taken_and_none_behind_a_worse_one():
    found = bearable(
        damage({"1": (0.0, 0.1, 0.3), "2": (0.0, 0.3, 0.1), "3": (0.5, 1.0, 2.0)}), 0.2
    )
    assert found == {"1": (1.0, 0.1), "2": (0.5, 0.0), "3": (0.5, 0.5)}


def test_the_highest_score_wins_and_of_equal_ones_the_gentler():
    nan = float("nan")
    bears = {1: (1.0, 0.2), 2: (2.0, 0.1), 3: (3.0, 0.0)}
    place = best_place({1: [50.0, nan], 2: [50.0, 50.0], 3: [nan, 40.0]}, bears)
    assert (place.layer, place.coefficient, place.damage, place.score) == (2, 2.0, 0.1, 50.0)
    with pytest.raises(SteeringError, match="no steered answer has a trait score"):
        best_place({1: [nan]}, bears)


def test_damage_is_above_the_plain_model_and_grows_with_the_coefficient(tiny_pair):
    vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    texts = [NeutralText(f"n{i}", "made up", f"{i}?", "tea") for i in range(3)]
    directions = {"2": vector_at(tiny_pair, vectors, 2)}
    found = damage_of(tiny_pair, directions, [1e-6, 5.0], texts)
    assert len(found) == 6
    small, large = (found[found["coefficient"] == c] for c in (1e-6, 5.0))
    assert small["ce_rise_nats"].abs().max() < 1e-3 and small["kl_nats"].max() < 1e-3
    assert large["kl_nats"].mean() > 0.1
