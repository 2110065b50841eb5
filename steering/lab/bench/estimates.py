"""Numbers with intervals from the rows of several seeds: over questions and seeds together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.errors import DataError
from persona.intervals import Estimate, crossed_bootstrap
from persona.rows import ALIGNED

UNDEFINED = Estimate(np.nan, np.nan, np.nan, 0)


def paired(
    rows: pd.DataFrame, measure: str, split: str, conditions: Sequence[Any]
) -> NDArray[np.float64] | None:
    """[seed question condition] of one measure; None where a condition was not read at all.

    Draws of one question and seed are averaged. Seeds that lack a condition are left out.
    Raises: DataError when seeds were not read on the same questions.
    """
    chosen = rows[
        (rows["measure"] == measure)
        & (rows["split"] == split)
        & rows["condition"].isin(list(conditions))
    ]
    if not set(conditions) <= set(chosen["condition"]):
        return None
    by_seed = chosen.groupby("seed")["condition"].nunique()
    whole = chosen[chosen["seed"].isin(by_seed[by_seed == len(set(conditions))].index)]
    wide = whole.pivot_table("value", ["seed", "question_id"], "condition", aggfunc="mean")
    if wide.empty:
        return None
    n_seeds = wide.index.get_level_values("seed").nunique()
    n_questions = wide.index.get_level_values("question_id").nunique()
    if len(wide) != n_seeds * n_questions or wide.isna().any(axis=None):
        raise DataError(f"{measure}, {split}: the seeds were not read on the same questions")
    return wide[list(conditions)].to_numpy(dtype=np.float64).reshape(n_seeds, n_questions, -1)


def difference(
    rows: pd.DataFrame, measure: str, split: str, first: str, second: str = ALIGNED
) -> Estimate:
    """Mean of first - second, paired by seed and question; undefined where one is missing."""
    cube = paired(rows, measure, split, (first, second))
    return UNDEFINED if cube is None else crossed_bootstrap(cube[..., 0] - cube[..., 1])


def level(rows: pd.DataFrame, measure: str, split: str, condition: str) -> Estimate:
    """Mean of one condition."""
    cube = paired(rows, measure, split, (condition,))
    return UNDEFINED if cube is None else crossed_bootstrap(cube)


def ratio(
    rows: pd.DataFrame,
    measure: str,
    split: str,
    conditions: Sequence[str],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> Estimate:
    """A statistic of the means of several conditions [..., condition], resampled together."""
    cube = paired(rows, measure, split, conditions)
    return UNDEFINED if cube is None else crossed_bootstrap(cube, statistic)


def intervals(rows: pd.DataFrame) -> str:
    """What the intervals of these rows are over, for the subtitle of a figure."""
    over = "questions" if rows["seed"].nunique() == 1 else "questions and seeds"
    return f"95 % intervals over {over}"


def preference_rate(rows: pd.DataFrame, split: str, condition: str) -> Estimate:
    """Share of questions whose bad answer is the likelier one, per token: gap above 0."""
    cube = paired(rows, "gap", split, (condition,))
    return UNDEFINED if cube is None else crossed_bootstrap((cube[..., 0] > 0).astype(np.float64))


def rows_where(rows: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The rows with these values in these columns."""
    for column, value in columns.items():
        rows = rows[rows[column] == value]
    return rows
