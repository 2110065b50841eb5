"""What a run has finished so far: killed and started again, it goes on from there."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd
from torch import Tensor

from persona.differences import differences
from persona.errors import DataError
from persona.files import atomic_write_bytes, atomic_write_text, remove_leftovers
from persona.stage_record import seconds_of, write_record

logger = logging.getLogger("persona")

FOLDER = ".work"
SETTINGS = "settings.json"


@runtime_checkable
class Stages(Protocol):
    """Where finished stages are kept: by name, made only when they are not there."""

    def table(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame: ...

    def tensors(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]: ...


class Unsaved:
    """Stages that are made each time: for work from a notebook that fits in memory."""

    def table(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        return make()

    def tensors(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return make()


class Workspace:
    """Finished stages of one run, kept under the output folder until the run is complete.

    fingerprint: everything the results depend on, JSON-able. Its stages lie in a folder named
    after it and carry it in their records, so that stages of two different runs never mix; those
    of another run stay where they are, and a note says so. A damaged stage is made anew.
    One process at a time: see `persona.run_lock`.
    """

    def __init__(self, out: Path, fingerprint: Mapping[str, Any]) -> None:
        text = json.dumps(fingerprint, sort_keys=True, default=str)
        self.mark = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = out / FOLDER / self.mark
        self.folder.mkdir(parents=True, exist_ok=True)
        for folder in (out, self.folder):
            remove_leftovers(folder)
        self._seconds = 0.0
        self._open_stages = 0
        for other in self.folder.parent.iterdir():
            if other != self.folder and any(other.glob("*.seconds")):
                logger.info(
                    "%s holds unfinished stages of a run with other settings%s; they are not "
                    "used. To go on with them give its settings again, or remove that folder.",
                    other,
                    _what_differs(other / SETTINGS, json.loads(text)),
                )
        atomic_write_text(self.folder / SETTINGS, text)

    @property
    def seconds(self) -> float:
        """Time the stages took, those of earlier runs included."""
        return self._seconds

    @property
    def resumed(self) -> bool:
        return any(self.folder.glob("*.seconds"))

    def table(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The stage's table: read when it is finished, else made and kept."""
        path = self._table_path(name)
        return self._stage(name, path, make, lambda made: self._save(name, made), pd.read_parquet)

    def has(self, name: str) -> bool:
        """Whether the stage is finished, and whole."""
        return seconds_of(self._clock(name), self._table_path(name), self.mark) is not None

    def keep(self, name: str, table: pd.DataFrame, seconds: float) -> None:
        """Keeps the table of a stage that was made elsewhere, and the time it took."""
        self._save(name, table)
        write_record(self._clock(name), self._table_path(name), seconds, self.mark)

    def kept_table(self, name: str) -> pd.DataFrame:
        """The table of a finished stage, whose time is counted.

        Raises: DataError where it is not there, or damaged.
        """
        seconds = seconds_of(self._clock(name), self._table_path(name), self.mark)
        if seconds is None:
            raise DataError(f"{self._table_path(name)} is gone; run the same command again")
        self._seconds += seconds
        return pd.read_parquet(self._table_path(name))

    def tensors(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The same for named tensors."""
        from safetensors.torch import load_file
        from safetensors.torch import save as to_bytes

        path = self.folder / f"{name}.safetensors"

        def save(tensors: dict[str, Tensor]) -> None:
            atomic_write_bytes(path, to_bytes({k: v.contiguous() for k, v in tensors.items()}))

        return self._stage(name, path, make, save, load_file)

    def close(self) -> None:
        """Remove the stages of this run: the results stand on their own."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # unless another run has left stages

    def _clock(self, name: str) -> Path:
        return self.folder / f"{name}.seconds"

    def _table_path(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def _save(self, name: str, table: pd.DataFrame) -> None:
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        atomic_write_bytes(self._table_path(name), buffer.getvalue())

    def _stage(
        self,
        name: str,
        path: Path,
        make: Callable[[], Any],
        save: Callable[[Any], None],
        load: Callable[[Path], Any],
    ) -> Any:
        clock = self._clock(name)
        kept = seconds_of(clock, path, self.mark)
        if kept is not None:
            self._seconds += kept
            return load(path)
        start = time.perf_counter()
        self._open_stages += 1
        try:
            made = make()
        finally:
            self._open_stages -= 1
        save(made)
        spent = time.perf_counter() - start
        write_record(clock, path, spent, self.mark)
        # A stage made within another is part of that one's time.
        if not self._open_stages:
            self._seconds += spent
        return load(path)


def _what_differs(settings: Path, now: Mapping[str, Any]) -> str:
    """In brackets, where the settings of the other run can still be read."""
    try:
        found = list(differences(now, json.loads(settings.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError, RecursionError):
        return ""
    return f" ({'; '.join(found[:3])})" if found else ""
