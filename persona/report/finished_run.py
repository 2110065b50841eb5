"""A finished run, read back from its folder: what a report is drawn from."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from persona.errors import DataError
from persona.rows import tidy

SCORECARD, ROWS = "scorecard.json", "rows.parquet"
READING = Path("reading") / "reading.json"
"""Where `persona read --run` leaves what it read, below the folder of the run."""
logger = logging.getLogger("persona")

NEWEST = 2
"""The newest scorecard that a report of this version knows; older ones open too."""
VERDICTS = ("restored", "partly_restored", "not_restored", "no_emergent_shift")


@dataclass(frozen=True)
class FinishedRun:
    """Folder, scorecard and rows of a diagnosis.

    reading: what `persona read --run` has read of its models, where it was run.
    """

    folder: Path
    scorecard: dict[str, Any]
    rows: pd.DataFrame
    reading: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """What the folder is called."""
        return self.folder.resolve().name


def read_run(folder: str | Path) -> FinishedRun:
    """The run that `persona diagnose` or `persona demo` has left in a folder.

    Raises: DataError, one line, where the folder holds no finished run, one of a newer version, or
        files that are not what they are called.
    """
    place = Path(folder)
    if not place.is_dir():
        raise DataError(f"{place}: no such folder; a report is drawn of the folder of a run")
    return FinishedRun(
        place, _scorecard(place / SCORECARD), _rows(place / ROWS), _reading(place / READING)
    )


def _scorecard(path: Path) -> dict[str, Any]:
    if not path.is_file():
        unfinished = (path.parent / ".work").exists()
        raise DataError(
            f"{path.parent} holds no {path.name}"
            + (
                ": its run is not finished; the command that began it goes on"
                if unfinished
                else "; `persona diagnose --out` or `persona demo --out` leaves one"
            )
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{path} is no scorecard: {error}") from error
    if not isinstance(card, Mapping) or card.get("verdict") not in VERDICTS:
        raise DataError(f"{path} is no scorecard of a diagnosis: it names no verdict that is known")
    version = card.get("schema_version")
    if not isinstance(version, int) or not 1 <= version <= NEWEST:
        raise DataError(
            f"{path} is a scorecard of version {version!r}; this personascope reads 1 to {NEWEST}"
        )
    return dict(card)


def _reading(path: Path) -> dict[str, Any] | None:
    """None where there is none, or one of another kind, which a warning names."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["schema_version"] == 1 and isinstance(found["lists"], list):
            return dict(found)
    except (ValueError, RecursionError, OSError, KeyError, TypeError):
        pass
    logger.warning("%s is no reading of this version, and is left out of the report", path)
    return None


def _rows(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path.parent} holds no {path.name}, which figures are drawn from")
    try:
        rows = pd.read_parquet(path)
    except Exception as error:  # pyarrow has errors of its own for each way to be broken
        raise DataError(f"{path} is no table of rows: {error}") from error
    if missing := [column for column in ("stage", "condition", "value") if column not in rows]:
        raise DataError(f"{path} is no table of a run: it lacks the column {missing[0]!r}")
    try:
        return tidy(rows)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} is no table of a run: {error}") from error
