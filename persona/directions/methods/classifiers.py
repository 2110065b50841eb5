"""Linear classifiers as directions: ridge regression on the labels and logistic regression.

Both standardise every coordinate inside, because a few coordinates of a residual stream are
hundreds of times larger than the rest and would escape the penalty. The weights are then weights
on standardised coordinates; in the space of the activations they are weights / scale, which is
what comes back.

Shapes: L layer, N answer, D d_model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from numpy.typing import NDArray
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
    each class weighing half; returns w / scale.
    penalty: scikit-learn's C is 1 / (n penalty) for n answers.
    Raises: DataError for another rank than 1, a penalty not above 0, fewer than two answers in a
        class, or equal means.

    Source: Alain and Bengio 2016 (linear probes). differs: the weights are mapped back to the space
    of the activations.
    """
    require_rank_one(rank, "logistic_direction")
    problem = _standardised(contrast, penalty, "logistic_direction")
    sided = problem.label_N[:, None] * problem.z_LND
    weights = [_fit_logistic(rows, problem, penalty) for rows in sided]
    return problem.in_raw_space(torch.stack(weights))


def _fit_logistic(
    sided_ND: Float[Tensor, "answer d_model"], problem: _Standardised, penalty: float
) -> Float[Tensor, " d_model"]:
    """Weights at one layer, by L-BFGS; sided: each answer's z times its label.

    The Hessian nowhere exceeds that at w = 0. In coordinates where that one is the identity some
    twenty steps are enough, whatever the spread of the activations.
    """
    from scipy.optimize import minimize

    back = None
    if len(sided_ND) < sided_ND.shape[1]:
        # The solution lies in the span of the answers: as many coordinates as answers say it all.
        back, triangular = torch.linalg.qr(sided_ND.T)
        sided_ND = triangular.T
    rows = torch.cat([sided_ND, problem.label_N[:, None]], dim=1)  # the last weight is b
    penalties = torch.full((rows.shape[1],), penalty, dtype=torch.float64)
    penalties[-1] = 0
    weighted = rows * problem.share_N[:, None].sqrt()
    factor = torch.linalg.cholesky(weighted.T @ weighted / 4 + penalties.diag())

    def in_weights(u: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(factor.T, u[:, None], upper=True)[:, 0]

    def loss_and_slope(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w = in_weights(torch.from_numpy(point))
        margin = rows @ w
        loss = problem.share_N @ softplus(-margin) + penalties @ w.square() / 2
        slope = penalties * w - rows.T @ (problem.share_N * torch.sigmoid(-margin))
        return float(loss), torch.linalg.solve_triangular(factor, slope[:, None], upper=False)[
            :, 0
        ].numpy()

    start = np.zeros(rows.shape[1])
    options = {"maxiter": MAX_ITERATIONS, "gtol": 1e-7, "ftol": 1e-14}
    found = minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", options=options)
    w = in_weights(torch.from_numpy(found.x))[:-1]
    return w if back is None else back @ w


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
