"""The ways of taking a direction out that compare_edits.py compares, each with its strengths.

A way is a function of what it is made of and of a strength: 0 does nothing, and more does more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from persona.directions import Direction, PersonaVector
from steering import ablate, add, restore
from steering.edits import EVERY_WRITE, Edit, set_coordinates
from steering.edits.interventions import cap


@dataclass(frozen=True)
class Ingredients:
    """A direction by block, and the subspaces made of it. one: the block of those used alone."""

    directions: Mapping[int, Direction]
    vector: PersonaVector
    one: int


def add_everywhere(made: Ingredients, strength: float) -> list[Edit]:
    return [e for d in made.directions.values() for e in add(d, -strength)]


def add_at_one(made: Ingredients, strength: float) -> list[Edit]:
    return add(made.directions[made.one], -strength)


def ablate_blocks(made: Ingredients, strength: float) -> list[Edit]:
    return ablate(made.vector, strength)


def restore_blocks(made: Ingredients, strength: float) -> list[Edit]:
    return restore(made.vector, strength)


def cap_blocks(made: Ingredients, strength: float) -> list[Edit]:
    """At strength 1 the cap is the aligned mean; at 0 it lies four shifts above, out of reach."""
    edits = []
    for layer, subspace in made.vector.subspaces.items():
        mean, shift = subspace.aligned_mean, made.directions[layer].norm
        threshold = float(mean[0] + 4 * (1 - strength) * shift)
        edits += set_coordinates(made.directions[layer], cap, threshold)
    return edits


def ablate_writes(made: Ingredients, strength: float) -> list[Edit]:
    return ablate(made.directions[made.one], strength, EVERY_WRITE)


Way = Callable[[Ingredients, float], list[Edit]]
WAYS: dict[str, tuple[Way, tuple[float, ...]]] = {
    "add, one block": (add_at_one, (0, 1, 2, 4, 8, 16)),
    "add, all blocks": (add_everywhere, (0, 0.125, 0.25, 0.5, 1, 2)),
    "ablate to zero": (ablate_blocks, (0, 0.25, 0.5, 1, 1.5, 2)),
    "restore": (restore_blocks, (0, 0.5, 1, 1.5, 2, 4)),
    "cap": (cap_blocks, (0, 0.5, 1, 1.5, 2, 3)),
    "ablate every write": (ablate_writes, (0, 0.25, 0.5, 0.75, 1, 1.25)),
}
