"""Edits of block outputs as numbers, in the one form that all of them have: h + (t - h R^T) B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from persona.directions.direction import Direction, PersonaVector
from persona.errors import SteeringError
from steering.edits.edit import Edit, require_finite
from steering.edits.places import hook_names

Operation = Literal["restore", "ablate", "add"]


@dataclass(frozen=True)
class AffineEdit:
    """What is done to the residual stream h [d_model] behind one block.

    written: [rank d_model], the rows B that are written. read: [rank d_model], the rows R that read
        the coordinates, zero for what is added whatever is there. target: [rank], what is written
        where the coordinates are zero. Float32, residual-stream units.
    """

    written: Float[Tensor, "rank d_model"]
    read: Float[Tensor, "rank d_model"]
    target: Float[Tensor, " rank"]

    def __call__(self, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The edited activation, of the same number format."""
        left = self.target - resid.float() @ self.read.T
        return (resid.float() + left @ self.written).to(resid.dtype)


def affine_edits(
    vector: PersonaVector | Mapping[int, Direction],
    operation: Operation,
    coefficient: float,
    layers: Sequence[int] | None = None,
) -> dict[int, AffineEdit]:
    """Layer -> the edit that `restore`, `ablate` or `add` makes there of a vector.

    vector: a persona vector, or directions by block, which cannot restore. layers: some of its
        blocks; default all.
    Raises: SteeringError for a coefficient that is not finite, to restore without means, or a block
        that the vector does not have.
    """
    require_finite(coefficient)
    own = sorted(vector.subspaces if isinstance(vector, PersonaVector) else vector)
    chosen = own if layers is None else list(layers)
    if lacking := sorted(set(chosen) - set(own)):
        raise SteeringError(f"the vector has nothing at block {lacking[0]}; it has blocks {own}")
    return {layer: _at(vector, layer, operation, coefficient) for layer in chosen}


def _at(
    vector: PersonaVector | Mapping[int, Direction],
    layer: int,
    operation: Operation,
    coefficient: float,
) -> AffineEdit:
    if isinstance(vector, PersonaVector):
        subspace = vector.subspaces[layer]
        basis, read = subspace.basis.float(), subspace.effective_readout.float()
        shift = (subspace.finetuned_mean - subspace.aligned_mean).float() @ basis
        target = subspace.aligned_mean.float()
    else:
        basis = read = vector[layer].unit.float()[None]
        shift, target = vector[layer].vector.float(), None
    if operation == "add":
        constant = coefficient * shift[None]
        return AffineEdit(constant, torch.zeros_like(constant), torch.ones(1))
    if operation == "ablate":
        target = torch.zeros(len(basis))
    if target is None:
        raise SteeringError(
            "restore needs the aligned model's means, which these vectors do not hold; take add or "
            "ablate"
        )
    return AffineEdit(coefficient * basis, read, target)


def as_edits(edits: Mapping[int, AffineEdit]) -> list[Edit]:
    """The same as hooks, to compare with."""
    return [
        Edit(name, layer, edit.written.shape[1], edit, "affine", "sets")
        for layer, edit in edits.items()
        for name in hook_names(layer)
    ]
