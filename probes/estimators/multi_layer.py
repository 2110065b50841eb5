"""Several layers of one model in one linear probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from persona.directions.direction import Direction
from persona.models.space import ActivationSpace
from probes.estimators.as_direction import directions_of
from probes.estimators.linear import (
    LogisticProbe,
    LogOddsClassifier,
    Reads,
)
from probes.estimators.validation import RowsError, require_finite, two_classes

Combine = Literal["concatenate", "stack"]


class MultiLayerProbe(LogOddsClassifier):
    """decision = sum over layers l of x_l . coef_[l] + intercept_, over rows [n layer d_model].

    combine: "concatenate"  one base over all layers' coordinates side by side, standardised
             "stack"        one base a layer; their log-odds on rows whose question they were not
                            fitted on are weighed by a logistic regression, and the bases are then
                            fitted on all rows (`fit` needs groups)
    base: a linear probe (`coef_` and `intercept_`); None takes LogisticProbe().
    n_folds: of the cross-fitting, at most one a question.
    After `fit`: coef_ [layer d_model], intercept_ (float), classes_ [2], mean_difference_
    [layer d_model], and layer_weights_ [layer] where stacked. Above 0 is the trait.

    Source: Wolpert 1992 (stacked generalisation). differs: folds never part a question.

    Examples:
        Of three layers the last one holds the trait, and has the largest weight:

        >>> import numpy as np
        >>> from probes import MultiLayerProbe
        >>> labels, questions = np.tile([0, 1], 20), np.repeat(np.arange(20), 2)
        >>> rows = np.random.default_rng(0).standard_normal((40, 3, 4))
        >>> rows[labels == 1, 2, 0] += 3
        >>> probe = MultiLayerProbe("stack").fit(rows, labels, groups=questions)
        >>> probe.layer_weights_.argmax(), probe.coef_.shape
        (np.int64(2), (3, 4))
    """

    reads: Reads = "layers"

    def __init__(
        self, combine: Combine = "concatenate", base: Any = None, n_folds: int = 5
    ) -> None:
        self.combine = combine
        self.base = base
        self.n_folds = n_folds

    def fit(self, X: Any, y: Any, groups: Any = None) -> MultiLayerProbe:
        """X: rows [n layer d_model]; y: one label a row; groups: the question of each row.

        Raises: RowsError for shapes that do not fit, NaN, one class, or "stack" without at least
        two questions, or where some fold leaves a single class.
        """
        rows = _layer_rows(X)
        self.classes_, positive = two_classes(y, len(rows))
        self.n_features_in_ = int(rows.shape[2])
        self.mean_difference_ = rows[positive].mean(0) - rows[~positive].mean(0)
        if self.combine == "concatenate":
            probe = self._new_base().fit(rows.reshape(len(rows), -1), positive.astype(int))
            self.coef_ = probe.coef_.reshape(rows.shape[1:])
            self.intercept_ = float(probe.intercept_)
        elif self.combine == "stack":
            self._stack(rows, positive, groups)
        else:
            raise RowsError(f"unknown combine {self.combine!r}; concatenate or stack")
        return self

    def _stack(self, rows: NDArray[np.float64], positive: NDArray[np.bool_], groups: Any) -> None:
        labels = positive.astype(int)
        log_odds = np.empty(rows.shape[:2])
        for train, test in _folds(positive, groups, len(rows), self.n_folds):
            for layer in range(rows.shape[1]):
                probe = self._new_base().fit(rows[train, layer], labels[train])
                log_odds[test, layer] = probe.decision_function(rows[test, layer])
        weigher = LogisticProbe().fit(log_odds, labels)
        self.layer_weights_ = weigher.coef_
        probes = [self._new_base().fit(rows[:, place], labels) for place in range(rows.shape[1])]
        self.coef_ = np.stack([probe.coef_ for probe in probes]) * self.layer_weights_[:, None]
        intercepts = np.array([probe.intercept_ for probe in probes])
        self.intercept_ = float(weigher.intercept_ + self.layer_weights_ @ intercepts)

    def _new_base(self) -> Any:
        return clone(LogisticProbe() if self.base is None else self.base)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """[row]: log-odds of the trait in nats.

        Raises: NotFittedError before `fit`; RowsError for other layers, another width or NaN.
        """
        check_is_fitted(self)
        rows = _layer_rows(X)
        if rows.shape[1:] != self.coef_.shape:
            raise RowsError(
                f"the probe was fitted on [layer d_model] = {list(self.coef_.shape)}; got rows of "
                f"{list(rows.shape[1:])}"
            )
        return np.asarray(np.einsum("nld,ld->n", rows, self.coef_) + self.intercept_)

    def directions(self, spaces: Sequence[ActivationSpace]) -> tuple[Direction, ...]:
        """One direction a layer, in the order of the rows' layers; see `directions_of`."""
        check_is_fitted(self)
        return directions_of(self.coef_, self.mean_difference_, spaces, type(self).__name__)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def _layer_rows(X: Any) -> NDArray[np.float64]:
    rows = np.asarray(X, dtype=np.float64)
    if rows.ndim != 3 or 0 in rows.shape:
        raise RowsError(f"rows of several layers are [n layer d_model]; got {list(rows.shape)}")
    require_finite(rows)
    return rows


def _folds(
    positive: NDArray[np.bool_], groups: Any, n_rows: int, n_folds: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    from sklearn.model_selection import GroupKFold

    if groups is None:
        raise RowsError(
            "stacked layers are cross-fitted by question: pass groups, the question of each row, "
            "or combine the layers by 'concatenate'"
        )
    ids = np.asarray(groups)
    n_groups = len(np.unique(ids))
    if len(ids) != n_rows or n_groups < 2:
        raise RowsError(
            f"stacking needs one question id a row and at least 2 questions; got {len(ids)} ids "
            f"of {n_groups} questions for {n_rows} rows"
        )
    folds = list(GroupKFold(min(n_folds, n_groups)).split(ids, groups=ids))
    for train, _ in folds:
        if positive[train].all() or not positive[train].any():
            raise RowsError(
                "a fold of the cross-fitting leaves rows of one class only; give more questions"
            )
    return folds
