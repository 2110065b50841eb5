"""Base of the probes that see every token: one score a token, pooled into one a text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from persona.directions.direction import Direction
from persona.models.space import ActivationSpace
from probes.estimators.as_direction import direction_of
from probes.estimators.linear import LogOddsClassifier, Reads
from probes.estimators.token_rows import TokenRows, require_token_rows
from probes.estimators.validation import two_classes


class TokenProbe(LogOddsClassifier):
    """decision = the pooled scores of the tokens, x_t . coef_ + intercept_ for token t.

    X is TokenRows, a list of arrays [tokens d_model], or [text pos d_model] without padding.
    After `fit`: coef_ [d_model] and intercept_ (float) in raw space, classes_ [2], n_features_in_,
    mean_difference_ [d_model] (of texts' mean tokens). Above 0 is the trait, the second label in
    sorted order.
    """

    reads: Reads = "tokens"

    def fit(self, X: Any, y: Any) -> TokenProbe:
        """X: TokenRows; y: one label a text, of two classes.

        Raises: RowsError as `require_token_rows` and `two_classes`.
        """
        rows = require_token_rows(X)
        self.classes_, positive = two_classes(y, len(rows))
        self.n_features_in_ = int(rows[0].shape[1])
        means = np.stack([row.mean(0, dtype=np.float64) for row in rows])
        self.mean_difference_ = means[positive].mean(0) - means[~positive].mean(0)
        self._fit_tokens(rows, positive)
        return self

    def _fit_tokens(self, rows: TokenRows, positive: NDArray[np.bool_]) -> None:
        """Sets coef_, intercept_ and whatever pooling needs."""
        raise NotImplementedError

    def _pool(self, tokens: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
        """The decision of one text from its tokens [tokens d_model] and their scores [tokens]."""
        raise NotImplementedError

    def token_scores(self, X: Any) -> list[NDArray[np.float64]]:
        """[tokens] for each text: x_t . coef_ + intercept_, before pooling.

        Raises: NotFittedError before `fit`; RowsError for another width or NaN.
        """
        check_is_fitted(self)
        rows = require_token_rows(X, self.n_features_in_)
        return [row.astype(np.float64) @ self.coef_ + self.intercept_ for row in rows]

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """[text]: log-odds of the trait in nats. Raises: as `token_scores`."""
        scores = self.token_scores(X)
        rows = require_token_rows(X, self.n_features_in_)
        pooled = zip(rows, scores, strict=True)
        return np.array([self._pool(row.astype(np.float64), score) for row, score in pooled])

    def direction(self, space: ActivationSpace) -> Direction:
        """The direction of the token scores; see `direction_of`."""
        check_is_fitted(self)
        return direction_of(self.coef_, self.mean_difference_, space, type(self).__name__)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags
