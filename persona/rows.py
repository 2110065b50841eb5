"""The columns of rows.parquet: one row per question, condition, seed and measure."""

from __future__ import annotations

import pandas as pd

COLUMNS = {
    "stage": "object",
    "condition": "object",
    "seed": "int64",
    "question_id": "object",
    "domain": "object",
    "split": "object",
    "measure": "object",
    "value": "float64",
    "layer": "Int64",
    "candidate": "object",
    "rank": "Int64",
    "coefficient": "float64",
    "text": "object",
}


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns of rows.parquet, in order, with their types; absent ones are null."""
    filled = rows.reindex(columns=list(COLUMNS))
    filled["seed"] = filled["seed"].fillna(0)
    for column in ("condition", "question_id", "domain", "split", "candidate", "text"):
        filled[column] = filled[column].astype(object).where(filled[column].notna(), None)
    return filled.astype(COLUMNS)
