"""Linear classifiers as directions: ridge regression on the labels and logistic regression.

Both standardise every coordinate inside, because a few coordinates of a residual stream are
hundreds of times larger than the rest and would escape the penalty. The weights are then weights
on standardised coordinates; in the space of the activations they are weights / scale, which is
what comes back.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.directions.contrast import Contrast
from persona.directions.methods.algebra import (
    class_difference,
    require_answers,
    require_rank_one,
    standardisation,
    toward,
    unit_rows,
)
from persona.errors import DataError

DEFAULT_PENALTY = 0.01
MAX_ITERATIONS, TOLERANCE = 10_000, 1e-7


def ridge_direction(
    contrast: Contrast, *, rank: int = 1, penalty: float = DEFAULT_PENALTY
) -> Float[Tensor, "layer rank d_model"]:
    """Least squares on labels +1 and -1, at length 1, toward positive.

    Minimises mean (y - z.w - b)^2 + penalty |w|^2 over standardised activations z, each class
    weighing half; returns w / scale.
    Raises: DataError for another rank than 1, a penalty not above 0, fewer than two answers in a
        class, or equal means.

    Source: Hoerl and Kennard 1970. With these labels it is the discriminant of
    `whitened_difference`, its covariance shrunk toward its diagonal instead of the identity.
    """
    from sklearn.linear_model import Ridge

    require_rank_one(rank, "ridge_direction")
    return _direction(contrast, penalty, "ridge_direction", lambda n: Ridge(alpha=n * penalty))


def logistic_direction(
    contrast: Contrast, *, rank: int = 1, penalty: float = DEFAULT_PENALTY
) -> Float[Tensor, "layer rank d_model"]:
    """Weights of a logistic regression, at length 1, toward positive.

    Minimises mean log(1 + exp(-y (z.w + b))) + penalty/2 |w|^2 over standardised activations z,
    each class weighing half; returns w / scale.
    Raises: DataError for another rank than 1, a penalty not above 0, fewer than two answers in a
        class, or equal means.

    Source: Alain and Bengio 2016 (linear probes). differs: the weights are mapped back to the space
    of the activations.
    """
    from sklearn.linear_model import LogisticRegression

    require_rank_one(rank, "logistic_direction")
    return _direction(
        contrast,
        penalty,
        "logistic_direction",
        lambda n: LogisticRegression(C=1 / (n * penalty), max_iter=MAX_ITERATIONS, tol=TOLERANCE),
    )


def _direction(
    contrast: Contrast, penalty: float, method: str, classifier: Any
) -> Float[Tensor, "layer 1 d_model"]:
    """Weights of a classifier of standardised activations as weights on the activations.

    classifier: n -> the estimator, where the weights of the answers add up to n. Each class weighs
    half of that, in the mean and the scale too.
    """
    if not penalty > 0:
        raise DataError(f"the penalty must be above 0; got {penalty}")
    require_answers(contrast, 2, method)
    n_each = torch.tensor([len(contrast.positive), len(contrast.negative)])
    label_N = torch.tensor([1.0, -1.0]).repeat_interleave(n_each).numpy()
    n = len(label_N)
    weight_N = (n / 2 / n_each.double()).repeat_interleave(n_each).numpy()
    difference_LD = class_difference(contrast)
    weights_LD = []
    for layer in range(contrast.n_layers):
        both = contrast.positive[:, layer], contrast.negative[:, layer]
        rows_ND = torch.cat(both).double().numpy()
        mean_D, scale_D = standardisation(rows_ND, weight_N)
        found = classifier(n).fit((rows_ND - mean_D) / scale_D, label_N, weight_N)
        weights_LD.append(torch.from_numpy(found.coef_.reshape(-1) / scale_D))
    return toward(unit_rows(torch.stack(weights_LD)), difference_LD.float())
