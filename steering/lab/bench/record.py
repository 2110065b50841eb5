"""The record of a finished run: readings.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from persona.errors import DataError
from persona.files import atomic_write_text


@dataclass(frozen=True)
class Run:
    """A finished run of an experiment, as readings.json holds it.

    numbers: label, value, low, high, n (questions), unit; undefined ones are null in the file.
    seconds: of the work behind it, whenever that was done. facts: by seed, what else is known.
    """

    name: str
    title: str
    date: str
    headline: str
    model: str
    model_revision: str
    dtype: str
    device: str
    seeds: tuple[int, ...]
    tiny: bool
    seconds: float
    fine_tunes: int
    answer_pairs: int
    numbers: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """What reruns it."""
        base = "" if self.model == "default" else f" --base {self.model}"
        return f"persona lab {self.name} --seeds {','.join(map(str, self.seeds))}{base}"


def write_run(path: Path, run: Run) -> None:
    """Writes readings.json: plain JSON, without NaN."""
    text = json.dumps(_plain(vars(run)), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_text(path, text + "\n")


def read_run(path: Path) -> Run | None:
    """The run in a readings.json, None where there is no such file.

    Raises: DataError for a file that is something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name: values[f.name] for f in fields(Run)}
        known |= {"seeds": tuple(values["seeds"]), "numbers": tuple(values["numbers"])}
        for name in ("name", "date", "headline"):
            if not isinstance(values[name], str):
                raise TypeError(name)
        return Run(**known)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not the record of an experiment; remove it") from error


def _plain(value: Any) -> Any:
    """Mappings and sequences as JSON has them; a number that is none becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
