"""Scores of rows whose question the probe has not seen, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from persona.errors import DataError
from persona.intervals import Estimate
from probes.estimators.validation import require_finite, two_classes
from probes.evaluation import metrics
from probes.evaluation.splits import N_FOLDS, Fold, Scheme, grouped_folds

N_RESAMPLES = 1000
N_SHUFFLES = 3


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a probe tells rows with the trait from those without, on questions it has not seen.

    scores, probabilities: [row], out of fold: log-odds, and probability of the trait.
    positive, groups: [row], whether the row has the trait, and its question.
    auroc: 0.5 is chance, below it the sign is turned round; average_precision: chance is the share
        of positives; tpr_at_1_fpr, tpr_at_5_fpr: share found at 1 % and 5 % false alarms.
    ece: expected calibration error of the probabilities, 0 to 1; reliability: its curve.
    shuffled_auroc: the same pipeline on labels shuffled within questions, out of fold; its mean
        over shuffles, and where 95 % of single shuffles lie.
    selectivity: auroc - shuffled_auroc; near 0 or below means the probe finds nothing of its own.
    Intervals are 95 %, questions resampled whole; n of each is the number of questions. They hold
    the chance of these questions as test rows, not that of other training rows: with nothing to
    find, 40 questions and 5 folds, 81 of 100 intervals of auroc held 0.5, and 97 of the control.
    Take a trait as found where selectivity says so too.
    """

    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    positive: NDArray[np.bool_]
    groups: NDArray[Any]
    auroc: Estimate
    average_precision: Estimate
    tpr_at_1_fpr: Estimate
    tpr_at_5_fpr: Estimate
    ece: Estimate
    reliability: pd.DataFrame
    shuffled_auroc: Estimate
    selectivity: Estimate
    scheme: Scheme

    @property
    def n(self) -> int:
        """Rows scored."""
        return len(self.scores)


