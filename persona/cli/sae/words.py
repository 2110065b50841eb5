"""Tables of latents as they are printed, for people and for machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def table_in_words(table: pd.DataFrame, as_json: bool = False) -> str:
    """The table in columns, or its rows as JSON."""
    if as_json:
        return json.dumps(rows_of(table), indent=2, allow_nan=False)
    return str(table.to_string(index=False, float_format=lambda x: f"{x:.4g}"))


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Each row as a JSON-able object; what is undefined is null."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records", double_precision=15))
    return rows
