"""A direction at one place, and a persona vector: what is removed or added, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona.errors import DataError, SpaceMismatchError
from persona.models.space import ActivationSpace

INDEPENDENT_ABOVE = 1e-5
"""Least length that a unit vector keeps outside the span of those before it."""
SHRINKAGE = 0.1
"""Share of the mean variance that a covariance gets in every direction before it is inverted."""


@dataclass(frozen=True)
class Direction:
    """One vector of one activation space, pointing toward the trait (bad, fine-tuned).

    `-direction` points away from it, `2 * direction` is twice as long.

    vector: [d_model], float32, finite and non-zero; its norm is in residual-stream units.
    method: how it was made, for instance "answer_effect_finetuned".

    Examples:
        >>> import torch
        >>> from persona.directions import ActivationSpace, Direction
        >>> space = ActivationSpace("m", "r", "blocks.3.hook_resid_post", layer=3, d_model=2)
        >>> direction = Direction(torch.tensor([3.0, 4.0]), space, "difference_of_means")
        >>> direction.norm, direction.unit
        (5.0, tensor([0.6000, 0.8000]))
        >>> (-2 * direction).vector
        tensor([-6., -8.])
    """

    vector: Float[Tensor, " d_model"]
    space: ActivationSpace
    method: str

    __array_ufunc__ = None  # a number of NumPy on the left leaves the product to `__rmul__`

    def __post_init__(self) -> None:
        if self.vector.shape != (self.space.d_model,):
            raise SpaceMismatchError(
                f"direction {self.method} has shape {tuple(self.vector.shape)} but "
                f"{self.space.hook_name} of {self.space.model} has d_model={self.space.d_model}"
            )
        if not self.vector.isfinite().all():
            raise DataError(f"direction {self.method} at {self.space.hook_name} is not finite")
        if not self.vector.any():
            raise DataError(f"direction {self.method} at {self.space.hook_name} is zero")

    def __neg__(self) -> Direction:
        return replace(self, vector=-self.vector, method=f"-{self.method}")

    def __mul__(self, factor: float | np.number[Any]) -> Direction:
        """The direction `factor` times as long. Raises: DataError for 0, NaN or infinity."""
        if not isinstance(factor, Real):
            return NotImplemented
        number = float(factor)
        return replace(self, vector=self.vector * number, method=f"{number:g} * {self.method}")

    __rmul__ = __mul__

    @property
    def norm(self) -> float:
        return float(self.vector.double().norm())

    @property
    def unit(self) -> Float[Tensor, " d_model"]:
        """[d_model], float32; by a float64 norm, since squares of 1e-30 or 1e30 leave float32."""
        wide = self.vector.double()
        return (wide / wide.norm()).float()

    def cosine(self, other: Direction) -> float:
        """Cosine with a direction of the same space; raises SpaceMismatchError otherwise."""
        self.space.require_same(other.space)
        return float(self.unit @ other.unit)


@dataclass(frozen=True)
class Subspace:
    """Orthonormal directions at one block output, and where each model's answers lie on them.

    basis: [rank d_model], orthonormal rows: the directions that are written.
    readout: [rank d_model], rows that read the coordinates; readout basis^T is the identity. None
        reads with the basis itself, by orthogonal projection; see `whitened_readout`.
    aligned_mean: [rank], coordinates of the aligned model's good answers, each answer weighing one.
    finetuned_mean: [rank], the same of the fine-tuned model's bad answers.
    """

    basis: Float[Tensor, "rank d_model"]
    aligned_mean: Float[Tensor, " rank"]
    finetuned_mean: Float[Tensor, " rank"]
    space: ActivationSpace
    readout: Float[Tensor, "rank d_model"] | None = None

    def __post_init__(self) -> None:
        rank, d_model = self.basis.shape
        if not 1 <= rank <= d_model:
            raise DataError(f"a subspace of d_model={d_model} cannot have rank {rank}")
        if d_model != self.space.d_model:
            raise SpaceMismatchError(
                f"subspace has d_model={d_model} but {self.space.hook_name} of {self.space.model} "
                f"has d_model={self.space.d_model}"
            )
        if self.aligned_mean.shape != (rank,) or self.finetuned_mean.shape != (rank,):
            raise DataError(f"a subspace of rank {rank} needs {rank} means of each model")
        parts = (self.basis, self.effective_readout, self.aligned_mean, self.finetuned_mean)
        if self.effective_readout.shape != self.basis.shape:
            raise DataError(f"readout and basis differ in shape at {self.space.hook_name}")
        if not all(part.isfinite().all() for part in parts):
            raise DataError(f"subspace at {self.space.hook_name} is not finite")
        for what, rows in (("orthonormal", self.basis), ("read exactly", self.effective_readout)):
            drift = (rows.double() @ self.basis.double().T - torch.eye(rank)).abs().max()
            if drift > 1e-4:
                raise DataError(
                    f"basis at {self.space.hook_name} is not {what} (off by {drift:.1e})"
                )

    @property
    def rank(self) -> int:
        return len(self.basis)

    @property
    def effective_readout(self) -> Float[Tensor, "rank d_model"]:
        """The rows that read coordinates: `readout`, or the basis itself."""
        return self.basis if self.readout is None else self.readout


@dataclass(frozen=True)
class PersonaVector:
    """What is restored, ablated or added, at each of one or more blocks of one model.

    subspaces: layer -> Subspace, every one of the same model and rank.
    method: the candidate it came from. coefficient: how far toward the mean (1 = onto it).
    card: JSON-able facts about how it was made, kept with it in storage.
    """

    subspaces: Mapping[int, Subspace]
    method: str
    coefficient: float = 1.0
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.subspaces:
            raise DataError("a persona vector needs at least one block")
        first = next(iter(self.subspaces.values()))
        for layer, subspace in self.subspaces.items():
            if subspace.space.layer != layer:
                raise SpaceMismatchError(
                    f"the subspace filed under layer {layer} is of {subspace.space.hook_name}"
                )
            subspace.space.require_same_model(first.space)
            if subspace.rank != first.rank:
                raise DataError(f"ranks differ between blocks: {subspace.rank} and {first.rank}")

    @property
    def layers(self) -> list[int]:
        return sorted(self.subspaces)

    @property
    def rank(self) -> int:
        return next(iter(self.subspaces.values())).rank

    @property
    def hook_names(self) -> list[str]:
        return [self.subspaces[layer].space.hook_name for layer in self.layers]

    @property
    def norms(self) -> list[float]:
        """By block: distance between the fine-tuned and the aligned mean within the subspace."""
        return [
            float((s.finetuned_mean - s.aligned_mean).norm())
            for s in (self.subspaces[layer] for layer in self.layers)
        ]

    def direction(self, layer: int) -> Direction:
        """The line from the aligned to the fine-tuned mean within the subspace at one block."""
        if layer not in self.subspaces:
            raise DataError(f"this persona vector has blocks {self.layers}, not {layer}")
        subspace = self.subspaces[layer]
        shift = (subspace.finetuned_mean - subspace.aligned_mean) @ subspace.basis
        return Direction(shift, subspace.space, self.method)


def orthonormal(vectors: Float[Tensor, "rank d_model"]) -> Float[Tensor, "rank d_model"]:
    """Orthonormal rows with the same span, in order (Gram-Schmidt by QR, signs kept).

    Raises: DataError when one of the vectors is not finite or zero, or when they are linearly
    dependent to float32 accuracy.

    Examples:
        >>> import torch
        >>> from persona.directions import orthonormal
        >>> orthonormal(torch.tensor([[3.0, 0.0, 0.0], [1.0, 2.0, 0.0]])).abs()
        tensor([[1., 0., 0.],
                [0., 1., 0.]])
    """
    if not vectors.isfinite().all():
        raise DataError("these vectors are not finite (NaN or infinite); they span no subspace")
    if not vectors.any(dim=1).all():
        raise DataError("one of these vectors is zero; it has no direction")
    q, r = _qr(vectors)
    if not (r.diagonal().abs() > INDEPENDENT_ABOVE).all():
        raise DataError("these vectors are linearly dependent; they span no such subspace")
    return (q * r.diagonal().sign()).T.float().contiguous()


def are_independent(vectors: Float[Tensor, "rank d_model"]) -> bool:
    """Whether finite vectors span a subspace of as many dimensions, to float32 accuracy."""
    return bool((_qr(vectors)[1].diagonal().abs() > INDEPENDENT_ABOVE).all())


def _qr(vectors: Float[Tensor, "rank d_model"]) -> tuple[Tensor, Tensor]:
    """QR of the unit vectors as columns; a zero one stays zero."""
    wide = vectors.double()
    scaled = wide / wide.norm(dim=1, keepdim=True).clamp(min=1e-300)
    q, r = torch.linalg.qr(scaled.T)
    return q, r


def whitened_readout(
    basis: Float[Tensor, "rank d_model"],
    covariance: Float[Tensor, "d_model d_model"],
    shrinkage: float = SHRINKAGE,
) -> Float[Tensor, "rank d_model"]:
    """Rows R that read coordinates on `basis` with the least noise: R basis^T = 1.

    R = (B C^-1 B^T)^-1 B C^-1 with C = covariance + shrinkage * mean variance * 1. Orthogonal
    projection (C = 1) counts whatever else varies along the basis as part of the coordinate, so
    setting it to a mean also erases that; this readout leaves it be.

    Source: generalised least squares (Aitken 1936); the edit it gives is the oblique projection of
    Belrose et al. 2023 (LEACE). differs: a shrunk covariance, and a target other than the mean.

    Examples:
        The second coordinate varies together with the first, so reading subtracts it:

        >>> import torch
        >>> from persona.directions import whitened_readout
        >>> covariance = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
        >>> whitened_readout(torch.tensor([[1.0, 0.0]]), covariance, shrinkage=0.0)
        tensor([[ 1., -1.]])
    """
    solved = torch.linalg.solve(shrunk(covariance, shrinkage), basis.double().T)
    return torch.linalg.solve(basis.double() @ solved, solved.T).float().contiguous()


def shrunk(
    covariance: Float[Tensor, "d_model d_model"], shrinkage: float = SHRINKAGE
) -> Float[Tensor, "d_model d_model"]:
    """covariance + shrinkage * mean variance * 1, float64: what a whitened readout inverts."""
    wide = covariance.double()
    return wide + shrinkage * wide.diagonal().mean() * torch.eye(
        len(wide), dtype=torch.float64, device=wide.device
    )
