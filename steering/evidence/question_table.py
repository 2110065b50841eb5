"""Small tables of the rows of a run: one row a question, one column a condition."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import pandas as pd

from persona.errors import DataError
from persona.intervals import Estimate
from persona.rows import SEVERAL


def question_table(
    rows: pd.DataFrame, measure: str, split: str, conditions: Sequence[str] | None = None
) -> pd.DataFrame:
    """[question x condition] of one measure at stage "score"; random draws are averaged.

    conditions: default all but those of which there are several, whose mean says nothing and which
        may be run on some of the questions only.

    Raises: DataError when a condition lacks a question that another has, or a reading is NaN.
    """
    names = rows["condition"]
    wanted = ~names.isin(SEVERAL) if conditions is None else names.isin(conditions)
    chosen = rows[
        (rows["stage"] == "score")
        & (rows["measure"] == measure)
        & (rows["split"] == split)
        & wanted
    ]
    if (missing := chosen[chosen["value"].isna()]).size:
        first = missing.iloc[0]
        raise DataError(
            f"{measure} is not a number for {len(missing)} of {len(chosen)} readings, such as "
            f"{first['question_id']!r} under {first['condition']!r}; a mean over the others would "
            "be of other texts"
        )
    table = chosen.pivot_table("value", "question_id", "condition", aggfunc="mean")
    if table.isna().any(axis=None):
        lacking = table.columns[table.isna().any()].tolist()
        raise DataError(f"{measure}: conditions {lacking} lack questions that others have")
    return table


def interval(estimate: Estimate) -> dict[str, float | None]:
    """An estimate as scorecard.json has it; an interval without ends has none there."""
    ends = {"low": estimate.low, "high": estimate.high}
    return {"value": estimate.value} | {k: e if isfinite(e) else None for k, e in ends.items()}
