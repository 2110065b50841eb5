"""Linear probes over pooled rows: scikit-learn estimators whose weights are those of raw space.

    decision(x) = x . coef_ + intercept_      log-odds of the trait, x a row of activations

A few coordinates of a residual stream are hundreds of times larger than the rest, so fitting is
done on standardised coordinates z = (x - mean) / scale; weights w and offset b found there are
mapped back: coef_ = w / scale, intercept_ = b - mean . coef_. Weights on z are no direction of the
residual stream.

The positive class is the trait: the second of the two labels in sorted order (1 of 0 and 1).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from persona.directions.direction import Direction
from persona.directions.methods.algebra import standardisation
from persona.models.space import ActivationSpace
from probes.estimators.as_direction import direction_of
from probes.estimators.calibration import platt_scaling
from probes.estimators.validation import RowsError, as_rows_error, require_finite, two_classes

Reads = Literal["pooled", "tokens", "layers"]
"""What a probe takes of each text: [d_model], [tokens d_model] or [layer d_model]."""

DEFAULT_PENALTY = 0.01


class LogOddsClassifier(ClassifierMixin, BaseEstimator):
    """What follows from `decision_function` being the log-odds of the second class."""

    def predict(self, X: Any) -> NDArray[Any]:
        """The label of each row: the trait's where its log-odds are above 0."""
        above = self.decision_function(X) > 0
        return self.classes_[above.astype(int)]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """[row class]: sigmoid of the decision in the second column."""
        log_odds = self.decision_function(X)
        return np.stack([expit(-log_odds), expit(log_odds)], axis=1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


class LinearProbe(LogOddsClassifier):
    """Base of the linear probes: input checks, standardisation and the way back to raw space.

    After `fit`: coef_ [d_model] and intercept_ (float) in raw space; classes_ [2];
    mean_difference_ [d_model], mean of the trait's rows minus mean of the others.
    """

    reads: Reads = "pooled"

    def fit(self, X: Any, y: Any) -> LinearProbe:
        """X: rows [n d_model]; y: one label a row, of two classes.

        Raises: RowsError for rows with NaN or infinity, labels of one class or of three, or shapes
        that do not fit.
        """
        with as_rows_error():
            rows = validate_data(self, X, dtype=np.float64, ensure_all_finite=False)
        self.classes_, positive = two_classes(y, len(rows))
        require_finite(rows)
        self.mean_difference_ = rows[positive].mean(0) - rows[~positive].mean(0)
        self.coef_, self.intercept_ = self._solve(rows, positive)
        return self

    def _solve(
        self, rows: NDArray[np.float64], positive: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], float]:
        """coef_ and intercept_ in raw space."""
        raise NotImplementedError

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """[row]: X @ coef_ + intercept_, the log-odds of the trait in nats.

        Raises: NotFittedError before `fit`; RowsError for another width or NaN.
        """
        check_is_fitted(self)
        with as_rows_error():
            rows = validate_data(self, X, dtype=np.float64, ensure_all_finite=False, reset=False)
        require_finite(rows)
        return rows @ self.coef_ + self.intercept_

    def direction(self, space: ActivationSpace) -> Direction:
        """The probe's direction in the space that its rows were read in; see `direction_of`."""
        check_is_fitted(self)
        return direction_of(self.coef_, self.mean_difference_, space, type(self).__name__)


def solve_standardised(
    estimator: Any, rows: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], float]:
    """Weights and offset that a scikit-learn classifier finds on z, mapped back to raw space."""
    mean, scale = standardisation(rows)
    estimator.fit((rows - mean) / scale, positive)
    coef = np.ravel(estimator.coef_) / scale
    return coef, float(np.ravel(estimator.intercept_)[0] - mean @ coef)


class DifferenceOfMeansProbe(LinearProbe):
    """coef_ = a (mean of the trait's rows - mean of the others); a > 0 and intercept_ by Platt.

    Nothing is standardised: the difference is that of raw space, and `direction` gives it back.

    Source: Marks and Tegmark 2023, section 4 (mass-mean probes), without their covariance.

    Examples:
        >>> from persona.directions import ActivationSpace
        >>> from probes import DifferenceOfMeansProbe
        >>> rows, labels = [[0, 9], [2, 9], [6, 9], [8, 9]], [0, 0, 1, 1]
        >>> probe = DifferenceOfMeansProbe().fit(rows, labels)
        >>> probe.predict([[1, 9], [7, 9]])
        array([0, 1])
        >>> probe.direction(ActivationSpace("m", "r", "blocks.3.hook_resid_post", 3, 2)).vector
        tensor([6., 0.])
    """

    def _solve(
        self, rows: NDArray[np.float64], positive: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], float]:
        slope, intercept = platt_scaling(rows @ self.mean_difference_, positive)
        return slope * self.mean_difference_, intercept


