"""A linear probe's token scores pooled by a fixed rule."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from probes.estimators.calibration import platt_scaling
from probes.estimators.linear import LogisticProbe
from probes.estimators.token_probe import TokenProbe
from probes.estimators.token_rows import TokenRows
from probes.estimators.validation import RowsError

Pooling = Literal["mean", "max", "last", "exponential"]
POOLINGS = ("mean", "max", "last", "exponential")


class PooledProbe(TokenProbe):
    """decision = pool over tokens t = 1 .. T of (x_t . coef_ + intercept_).

    pooling: "mean"         mean over tokens
             "last"         the last token
             "exponential"  weights decay^(T - t) / their sum: the latest tokens count most
             "max"          the highest token; the base is fitted on mean tokens, and Platt's
                            sigmoid on the maxima of the training texts gives the log-odds
    base: a linear probe (`coef_` and `intercept_`), fitted on the pooled tokens; None takes
        LogisticProbe().
    decay: from above 0 to 1, of "exponential" only; 0.9 halves a token's weight in seven tokens.

    Source: McKenzie et al. 2025, Detecting High-Stakes Interactions with Activation Probes.
    differs: they fit through the maximum; here it is taken over a probe of the means.

    Examples:
        One loud token among quiet ones, early in the text, is seen by the maximum only:

        >>> from probes import PooledProbe
        >>> from probes.estimators import token_rows
        >>> quiet, loud = [0.0, 1.0], [4.0, 1.0]
        >>> texts = [[quiet, quiet, loud], [quiet] * 4, [quiet, loud], [quiet] * 2]
        >>> new = token_rows([[loud] + [quiet] * 9, [quiet] * 3])
        >>> for pooling in ("max", "mean", "last"):
        ...     probe = PooledProbe(pooling).fit(token_rows(texts), [1, 0, 1, 0])
        ...     print(pooling, probe.predict(new))
        max [1 0]
        mean [0 0]
        last [0 0]
    """

    def __init__(self, pooling: Pooling = "mean", base: Any = None, decay: float = 0.9) -> None:
        self.pooling = pooling
        self.base = base
        self.decay = decay

    def _fit_tokens(self, rows: TokenRows, positive: NDArray[np.bool_]) -> None:
        if self.pooling not in POOLINGS:
            raise RowsError(f"unknown pooling {self.pooling!r}; one of {', '.join(POOLINGS)}")
        if not 0 < self.decay <= 1:
            raise RowsError(f"the decay must be above 0 and at most 1; got {self.decay}")
        weights = [self._weights(len(row)) for row in rows]
        pooled = np.stack(
            [w @ row.astype(np.float64) for w, row in zip(weights, rows, strict=True)]
        )
        probe = clone(LogisticProbe() if self.base is None else self.base)
        probe.fit(pooled, positive.astype(int))
        slope, offset = 1.0, 0.0
        if self.pooling == "max":
            highest = [(row.astype(np.float64) @ probe.coef_).max() for row in rows]
            slope, offset = platt_scaling(np.array(highest) + probe.intercept_, positive)
        self.coef_ = slope * probe.coef_
        self.intercept_ = float(slope * probe.intercept_ + offset)

    def _weights(self, n_tokens: int) -> NDArray[np.float64]:
        """Weight of each token of a text in a linear pooling; of "max", that of its base."""
        if self.pooling == "last":
            return np.eye(n_tokens)[-1]
        decay = self.decay if self.pooling == "exponential" else 1.0
        weights = decay ** np.arange(n_tokens - 1, -1, -1.0)
        return np.asarray(weights / weights.sum())

    def _pool(self, tokens: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
        if self.pooling == "max":
            return float(scores.max())
        return float(self._weights(len(scores)) @ scores)
