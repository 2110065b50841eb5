"""What a run has finished so far: killed and started again, it goes on from there."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd
from torch import Tensor

from persona.files import atomic_write_bytes, atomic_write_text, remove_leftovers

FOLDER = ".work"


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

    fingerprint: everything the results depend on. A folder left by another fingerprint is
    emptied, so that stages of two different runs never mix.
    """

    def __init__(self, out: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder = out / FOLDER
        for folder in (out, self.folder):
            remove_leftovers(folder)
        self._seconds = 0.0
        self._open_stages = 0
        text = json.dumps(fingerprint, sort_keys=True, default=str)
        mark = self.folder / "fingerprint.json"
        if not (mark.exists() and mark.read_text(encoding="utf-8") == text):
            shutil.rmtree(self.folder, ignore_errors=True)
            atomic_write_text(mark, text)

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
        """Whether the stage is finished."""
        return self._clock(name).exists()

    def keep(self, name: str, table: pd.DataFrame, seconds: float) -> None:
        """Keeps the table of a stage that was made elsewhere, and the time it took."""
        self._save(name, table)
        atomic_write_text(self._clock(name), str(seconds))

    def kept_table(self, name: str) -> pd.DataFrame:
        """The table of a finished stage, whose time is counted."""
        self._seconds += float(self._clock(name).read_text(encoding="utf-8"))
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
        """Remove the stages: the results stand on their own."""
        shutil.rmtree(self.folder, ignore_errors=True)

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
        # The clock is written last, so a stage that has one is whole.
        if clock.exists():
            self._seconds += float(clock.read_text(encoding="utf-8"))
            return load(path)
        start = time.perf_counter()
        self._open_stages += 1
        try:
            made = make()
        finally:
            self._open_stages -= 1
        save(made)
        spent = time.perf_counter() - start
        atomic_write_text(clock, str(spent))
        # A stage made within another is part of that one's time.
        if not self._open_stages:
            self._seconds += spent
        return load(path)
