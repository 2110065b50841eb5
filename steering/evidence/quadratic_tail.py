"""How often a random subspace does as much: tails of ratios of quadratic forms in normal variables.

What restoring a subspace does to first order does not depend on the rows that span it, so random
subspaces can be drawn as k rows Z of standard normal numbers, and what one does is

    X(Z) = tr((Z D Z^T)^-1 Z N Z^T)

with a symmetric numerator N and a positive definite denominator D; for one row the ratio
z^T N z / z^T D z. Then P(X >= x) = P(z^T (N - x D) z >= 0), a sum of weighted chi-squares, which a
contour integral gives to twelve digits however far out x lies. For several rows, or a sum over
several blocks, no such form is exact; there draws are made where X is near x, and each is weighed
by how much rarer it is under the null (importance sampling by exponential tilting). That is exact
in expectation, and says how exact.

Source: Imhof 1961 (the integral); Rice 1980 and Helstrom 1996 (along a contour through the saddle
point); Broda and Paolella 2009 (ratios); Siegmund 1976 (tilting); Chikuse 1990 (the law of a span).
differs: several rows and blocks.

Shapes: N draw, K rank, D d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor

from persona.errors import DataError

P_FLOOR = 1e-12
"""The least p that is told; the arithmetic does not carry further."""
N_TAIL_DRAWS = 4_000
"""Draws of one tail by tilting: a standard error of 3 to 15 % of p at p = 1e-4."""


@dataclass(frozen=True)
class RatioForm:
    """What restoring k random rows at one block does: X(Z) = tr((Z D Z^T)^-1 Z N Z^T).

    numerator, denominator: [d_model d_model], symmetric, float64, in the coordinates in which the
        rows are standard normal.
    """

    numerator: Float[Tensor, "d_model d_model"]
    denominator: Float[Tensor, "d_model d_model"]

    def __post_init__(self) -> None:
        if not (self.numerator.isfinite().all() and self.denominator.isfinite().all()):
            raise DataError("a null needs finite matrices; compute the attribution in float32")
        if float(self.denominator.trace()) <= 0:
            raise DataError("the denominator of a null must be positive: the covariance is zero")

    def of(self, rows: Float[Tensor, "draw rank d_model"]) -> Float[Tensor, " draw"]:
        """X of each subspace that the rows span."""
        wide = rows.double()
        over = wide @ self.numerator @ wide.mT
        under = wide @ self.denominator @ wide.mT
        return torch.linalg.solve(under, over).diagonal(dim1=1, dim2=2).sum(1)

    @property
    def mean(self) -> float:
        """Of one row, to leading order: the ratio of the traces."""
        return float(self.numerator.trace() / self.denominator.trace())

    @property
    def spread(self) -> float:
        """Variance of one row, to leading order: 2 |N - mean D|^2 / tr(D)^2."""
        centred = self.numerator - self.mean * self.denominator
        return float(2 * centred.square().sum() / self.denominator.trace() ** 2)

    def about(self, level: float) -> Float[Tensor, "d_model d_model"]:
        """(N - level D) / tr(D): positive along rows whose X is above the level."""
        return (self.numerator - level * self.denominator) / self.denominator.trace()


@dataclass(frozen=True)
class Tail:
    """P(X >= observed). standard_error: of p over the draws it was estimated from; 0 if exact."""

    p: float
    standard_error: float = 0.0


def tail(
    forms: Sequence[RatioForm],
    observed: float,
    rank: int,
    *,
    n_draws: int = N_TAIL_DRAWS,
    seed: int = 0,
) -> Tail:
    """P(sum over blocks of X_b >= observed), each block's random subspace drawn for itself.

    rank: rows that are drawn at each block. One row at one block is exact, and takes no draws.
    Never below `P_FLOOR`.
    Raises: DataError without blocks, for a rank beyond d_model, or an observed that is no number.

    Examples:
        A coordinate of a random unit vector in three dimensions is uniform on -1 to 1 (Archimedes),
        so its square is above 0.81 one time in ten:

        >>> import torch
        >>> from steering.evidence.quadratic_tail import RatioForm, tail
        >>> first = torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
        >>> form = RatioForm(first, torch.eye(3, dtype=torch.float64))
        >>> round(tail([form], 0.81, 1).p, 9)
        0.1
    """
    if not forms:
        raise DataError("a null needs the attribution matrix of at least one block")
    if not np.isfinite(observed):
        raise DataError(f"what is compared with a null must be a number; got {observed}")
    if not 1 <= rank <= min(len(form.numerator) for form in forms):
        raise DataError(f"random subspaces cannot have rank {rank}")
    if len(forms) == 1 and rank == 1:
        weights = torch.linalg.eigvalsh(forms[0].about(observed)).numpy()
        return Tail(max(positive_tail(weights), P_FLOOR))
    return _tilted(forms, observed, rank, n_draws, seed)


def positive_tail(weights: NDArray[np.float64]) -> float:
    """P(sum of weights_i z_i^2 > 0) for standard normal z, to about twelve digits.

    1/(2 pi i) times the integral of exp(K(s)) / s along the line through the saddle point, with
    K(s) = -1/2 sum log(1 - 2 weights_i s), the cumulants' generating function. On that line the
    integrand hardly turns, so that even p = 1e-12 is no difference of large numbers.
    """
    scale = np.abs(weights).max(initial=0.0)
    if scale == 0:
        return 1.0  # X is the observed value whatever is drawn
    weights = weights[np.abs(weights) > 1e-14 * scale] / scale
    if weights.max() < 0 or weights.min() > 0:
        return float(weights.min() > 0)
    if weights.sum() > 0:
        return 1.0 - positive_tail(-weights)
    edge = 1 / (2 * weights.max())

    def slope(s: float) -> float:
        return float((weights / (1 - 2 * weights * s)).sum() - 1 / s)

    saddle = brentq(slope, 1e-9 * edge, (1 - 1e-12) * edge, xtol=1e-14 * edge)
    at_saddle = 1 - 2 * weights * saddle
    width = (2 * (weights / at_saddle) ** 2).sum() + 1 / saddle**2
    # Trapezia in x, where the way up the line is sinh(x): they converge exponentially.
    x = np.arange(0, 700) * 0.05
    y = np.sinh(x) / np.sqrt(width)
    s = saddle + 1j * y
    log_integrand = -0.5 * np.log(1 - 2 * weights[:, None] * s).sum(0) - np.log(s)
    top = log_integrand[0].real
    values = (np.exp(log_integrand - top) * np.cosh(x)).real
    total = 0.05 * (values.sum() - values[0] / 2) / np.sqrt(width)
    return float(min(np.exp(top) * total / np.pi, 1.0))


def _tilted(
    forms: Sequence[RatioForm], observed: float, rank: int, n_draws: int, seed: int
) -> Tail:
    """P(sum X_b >= observed) by draws whose sum is near `observed`.

    Rows of block b are drawn from the normal law of precision 1 - 2 theta (N_b - level_b D_b) /
    tr(D_b), under which they lie at its level. The levels add up to what is observed: each block's
    mean and its share of the rest by variance, as it would be for normal X. theta is the same for
    all blocks, and such that the draws lie about the levels.
    """
    means, spreads = (np.array(v) for v in zip(*((f.mean, f.spread) for f in forms), strict=True))
    above = observed / rank - means.sum()
    if spreads.sum() <= 0:
        return Tail(max(float(above <= 0), P_FLOOR))  # every subspace does the same
    levels = means + above * spreads / spreads.sum()
    if above < 0:
        mirrored = [RatioForm(-form.numerator, form.denominator) for form in forms]
        other = _tilted(mirrored, -observed, rank, n_draws, seed)
        return Tail(max(1 - other.p, P_FLOOR), other.standard_error)
    axes = [torch.linalg.eigh(form.about(level)) for form, level in zip(forms, levels, strict=True)]
    theta = _tilt([weights.numpy() for weights, _ in axes])
    generator = torch.Generator().manual_seed(seed)
    total = np.zeros(n_draws)
    log_weight = np.zeros(n_draws)
    for form, level, (weights, turn) in zip(forms, levels, axes, strict=True):
        kept = 1 - 2 * theta * weights
        draws_NKD = torch.randn(
            n_draws, rank, len(weights), generator=generator, dtype=torch.float64
        ).div_(kept.sqrt())
        scaled = turn.T @ form.denominator @ turn / form.denominator.trace()
        excess_NKK = (draws_NKD * weights) @ draws_NKD.mT
        under_NKK = draws_NKD @ scaled @ draws_NKD.mT
        ratio = torch.linalg.solve(under_NKK, excess_NKK).diagonal(dim1=1, dim2=2).sum(1)
        total += (ratio + rank * level).numpy()
        # The density of the span alone: how long its rows are does not matter to X.
        inner_NKK = draws_NKD @ draws_NKD.mT
        nearer = (inner_NKK - 2 * theta * excess_NKK).logdet() - inner_NKK.logdet()
        log_weight += (len(weights) * nearer - rank * kept.log().sum()).numpy() / 2
    values = np.where(total >= observed, np.exp(log_weight), 0.0)
    p, error = float(values.mean()), float(values.std() / np.sqrt(n_draws))
    return Tail(min(max(p, P_FLOOR), 1.0), error)


def _tilt(weights: Sequence[NDArray[np.float64]]) -> float:
    """theta >= 0 at which the tilted draws' sum of forms is 0 on average."""
    top = max(float(w.max()) for w in weights)
    if top <= 0:
        return 0.0

    def mean(theta: float) -> float:
        return float(sum((w / (1 - 2 * theta * w)).sum() for w in weights))

    if mean(0.0) >= 0:
        return 0.0
    edge = (1 - 1e-9) / (2 * top)
    return edge if mean(edge) < 0 else float(brentq(mean, 0.0, edge))
