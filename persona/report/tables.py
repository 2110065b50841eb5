"""From the rows of a run to the small tables that figures and page show.

Random draws of one question are averaged before anything else, so that an interval is always over
questions (or neutral texts), each counted once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from persona.errors import DataError
from persona.intervals import Estimate, bootstrap
from persona.report.wording import as_float
from persona.rows import COLUMNS, FRONTS, PLACEBOS


def checked(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, once they have every column of rows.parquet. Raises: DataError."""
    missing = [column for column in COLUMNS if column not in rows.columns]
    if missing:
        raise DataError(f"rows need the columns {', '.join(COLUMNS)}; {missing} are missing")
    return rows


def readings(
    rows: pd.DataFrame,
    stage: str,
    measure: str,
    *,
    split: str | None = None,
    conditions: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Rows of one measure with a finite value; placebos and front have tables of their own.

    Raises: DataError when there are none, naming what was looked for.
    """
    chosen = rows[(rows["stage"] == stage) & (rows["measure"] == measure)]
    if split is not None:
        chosen = chosen[chosen["split"] == split]
    if conditions is not None:
        chosen = chosen[chosen["condition"].isin(list(conditions))]
    else:
        chosen = chosen[~chosen["condition"].isin((*PLACEBOS, *FRONTS))]
    chosen = chosen[np.isfinite(chosen["value"].to_numpy(dtype=np.float64, na_value=np.nan))]
    if chosen.empty:
        where = f" of the split {split!r}" if split else ""
        raise DataError(f"there are no rows of stage {stage!r} with a {measure!r}{where}")
    return chosen


def question_means(chosen: pd.DataFrame) -> pd.DataFrame:
    """[question x condition], random draws averaged; NaN where a condition lacks a question."""
    return chosen.pivot_table("value", "question_id", "condition", aggfunc="mean")


def estimate(values: Any, seed: int = 0) -> Estimate:
    """Mean with its 95 % bootstrap interval over questions; NaN without any."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return Estimate(np.nan, np.nan, np.nan, 0)
    return bootstrap(known, seed=seed)


def estimates_by_condition(
    rows: pd.DataFrame, measure: str, split: str, seed: int = 0
) -> dict[str, Estimate]:
    """Mean and interval of a measure at stage "score" for every condition that has it."""
    table = question_means(readings(rows, "score", measure, split=split))
    return {str(name): estimate(table[name], seed) for name in table.columns}


def change_by_condition(
    rows: pd.DataFrame, measure: str, split: str, baseline: str, seed: int = 0
) -> dict[str, Estimate]:
    """The same for the paired difference from one condition, which itself is left out."""
    table = question_means(readings(rows, "score", measure, split=split))
    if baseline not in table:
        raise DataError(f"{measure} has no rows of the condition {baseline!r} to compare with")
    return {
        str(name): estimate(table[name] - table[baseline], seed)
        for name in table.columns
        if name != baseline
    }


def n_draws(rows: pd.DataFrame, condition: str, split: str, measure: str = "gap") -> int:
    """How many random draws a condition has."""
    mine = (rows["stage"] == "score") & (rows["condition"] == condition)
    mine &= (rows["split"] == split) & (rows["measure"] == measure)
    return int(rows.loc[mine, "seed"].nunique())


def condition_entry(scorecard: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The entry of a condition in the scorecard, empty where there is none."""
    entries = {entry.get("name"): entry for entry in scorecard.get("conditions") or []}
    return entries.get(name) or {}


def estimate_from(entry: Any) -> Estimate | None:
    """An Estimate from `{mean or value, low, high, n}`, None where one of them is missing."""
    if not isinstance(entry, Mapping):
        return None
    value = as_float(entry.get("mean", entry.get("value")))
    low, high = as_float(entry.get("low")), as_float(entry.get("high"))
    if value is None or low is None or high is None:
        return None
    return Estimate(value, low, high, int(as_float(entry.get("n")) or 0))


def seed_of(scorecard: Mapping[str, Any]) -> int:
    """The seed that the scorecard's intervals were drawn with."""
    return int(as_float(scorecard.get("seed")) or 0)
