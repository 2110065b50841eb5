"""Which rows a probe learns from and which it is scored on: never both of one question."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from persona.errors import DataError

Scheme = Literal[
    "question", "leave_one_question_out", "leave_one_domain_out", "leave_one_source_out"
]
Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
N_FOLDS = 5


def grouped_folds(
    positive: NDArray[np.bool_],
    groups: NDArray[Any],
    units: NDArray[Any] | None,
    *,
    scheme: Scheme,
    n_folds: int = N_FOLDS,
    seed: int = 0,
) -> list[Fold]:
    """Training and test rows of each fold; every row is tested once.

    "question"                n_folds folds of whole questions, classes balanced where possible
    "leave_one_question_out"  one fold a question
    "leave_one_domain_out", "leave_one_source_out"
                              one fold a unit (domain or source of each row, in `units`); a question
                              that also stands in another unit is left out of the training rows too.
                              Where that would leave none, as when every source answers every
                              question, the unit's questions are tested in n_folds parts
    Raises: DataError for fewer than 2 questions or units, or a fold whose training rows are of one
    class.
    """
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise DataError(f"held-out scores need at least 2 questions (groups); got {n_groups}")
    if scheme == "question":
        folds = _by_question(positive, groups, min(n_folds, n_groups), seed)
    elif scheme == "leave_one_question_out":
        folds = [_held_out(groups == group) for group in np.unique(groups)]
    else:
        if units is None or len(np.unique(units)) < 2:
            kind = scheme.removeprefix("leave_one_").removesuffix("_out")
            raise DataError(f"{scheme} needs the {kind} of each row, at least 2 of them")
        folds = list(_by_unit(positive, groups, units, n_folds, seed))
    for train, test in folds:
        if not _both(positive[train]):
            raise DataError(
                f"the fold that tests question {groups[test[0]]!r} leaves {len(train)} training "
                "rows that are not of two classes; give more questions, or take another scheme"
            )
    return folds


def _by_question(
    positive: NDArray[np.bool_], groups: NDArray[Any], n_folds: int, seed: int
) -> list[Fold]:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # It warns of classes with fewer rows than folds; what matters is checked afterwards.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        rare = min(int(positive.sum()), int((~positive).sum()))
        folds = splitter.split(groups, positive, groups) if rare >= n_folds else iter(())
        found = [(train, test) for train, test in folds if len(test)]
    return found or [_held_out(np.isin(groups, part)) for part in _parts(groups, n_folds, seed)]


def _by_unit(
    positive: NDArray[np.bool_],
    groups: NDArray[Any],
    units: NDArray[Any],
    n_folds: int,
    seed: int,
) -> Iterator[Fold]:
    for unit in np.unique(units):
        inside = units == unit
        train = ~inside & ~np.isin(groups, groups[inside])
        if _both(positive[train]):
            yield np.flatnonzero(train), np.flatnonzero(inside)
            continue
        for part in _parts(groups[inside], n_folds, seed):
            tested = np.isin(groups, part)
            yield np.flatnonzero(~inside & ~tested), np.flatnonzero(inside & tested)


def _parts(groups: NDArray[Any], n_folds: int, seed: int) -> list[NDArray[Any]]:
    """The questions in up to n_folds random parts."""
    questions = np.random.default_rng(seed).permutation(np.unique(groups))
    return np.array_split(questions, min(n_folds, len(questions)))


def _held_out(tested: NDArray[np.bool_]) -> Fold:
    return np.flatnonzero(~tested), np.flatnonzero(tested)


def _both(positive: NDArray[np.bool_]) -> bool:
    return bool(positive.any() and not positive.all())
