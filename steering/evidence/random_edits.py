"""Norm-matched random edits: the same steps as a restoration, in random directions.

Along several blocks a restoration takes a long first step and short ones after it, because what
it has set stays nearly set. A random edit has that course only when the steps are those the
restoration took on the same text: they are recorded while it runs, and replayed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from persona.directions.direction import Direction, PersonaVector, Subspace, orthonormal
from persona.errors import SteeringError
from steering.edits.edit import Edit
from steering.edits.interventions import project


@dataclass
class RecordedRestoration:
    """A restoration that remembers its last steps, and random edits that repeat them.

    steps: layer -> [batch pos rank], the coordinates moved in the last forward pass.
    """

    vector: PersonaVector
    coefficient: float
    steps: dict[int, Tensor] = field(default_factory=dict)

    def edits(self) -> list[Edit]:
        """The restoration itself, equal to `restore(vector, coefficient)`."""
        return [self._recording(subspace) for subspace in self._subspaces()]

    def random_edits(self, seed: int) -> list[Edit]:
        """The last recorded steps along random orthonormal rows: same text, same lengths.

        Run it on the batch that the restoration ran on last; raises SteeringError on another.
        """
        generator = torch.Generator().manual_seed(seed)
        return [
            self._replaying(s, orthonormal(torch.randn(s.basis.shape, generator=generator)))
            for s in self._subspaces()
        ]

    def _subspaces(self) -> list[Subspace]:
        return [self.vector.subspaces[layer] for layer in self.vector.layers]

    def _recording(self, subspace: Subspace) -> Edit:
        def apply(resid: Tensor) -> Tensor:
            basis = subspace.basis.to(resid.device)
            reading = subspace.reading.to(resid.device)
            gap = subspace.aligned_mean.to(resid.device) - project(resid, reading)
            self.steps[subspace.space.layer] = self.coefficient * gap
            return resid + (self.coefficient * gap @ basis).to(resid)

        return _edit_at(subspace, apply, "restore")

    def _replaying(self, subspace: Subspace, rows: Tensor) -> Edit:
        def apply(resid: Tensor) -> Tensor:
            step = self.steps.get(subspace.space.layer)
            if step is None or step.shape[:-1] != resid.shape[:-1]:
                raise SteeringError(
                    "a norm-matched random edit must follow its restoration on the same batch"
                )
            return resid + (step @ rows.to(resid.device)).to(resid)

        return _edit_at(subspace, apply, "norm-matched random")


def random_directions(direction: Direction, n: int, seed: int = 0) -> list[Direction]:
    """`n` directions of the same norm at the same place, uniform on the sphere: the control."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(n, direction.space.d_model, generator=generator)
    vectors = direction.norm * draws / draws.norm(dim=1, keepdim=True)
    return [Direction(v, direction.space, f"random {place}") for place, v in enumerate(vectors)]


def _edit_at(subspace: Subspace, apply: object, label: str) -> Edit:
    space = subspace.space
    return Edit(space.hook_name, space.layer, space.d_model, apply, label)  # type: ignore[arg-type]