def evaluate(
    probe: Any,
    rows: Any,
    labels: Any,
    groups: Sequence[Any] | NDArray[Any] | None,
    *,
    sources: Sequence[Any] | NDArray[Any] | None = None,
    domains: Sequence[Any] | NDArray[Any] | None = None,
    scheme: Scheme = "question",
    n_folds: int = N_FOLDS,
    n_shuffles: int = N_SHUFFLES,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Out-of-fold scores of a scikit-learn classifier, no question ever in training and test.

    probe: anything with fit, decision_function and predict_proba; cloned for every fold, and left
        as it is. Whatever must be learned belongs inside it (a pipeline), or the score flatters.
    rows: [n ...] array or tensor, TokenRows, or a list of texts, as the probe takes them.
    labels: one of two a row, the trait the second in sorted order (1 of 0 and 1).
    groups: the question of each row. domains, sources: needed by the schemes named after them.
    n_shuffles: sets of shuffled labels; 0 leaves the control NaN.
    Folds are pooled: scores of different folds are compared as log-odds, so a probe without
    calibrated scores may look worse than it is.
    Raises: DataError without groups, for differing lengths, NaN, one class, or as `grouped_folds`.

    Source: Hewitt and Liang 2019 (selectivity). differs: the control is shuffled labels.

    Examples:
        >>> import numpy as np
        >>> from probes import LogisticProbe, evaluate
        >>> labels, questions = np.tile([0, 1], 20), np.repeat(np.arange(20), 2)
        >>> rows = np.random.default_rng(0).standard_normal((40, 4))
        >>> rows[labels == 1, 0] += 3
        >>> found = evaluate(LogisticProbe(), rows, labels, questions)
        >>> f"{found.auroc.value:.2f} over {found.auroc.n} questions"
        '0.93 over 20 questions'
        >>> found.selectivity.low > 0
        True
    """
    table = as_rows(rows)
    _, positive = two_classes(labels, len(table))
    questions = per_row(groups, "groups", "the question of each row", len(table))
    unit = {"leave_one_domain_out": domains, "leave_one_source_out": sources}.get(scheme)
    units = None if unit is None else per_row(unit, scheme, "one a row", len(table))
    folds = grouped_folds(positive, questions, units, scheme=scheme, n_folds=n_folds, seed=seed)
    rng = np.random.default_rng(seed)
    scores, probabilities = _out_of_fold(probe, table, positive, questions, folds)
    numbers = np.unique(questions, return_inverse=True)[1]
    weights = metrics.group_weights(numbers, n_resamples, rng)
    n = int(numbers.max()) + 1
    auroc = metrics.auroc(scores, positive, weights)
    shuffled = np.stack(
        [
            _shuffled_auroc(probe, table, positive, questions, folds, weights, rng)
            for _ in range(n_shuffles)
        ]
        or [np.full(len(weights), np.nan)]
    )
    return Evaluation(
        scores=scores,
        probabilities=probabilities,
        positive=positive,
        groups=questions,
        auroc=metrics.estimate_of(auroc, n),
        average_precision=metrics.estimate_of(
            metrics.average_precision(scores, positive, weights), n
        ),
        tpr_at_1_fpr=metrics.estimate_of(
            metrics.true_positive_rate(0.01)(scores, positive, weights), n
        ),
        tpr_at_5_fpr=metrics.estimate_of(
            metrics.true_positive_rate(0.05)(scores, positive, weights), n
        ),
        ece=metrics.estimate_of(metrics.calibration_error(probabilities, positive, weights), n),
        reliability=metrics.reliability_table(probabilities, positive, weights),
        shuffled_auroc=metrics.estimate_of(shuffled, n),
        selectivity=metrics.estimate_of(auroc - shuffled, n),
        scheme=scheme,
    )


def as_rows(rows: Any) -> NDArray[Any]:
    """Rows that can be indexed by fold. Raises: DataError without rows, RowsError for NaN."""
    if isinstance(rows, torch.Tensor):
        rows = rows.detach().float().cpu().numpy()
    if not isinstance(rows, np.ndarray) and len(rows) and isinstance(rows[0], str):
        texts = np.empty(len(rows), dtype=object)
        texts[:] = list(rows)
        rows = texts
    table = np.asarray(rows)
    if table.ndim == 0 or len(table) == 0:
        raise DataError("there are no rows to evaluate a probe on")
    if table.dtype.kind == "f":
        require_finite(table)
    return table


def per_row(values: Any, name: str, meaning: str, n_rows: int) -> NDArray[Any]:
    """One value a row. Raises: DataError for none, or another number of them."""
    if values is None:
        raise DataError(
            f"{name} are missing: give {meaning}, so that no question is in training and test"
        )
    found = np.asarray(values)
    if found.shape != (n_rows,):
        raise DataError(f"{name}: {meaning} needed; got shape {found.shape} for {n_rows} rows")
    return found


def shuffled_within(
    positive: NDArray[np.bool_], groups: NDArray[Any], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Labels shuffled among the rows of each question.

    Where every question has one class only, nothing would move: then whole questions trade labels.
    """
    names, numbers = np.unique(groups, return_inverse=True)
    share = np.bincount(numbers, positive) / np.bincount(numbers)
    if np.isin(share, (0, 1)).all():
        return np.asarray(rng.permutation(share)[numbers] == 1)
    shuffled = positive.copy()
    for number in range(len(names)):
        mine = np.flatnonzero(numbers == number)
        shuffled[mine] = positive[rng.permutation(mine)]
    return shuffled


def _out_of_fold(
    probe: Any,
    table: NDArray[Any],
    positive: NDArray[np.bool_],
    groups: NDArray[Any],
    folds: Sequence[Fold],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    scores, probabilities = np.empty(len(table)), np.empty(len(table))
    labels = positive.astype(int)
    for train, test in folds:
        extra = {"groups": groups[train]} if has_fit_parameter(probe, "groups") else {}
        fitted = clone(probe).fit(table[train], labels[train], **extra)
        scores[test] = fitted.decision_function(table[test])
        probabilities[test] = fitted.predict_proba(table[test])[:, 1]
    return scores, probabilities


def _shuffled_auroc(
    probe: Any,
    table: NDArray[Any],
    positive: NDArray[np.bool_],
    groups: NDArray[Any],
    folds: Sequence[Fold],
    weights: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    for _ in range(100):  # a shuffle may leave a fold with one class
        shuffled = shuffled_within(positive, groups, rng)
        if all(0 < shuffled[train].sum() < len(train) for train, _ in folds):
            scores, _ = _out_of_fold(probe, table, shuffled, groups, folds)
            return metrics.auroc(scores, shuffled, weights)
    raise DataError("too few questions: shuffled labels leave a fold without one of the classes")
