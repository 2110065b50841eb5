"""From a score to log-odds: Platt's sigmoid, whose slope never turns the score round."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SMALLEST_SLOPE = 1e-6
"""Per standard deviation of the scores: where they say nothing, they keep their order."""


def platt_scaling(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope a > 0 and intercept b with which a score + b is the log-odds of the positive class.

    Minimises the cross-entropy of sigmoid(a score + b) against the targets (n+ + 1) / (n+ + 2) of
    positive and 1 / (n- + 2) of negative rows, which keeps a finite where the scores separate the
    classes. Fitted on the scores of training rows it is too sure of itself; `evaluate` measures
    by how much.

    Source: Platt 1999. differs: a is kept above 0, so that a high score always means the trait.
    """
    from scipy.optimize import minimize
    from scipy.special import expit, logit

    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    centre, spread = float(scores.mean()), float(scores.std())
    if spread == 0:
        return 1.0, float(logit(target.mean())) - centre
    z = (scores - centre) / spread

    def loss_and_slope(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_odds = point[0] * z + point[1]
        error = expit(log_odds) - target
        loss = np.logaddexp(0, log_odds) - target * log_odds
        return float(loss.mean()), np.array([(error * z).mean(), error.mean()])

    found = minimize(
        loss_and_slope,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(SMALLEST_SLOPE, None), (None, None)],
        options={"ftol": 1e-15, "gtol": 1e-9},
    )
    slope, intercept = found.x
    return float(slope / spread), float(intercept - slope * centre / spread)
