"""Norm-matched random edits: the same steps as an edit, in random directions.

Along several blocks a restoration takes a long first step and short ones after it, because what
it has set stays nearly set. A random edit has that course only when the steps are those that were
taken on the same text: they are recorded while the edit runs, and replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from persona.directions.direction import Direction, orthonormal
from persona.errors import SteeringError
from steering.edits.edit import Edit, Placed
from steering.edits.interventions import Intervention


class RecordedSteps:
    """Edits that remember the steps of their last pass, and random edits that repeat those.

    edits: each knows its `basis` and stands at a hook of its own.
    steps: place in `edits` -> [batch pos rank], the coordinates moved in the last forward pass.
    """

    def __init__(self, edits: Sequence[Edit]) -> None:
        """Raises: SteeringError for an edit without a basis, or one that is made for all blocks."""
        self.steps: dict[int, Tensor] = {}
        self._made = list(edits)
        self._bases: list[Tensor] = []
        for edit in self._made:
            if edit.basis is None or "*" in edit.hook_name:
                raise SteeringError(
                    f"the steps of '{edit.label}' at {edit.hook_name} cannot be recorded: an edit "
                    "must know the directions it moves along, and be of one block"
                )
            self._bases.append(edit.basis)

    def edits(self) -> list[Edit]:
        """The edits themselves, recording."""
        return [replace(edit, apply=self._recording(i)) for i, edit in enumerate(self._made)]

    def random_edits(self, seed: int) -> list[Edit]:
        """The last recorded steps along random orthonormal rows: same text, same lengths.

        Run it on the batch that the edits ran on last; raises SteeringError on another.
        """
        generator = torch.Generator().manual_seed(seed)
        drawn = [orthonormal(torch.randn(rows.shape, generator=generator)) for rows in self._bases]
        return [
            replace(
                edit,
                apply=self._replaying(place, rows),
                label="norm-matched random",
                kind="adds",
                basis=rows,
            )
            for place, (edit, rows) in enumerate(zip(self._made, drawn, strict=True))
        ]

    def _recording(self, place: int) -> Intervention:
        edit, basis = self._made[place], Placed(self._bases[place])

        def apply(resid: Tensor) -> Tensor:
            # In float32: the difference of two bfloat16 residuals has lost the short steps.
            wide = resid.float()
            self.steps[place] = (edit.apply(wide) - wide) @ basis.on(wide.device)[0].to(wide).T
            return edit.apply(resid)

        return apply

    def _replaying(self, place: int, rows: Tensor) -> Intervention:
        placed = Placed(rows)

        def apply(resid: Tensor) -> Tensor:
            step = self.steps.get(place)
            if step is None or step.shape[:-1] != resid.shape[:-1]:
                raise SteeringError(
                    "a norm-matched random edit must follow its own edit on the same batch"
                )
            return resid + (step @ placed.on(step.device)[0].to(step)).to(resid)

        return apply


def random_directions(direction: Direction, n: int, seed: int = 0) -> list[Direction]:
    """`n` directions of the same norm at the same place, uniform on the sphere: the control."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(n, direction.space.d_model, generator=generator)
    vectors = direction.norm * draws / draws.norm(dim=1, keepdim=True)
    return [Direction(v, direction.space, f"random {place}") for place, v in enumerate(vectors)]