class LdaProbe(LinearProbe):
    """coef_ = covariance^-1 (difference of means), the covariance within classes shrunk.

    shrinkage: "auto" for Ledoit and Wolf's, or a share from 0 (none) to 1 (only the diagonal).
    Log-odds are those of two Gaussians with one covariance, priors as frequent as the labels.

    Source: Fisher 1936; Ledoit and Wolf 2004.

    Examples:
        Noise that two coordinates share is taken out; the difference of means keeps it:

        >>> import numpy as np
        >>> from probes import DifferenceOfMeansProbe, LdaProbe
        >>> rng, labels = np.random.default_rng(0), np.repeat([0, 1], 50)
        >>> shared = 3 * rng.standard_normal((100, 1))
        >>> rows = shared + 0.3 * rng.standard_normal((100, 2))
        >>> rows[labels == 1, 0] += 2
        >>> [round(p.fit(rows, labels).score(rows, labels), 2)
        ...  for p in (LdaProbe(), DifferenceOfMeansProbe())]
        [0.99, 0.61]
    """

    def __init__(self, shrinkage: Any = "auto") -> None:
        self.shrinkage = shrinkage

    def _solve(
        self, rows: NDArray[np.float64], positive: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], float]:
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=self.shrinkage)
        return solve_standardised(lda, rows, positive)


class LogisticProbe(LinearProbe):
    """Minimises mean log(1 + exp(-y (z . w + b))) + penalty / 2 |w|^2, y = +1 for the trait.

    penalty: scikit-learn's C is 1 / (n penalty) for n rows; b is not penalised.

    Source: Alain and Bengio 2016 (linear probes). differs: weights in raw space.

    Examples:
        >>> from probes import LogisticProbe
        >>> probe = LogisticProbe().fit([[0, 9], [2, 7], [6, 9], [8, 7]], [0, 0, 1, 1])
        >>> probe.predict_proba([[1, 8], [4, 8], [7, 8]]).round(2)
        array([[0.96, 0.04],
               [0.5 , 0.5 ],
               [0.04, 0.96]])
    """

    def __init__(self, penalty: float = DEFAULT_PENALTY, max_iter: int = 1000) -> None:
        self.penalty = penalty
        self.max_iter = max_iter

    def _solve(
        self, rows: NDArray[np.float64], positive: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], float]:
        from sklearn.linear_model import LogisticRegression

        require_penalty(self.penalty)
        logistic = LogisticRegression(C=1 / (len(rows) * self.penalty), max_iter=self.max_iter)
        solved = solve_standardised(logistic, rows, positive)
        self.n_iter_ = int(np.max(logistic.n_iter_))
        return solved


class RidgeProbe(LinearProbe):
    """Minimises mean (y - z . w - b)^2 + penalty |w|^2, y = +1 for the trait, -1 for the others.

    penalty: scikit-learn's alpha is n penalty for n rows. Log-odds by Platt, whose a > 0 and b are
    worked into coef_ and intercept_.

    Source: Hoerl and Kennard 1970; Platt 1999.

    Examples:
        Standardised inside, weights in raw space; a coordinate a hundred times larger does no harm:

        >>> from probes import RidgeProbe
        >>> probe = RidgeProbe().fit([[0, 900], [2, 700], [6, 900], [8, 700]], [0, 0, 1, 1])
        >>> probe.coef_.round(4)
        array([0.3662, 0.0036])
        >>> (probe.decision_function([[1, 800], [7, 800]]) > 0).tolist()
        [False, True]
    """

    def __init__(self, penalty: float = DEFAULT_PENALTY) -> None:
        self.penalty = penalty

    def _solve(
        self, rows: NDArray[np.float64], positive: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], float]:
        from sklearn.linear_model import RidgeClassifier

        require_penalty(self.penalty)
        ridge = RidgeClassifier(alpha=len(rows) * self.penalty)
        coef, offset = solve_standardised(ridge, rows, positive)
        slope, intercept = platt_scaling(rows @ coef + offset, positive)
        return slope * coef, slope * offset + intercept


def require_penalty(penalty: float) -> None:
    """Raises: RowsError for a penalty that is not above 0."""
    if not penalty > 0:
        raise RowsError(f"the penalty must be above 0; got {penalty}")
