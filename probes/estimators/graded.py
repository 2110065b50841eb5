"""A linear probe of a graded judgement, such as a judge's 0 to 100, rather than of two classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from persona.directions.direction import Direction
from persona.directions.methods.algebra import standardisation
from persona.models.space import ActivationSpace
from probes.estimators.as_direction import directions_of
from probes.estimators.linear import require_penalty
from probes.estimators.validation import RowsError, as_rows_error, require_finite

DEFAULT_PENALTY = 10.0


class GradedProbe(RegressorMixin, BaseEstimator):
    """predict(x) = sum over views v of x_v . coef_[v] + intercept_, in the grade's own unit.

    Minimises sum (y - z . w)^2 + penalty p |w|^2 over p standardised coordinates z, so that one
    penalty means the same for one view and for several. A view is a layer or a token set.

    With groups both rows and grades are taken less their group's mean while fitting: what one
    question brings as a whole, its topic and how its answers are graded on average, teaches
    nothing then. Compare predictions within a question; between questions they lack that mean.

    Rows are [n d_model] or [n view d_model]. After `fit`: coef_ [view d_model] and intercept_
    (float) in raw space, mean_difference_ [view d_model] (rows graded above their group's median
    minus the others). A higher grade is the trait: negate grades of which low is the trait.

    Source: Hoerl and Kennard 1970 (ridge); the within estimator of panel data, Mundlak 1978.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rows, question = rng.normal(size=(60, 2, 8)), np.repeat(np.arange(6), 10)
    >>> grades = 50 + 20 * rows[:, 1, 3] + 5 * question
    >>> probe = GradedProbe(penalty=0.1).fit(rows[:50], grades[:50], groups=question[:50])
    >>> bool(np.corrcoef(probe.predict(rows[50:]), grades[50:])[0, 1] > 0.9)
    True
    """

    def __init__(self, penalty: float = DEFAULT_PENALTY) -> None:
        self.penalty = penalty

    def fit(self, X: Any, y: Any, groups: Any = None) -> GradedProbe:
        """X: rows; y: one grade a row; groups: the question of each row, None for no centring.

        Raises: RowsError for NaN, shapes that do not fit, or grades that never differ in a group.
        """
        from sklearn.linear_model import Ridge

        require_penalty(self.penalty)
        with as_rows_error():
            views = _views(X)
        grades = np.asarray(y, dtype=np.float64)
        if grades.shape != (len(views),):
            raise RowsError(f"each row needs one grade; got {grades.shape} for {len(views)} rows")
        require_finite(grades, "grade")
        numbers = _numbers(groups, len(views))
        flat = views.reshape(len(views), -1)
        rows, rest = flat - _means(flat, numbers), grades - _means(grades, numbers)
        if np.allclose(rest, 0):
            raise RowsError(
                "the grades of every group are all alike, so there is nothing to learn from"
            )
        _, scale = standardisation(rows)
        ridge = Ridge(alpha=self.penalty * flat.shape[1], fit_intercept=False)
        weights = ridge.fit(rows / scale, rest).coef_ / scale
        high = rest > 0
        self.mean_difference_ = (rows[high].mean(0) - rows[~high].mean(0)).reshape(views.shape[1:])
        self.coef_ = weights.reshape(views.shape[1:])
        self.intercept_ = float(grades.mean() - flat.mean(0) @ weights)
        self.n_features_in_ = views.shape[-1]
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """[row]: predicted grade. Raises: RowsError for other views, another width or NaN."""
        check_is_fitted(self)
        with as_rows_error():
            views = _views(X)
        if views.shape[1:] != self.coef_.shape:
            raise RowsError(
                f"the probe was fitted on [view d_model] = {list(self.coef_.shape)}; got rows of "
                f"{list(views.shape[1:])}"
            )
        return np.asarray(np.einsum("nvd,vd->n", views, self.coef_) + self.intercept_)

    def directions(self, spaces: Sequence[ActivationSpace]) -> tuple[Direction, ...]:
        """One direction a view, toward a higher grade; see `directions_of`."""
        check_is_fitted(self)
        return directions_of(self.coef_, self.mean_difference_, spaces, type(self).__name__)


def _views(X: Any) -> NDArray[np.float64]:
    rows = np.asarray(X, dtype=np.float64)
    if rows.ndim == 2:
        rows = rows[:, None]
    if rows.ndim != 3 or 0 in rows.shape:
        raise RowsError(f"rows are [n d_model] or [n view d_model]; got {list(rows.shape)}")
    require_finite(rows)
    return rows


def _numbers(groups: Any, n_rows: int) -> NDArray[np.intp]:
    """The group of each row as 0, 1, ...; one group of all where none is given."""
    if groups is None:
        return np.zeros(n_rows, dtype=np.intp)
    ids = np.asarray(groups)
    if ids.shape != (n_rows,):
        raise RowsError(f"each row needs one group; got {ids.shape} for {n_rows} rows")
    return np.asarray(np.unique(ids, return_inverse=True)[1])


def _means(values: NDArray[np.float64], numbers: NDArray[np.intp]) -> NDArray[np.float64]:
    """The mean of its group, for each row."""
    counts = np.bincount(numbers)
    starts = np.cumsum(counts) - counts
    sums = np.add.reduceat(values[np.argsort(numbers, kind="stable")], starts)
    return np.asarray((sums / counts.reshape(-1, *[1] * (values.ndim - 1)))[numbers])
