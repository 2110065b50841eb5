"""The first-order null: how often a random subspace would do as much, from one backward pass.

Restoring a subspace of basis B and readout R at a block lowers the gap, to first order, by
coefficient tr(R M B^T) with the attribution moment M = sum (h - m)(dgap/dh)^T; for one direction u
that is read with itself u^T S u, S = sym M. So the moment of a block holds the effect of every
subspace there, and how a random one's effect is distributed needs no model and no draw that is run:
see `steering.evidence.quadratic_tail`.

Two kinds of random subspace. *Isotropic*: uniform on the sphere. *Covariance-matched*: C^(1/2) z
for standard normal z, with the covariance C of the activations, so that it lies where activations
vary; then S becomes C^(1/2) S C^(1/2) and lengths are by C. Both are read as the vector that they
are compared with: by orthogonal projection, or whitened.

Several blocks: each block's subspace is drawn for itself, and the effects add. A block's prediction
is for restoring it alone. Random subspaces hardly overlap from block to block, so that their sum
holds; those of one persona vector do (all correct the same difference), and their sum promises more
than the vector does. The set is therefore compared by what the vector was *measured* to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from persona.directions.direction import PersonaVector, shrunk
from persona.errors import DataError
from steering.evidence.quadratic_tail import N_TAIL_DRAWS, RatioForm, Tail, tail

Draws = Literal["isotropic", "covariance"]
Matrices = Mapping[int, Float[Tensor, "d_model d_model"]]
"""layer -> [d_model d_model]."""


def predicted_falls(vector: PersonaVector, moments: Matrices) -> dict[int, float]:
    """layer -> how far the gap falls, to first order, when that block alone is restored.

    coefficient tr(R M B^T), nats per token, positive toward the aligned model.
    Raises: DataError for a block without its moment.
    """
    _require(vector.layers, moments, "attribution moment")
    falls = {}
    for layer in vector.layers:
        one = vector.subspaces[layer]
        read = one.effective_readout.double() @ moments[layer].double() @ one.basis.double().T
        falls[layer] = vector.coefficient * float(read.trace())
    return falls


@dataclass(frozen=True)
class RandomSubspaces:
    """Random subspaces at one block, and what each of them does to first order.

    form: their effect, for coefficient 1, in the coordinates in which they are standard normal.
    root: [d_model d_model], standard normal rows to rows of the residual stream; None is as is.
    """

    form: RatioForm
    root: Float[Tensor, "d_model d_model"] | None

    def placed(self, rows: Float[Tensor, "rank d_model"]) -> Float[Tensor, "rank d_model"]:
        """The rows as directions of the residual stream, not yet orthonormal."""
        return rows if self.root is None else rows @ self.root


def random_subspaces(
    moment: Float[Tensor, "d_model d_model"],
    covariance: Float[Tensor, "d_model d_model"] | None,
    draws: Draws,
    whitened: bool,
) -> RandomSubspaces:
    """The random subspaces of one block.

    whitened: they are read with the inverse of the shrunk covariance, as `whitened_readout` reads.
    Raises: DataError without a covariance where one is needed.
    """
    moment = moment.double().cpu()
    numerator, denominator = moment, torch.eye(len(moment), dtype=torch.float64)
    if (whitened or draws == "covariance") and covariance is None:
        raise DataError("these random subspaces need the covariance of the activations")
    if whitened:
        assert covariance is not None
        denominator = torch.linalg.inv(shrunk(covariance.cpu()))
        numerator = denominator @ moment
    root = None
    if draws == "covariance":
        assert covariance is not None
        values, vectors = torch.linalg.eigh(covariance.double().cpu())
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        numerator, denominator = root @ numerator @ root, root @ denominator @ root
    symmetric = ((matrix + matrix.T) / 2 for matrix in (numerator, denominator))
    return RandomSubspaces(RatioForm(*symmetric), root)


@dataclass(frozen=True)
class FirstOrderNull:
    """How often random subspaces do as much to first order, by block and for all blocks together.

    draws: the kind of random subspace. rank: of the vector, and of what is drawn.
    predicted: layer -> the vector's own first-order effect at that block alone, nats per token.
    by_block: layer -> P(a random subspace there does at least that).
    measured: what the vector did by intervention, nats per token; None where not given.
    compared: what the set is compared by: `measured`, or without it the sum of `predicted`.
    whole: P(random subspaces at all blocks do at least `compared`, to first order).
    mean, spread: mean and standard deviation of what random subspaces at all blocks do, nats.
    """

    draws: Draws
    rank: int
    predicted: Mapping[int, float]
    by_block: Mapping[int, Tail]
    measured: float | None
    whole: Tail
    mean: float
    spread: float

    @property
    def compared(self) -> float:
        return sum(self.predicted.values()) if self.measured is None else self.measured


def first_order_null(
    vector: PersonaVector,
    moments: Matrices,
    covariance: Matrices,
    draws: Draws,
    *,
    measured: float | None = None,
    n_draws: int = N_TAIL_DRAWS,
    seed: int = 0,
) -> FirstOrderNull:
    """What restoring random subspaces at the vector's blocks would do, against what it does.

    moments: layer -> `attribution_moments` of the questions that are scored, in the fine-tuned
        model; for a net effect less those in the aligned model.
    covariance: layer -> of the activations, as `Means.covariance`.
    measured: how far the vector lowered the mean gap of those questions, nats per token.
    n_draws: of the tails that are not exact: rank above 1, or several blocks.
    Raises: DataError for a block without its matrices.
    """
    predicted = predicted_falls(vector, moments)
    _require(vector.layers, covariance, "covariance")
    factor = vector.coefficient
    if factor <= 0:
        raise DataError(f"a null of restoring needs a coefficient above 0; got {factor:g}")
    forms = {
        layer: random_subspaces(moments[layer], covariance[layer], draws, is_whitened(vector)).form
        for layer in vector.layers
    }

    def at_least(layers: Sequence[int], fall: float) -> Tail:
        some = [forms[layer] for layer in layers]
        return tail(some, fall / factor, vector.rank, n_draws=n_draws, seed=seed)

    return FirstOrderNull(
        draws,
        vector.rank,
        predicted,
        {layer: at_least([layer], fall) for layer, fall in predicted.items()},
        measured,
        at_least(vector.layers, sum(predicted.values()) if measured is None else measured),
        factor * vector.rank * sum(form.mean for form in forms.values()),
        factor * (vector.rank * sum(form.spread for form in forms.values())) ** 0.5,
    )


def is_whitened(vector: PersonaVector) -> bool:
    """Whether coordinates of the vector are read with the covariance of the activations."""
    return vector.subspaces[vector.layers[0]].readout is not None


def _require(layers: Sequence[int], matrices: Matrices, what: str) -> None:
    if lacking := [layer for layer in layers if layer not in matrices]:
        raise DataError(f"there is no {what} of blocks {lacking}, which the vector is restored at")
