"""Linear classifiers as directions: ridge regression on the labels and logistic regression.

Both standardise every coordinate inside, because a few coordinates of a residual stream are
hundreds of times larger than the rest and would escape the penalty. The weights are then weights
on standardised coordinates; in the space of the activations they are weights / scale, which is
what comes back.

Shapes: L layer, N answer, D d_model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from persona.directions.contrast import Contrast
from persona.directions.methods.algebra import (
    RESOLUTION,
    class_difference,
    require_answers,
    require_rank_one,
    ridge_solution,
    toward,
    unit_rows,
)
from persona.errors import DataError

DEFAULT_PENALTY = 0.01
MAX_ITERATIONS = 100


def ridge_direction(
    contrast: Contrast, *, rank: int = 1, penalty: float = DEFAULT_PENALTY
) -> Float[Tensor, "layer rank d_model"]:
    """Least squares on labels +1 and -1, at length 1, toward positive.

    Minimises mean (y - z.w - b)^2 + penalty |w|^2 over standardised activations z, each class
    weighing half; returns w / scale. Closed form, in the dual below d_model answers.
    Raises: DataError for another rank than 1, a penalty not above 0, fewer than two answers in a
        class, or equal means.

    Source: Hoerl and Kennard 1970. With these labels it is the discriminant of
    `whitened_difference`, its covariance shrunk toward its diagonal instead of the identity.
    """
    require_rank_one(rank, "ridge_direction")
    problem = _standardised(contrast, penalty, "ridge_direction")
    weighted = problem.z_LND * problem.share_N[:, None].sqrt()
    target = (problem.z_LND * (problem.share_N * problem.label_N)[:, None]).sum(1)
    penalties = torch.full((contrast.n_layers,), penalty, dtype=torch.float64)
    return problem.in_raw_space(ridge_solution(weighted, target, penalties))


def logistic_direction(
    contrast: Contrast, *, rank: int = 1, penalty: float = DEFAULT_PENALTY
) -> Float[Tensor, "layer rank d_model"]:
    """Weights of a logistic regression, at length 1, toward positive.

    Minimises mean log(1 + exp(-y (z.w + b))) + penalty/2 |w|^2 over standardised activations z,
    each class weighing half; returns w / scale. All layers are one L-BFGS problem.
    penalty: scikit-learn's C is 1 / (n penalty) for n answers.
    Raises: DataError for another rank than 1, a penalty not above 0, fewer than two answers in a
        class, or equal means.

    Source: Alain and Bengio 2016 (linear probes). differs: the weights are mapped back to the space
    of the activations.
    """
    require_rank_one(rank, "logistic_direction")
    problem = _standardised(contrast, penalty, "logistic_direction")
    n_answers, d_model = problem.z_LND.shape[1:]
    z, back = problem.z_LND, None
    if n_answers < d_model:
        # The solution lies in the span of the answers: N coordinates say it all.
        back, triangular = torch.linalg.qr(z.mT)
        z = triangular.mT
    # No Hessian exceeds that at w = 0. In coordinates where it is the identity, L-BFGS needs
    # some twenty steps, whatever the spread of the activations.
    weighted = z * problem.share_N[:, None].sqrt()
    bound = weighted.mT @ weighted / 4 + penalty * torch.eye(z.shape[-1], dtype=z.dtype)
    factor = torch.linalg.cholesky(bound).mT

    u = torch.zeros(z.shape[0], z.shape[-1], 1, dtype=z.dtype, requires_grad=True)
    intercept = torch.zeros(z.shape[0], 1, 1, dtype=z.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [u, intercept],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        w = torch.linalg.solve_triangular(factor, u, upper=True)
        margin = problem.label_N * (z @ w + intercept)[..., 0]
        total = (softplus(-margin) * problem.share_N).sum() + penalty / 2 * w.square().sum()
        total.backward()
        return total

    with torch.enable_grad():
        optimiser.step(loss)
    weights = torch.linalg.solve_triangular(factor, u.detach(), upper=True)
    return problem.in_raw_space((weights if back is None else back @ weights)[..., 0])


@dataclass(frozen=True)
class _Standardised:
    """z: coordinates of mean 0 and variance 1. share: weight of an answer, half for each class."""

    z_LND: Float[Tensor, "layer answer d_model"]
    label_N: Float[Tensor, " answer"]
    share_N: Float[Tensor, " answer"]
    scale_LD: Float[Tensor, "layer d_model"]
    difference_LD: Float[Tensor, "layer d_model"]

    def in_raw_space(
        self, weights: Float[Tensor, "layer d_model"]
    ) -> Float[Tensor, "layer 1 d_model"]:
        """Weights on z as the weights on activations that give the same readings, at length 1."""
        return toward(unit_rows(weights / self.scale_LD), self.difference_LD.float())


def _standardised(contrast: Contrast, penalty: float, method: str) -> _Standardised:
    if not penalty > 0:
        raise DataError(f"the penalty must be above 0; got {penalty}")
    require_answers(contrast, 2, method)
    n_positive, n_negative = len(contrast.positive), len(contrast.negative)
    share = torch.cat(
        [torch.full((n,), 0.5 / n, dtype=torch.float64) for n in (n_positive, n_negative)]
    )
    label = torch.cat([torch.ones(n_positive), -torch.ones(n_negative)]).double()
    rows = torch.cat([contrast.positive, contrast.negative]).double()
    rows = rearrange(rows, "answer layer d -> layer answer d")
    centred = rows - (rows * share[:, None]).sum(1, keepdim=True)
    scale = (centred.square() * share[:, None]).sum(1).sqrt()
    # A coordinate that is constant to float32 stays 0 instead of having its rounding blown up.
    size = (rows.square() * share[:, None]).sum(1).sqrt()
    scale = torch.where(scale > RESOLUTION * size, scale, 1.0)
    return _Standardised(centred / scale[:, None], label, share, scale, class_difference(contrast))
