"""What a run has finished so far: killed and started again, it goes on from there.

A stage is a file and a record of it, written last, with the file's hash: what is damaged, or was
made for other settings, is made anew. Results too many for one file are kept by
`persona.engine.ShardFolder`.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd
from torch import Tensor

from persona.errors import DataError
from persona.files import atomic_write_bytes, atomic_write_text, remove_leftovers, sha256_of_file
from persona.fingerprint import LAYOUT, differences, fingerprint_of

logger = logging.getLogger("persona")

FOLDER = ".work"
SETTINGS = "settings.json"


@runtime_checkable
class Stages(Protocol):
    """Where finished stages are kept: by name, made only when they are not there."""

    def table(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame: ...

    def tensors(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]: ...

    def by_layer(
        self, name: str, make: Callable[[], Mapping[int, Tensor]]
    ) -> dict[int, Tensor]: ...


class Unsaved:
    """Stages that are made each time: for work from a notebook that fits in memory."""

    def table(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        return make()

    def tensors(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return make()

    def by_layer(self, name: str, make: Callable[[], Mapping[int, Tensor]]) -> dict[int, Tensor]:
        return dict(make())


class StageCache:
    """Finished stages in one folder, each in a file named after it.

    common: everything that all of them depend on (models, seed, number format), JSON-able. What
        one alone depends on are its `inputs`, and then part of the name of its file: one whose
        inputs have changed has another file, so results of two settings never mix.
    seconds: time that the stages asked for took, each once, those that an earlier run made
        included. One made within another is part of that one's time, asked for again or not.
    One process at a time writes a stage: see `persona.run_lock`.
    """

    def __init__(self, folder: Path, common: Mapping[str, Any]) -> None:
        self.folder, self.common = folder, {"layout": LAYOUT, **common}
        self.mark = fingerprint_of(self.common)
        self.seconds = 0.0
        self._open_stages = 0
        self._counted: set[Path] = set()

    def table(
        self,
        name: str,
        make: Callable[[], pd.DataFrame],
        inputs: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """The stage's table: read when it is finished, else made and kept, whole or not at all."""
        path, mark = self._place(name, "parquet", inputs)
        return self._stage(name, path, mark, make, _table_bytes, pd.read_parquet)

    def tensors(
        self,
        name: str,
        make: Callable[[], dict[str, Tensor]],
        inputs: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """The same for named tensors."""
        from safetensors.torch import load_file
        from safetensors.torch import save as to_bytes

        path, mark = self._place(name, "safetensors", inputs)
        return self._stage(
            name,
            path,
            mark,
            make,
            lambda made: to_bytes({key: value.contiguous() for key, value in made.items()}),
            load_file,
        )

    def by_layer(
        self,
        name: str,
        make: Callable[[], Mapping[int, Tensor]],
        inputs: Mapping[str, Any] | None = None,
    ) -> dict[int, Tensor]:
        """The same for a tensor of each block, in the order of the blocks."""
        kept = self.tensors(
            name, lambda: {str(layer): tensor for layer, tensor in make().items()}, inputs
        )
        return {layer: kept[str(layer)] for layer in sorted(map(int, kept))}

    def has(self, name: str) -> bool:
        """Whether the stage of a table without inputs is finished, and whole."""
        return _seconds_of(*self._place(name, "parquet")) is not None

    def keep(self, name: str, table: pd.DataFrame, seconds: float) -> None:
        """Keeps the table of a stage that was made elsewhere, and the time it took."""
        _write(*self._place(name, "parquet"), _table_bytes(table), seconds)

    def kept_table(self, name: str) -> pd.DataFrame:
        """The table of a finished stage, whose time is counted.

        Raises: DataError where it is not there, or damaged.
        """
        path, mark = self._place(name, "parquet")
        seconds = _seconds_of(path, mark)
        if seconds is None:
            raise DataError(f"{path} is gone; run the same command again")
        self._count(path, seconds)
        return pd.read_parquet(path)

    def _count(self, path: Path, seconds: float) -> None:
        if path not in self._counted:
            self.seconds += seconds
            self._counted.add(path)

    def _place(
        self, name: str, suffix: str, inputs: Mapping[str, Any] | None = None
    ) -> tuple[Path, str]:
        """File of a stage, and the mark that its record must carry."""
        if inputs is None:
            return self.folder / f"{name}.{suffix}", self.mark
        mark = fingerprint_of({"stage": name, **self.common, **inputs})
        return self.folder / f"{name}-{mark}.{suffix}", mark

    def _stage(
        self,
        name: str,
        path: Path,
        mark: str,
        make: Callable[[], Any],
        to_bytes: Callable[[Any], bytes],
        load: Callable[[Path], Any],
    ) -> Any:
        kept = _seconds_of(path, mark)
        if kept is not None:
            self._count(path, kept)
            return load(path)
        start = time.perf_counter()
        self._open_stages += 1
        try:
            made = make()
        finally:
            self._open_stages -= 1
        spent = time.perf_counter() - start
        _write(path, mark, to_bytes(made), spent)
        self._count(path, 0.0 if self._open_stages else spent)
        return load(path)


class Workspace(StageCache):
    """The stages of one run, kept under its output folder until the run is complete.

    fingerprint: everything the results depend on, JSON-able. Its stages lie in a folder named
    after it; those of another run, or of an older version, stay where they are, and a note says so.
    """

    def __init__(self, out: Path, fingerprint: Mapping[str, Any]) -> None:
        super().__init__(out, fingerprint)
        self.folder = out / FOLDER / self.mark
        self.folder.mkdir(parents=True, exist_ok=True)
        for folder in (out, self.folder):
            remove_leftovers(folder)
        text = json.dumps(self.common, sort_keys=True, default=str)
        for other in self.folder.parent.iterdir():
            if other != self.folder and any(path.name != SETTINGS for path in other.glob("*")):
                logger.info("%s %s", other, _whose(other / SETTINGS, json.loads(text)))
        atomic_write_text(self.folder / SETTINGS, text)

    @property
    def resumed(self) -> bool:
        return any(self.folder.glob("*.seconds"))

    def close(self) -> None:
        """Remove the stages of this run: the results stand on their own."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # unless another run has left stages


def _whose(settings: Path, now: Mapping[str, Any]) -> str:
    """What lies in another run's folder, and what differs where its settings can be read."""
    found: list[str] = []
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        there = json.loads(settings.read_text(encoding="utf-8"))
        if there.get("layout") != now["layout"]:
            return (
                "holds unfinished stages that another version of personascope made; this one does "
                "not read them. Go on with that version, or remove that folder."
            )
        found = list(differences(now, there))
    what = f" ({'; '.join(found[:3])})" if found else ""
    return (
        f"holds unfinished stages of a run with other settings{what}; they are not used. To go on "
        "with them give its settings again, or remove that folder."
    )


def _table_bytes(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _write(path: Path, mark: str, content: bytes, seconds: float) -> None:
    """The stage's file, then its record: the proof that the file is whole."""
    atomic_write_bytes(path, content)
    facts = {"seconds": seconds, "sha256": sha256_of_file(path), "mark": mark}
    atomic_write_text(path.with_suffix(".seconds"), json.dumps(facts))


def _seconds_of(path: Path, mark: str) -> float | None:
    """The seconds that a finished stage took; None where it has to be made.

    That is: it was never finished, or what lies there is damaged or of another run. Both files are
    then removed, and if there was a record a warning says so.
    """
    record = path.with_suffix(".seconds")
    if not record.exists():
        return None
    wrong = None
    try:
        facts = json.loads(record.read_text(encoding="utf-8"))
        seconds = float(facts["seconds"])
        if facts["mark"] != mark:
            wrong = "is of a run with other settings"
        elif not (math.isfinite(seconds) and seconds >= 0):
            wrong = "has a damaged record"
        elif sha256_of_file(path) != facts["sha256"]:
            wrong = "is damaged"
    except FileNotFoundError:
        wrong = "is missing"
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        wrong = "has a damaged record"
    if wrong is None:
        return seconds
    logger.warning("%s %s: that stage is made anew", path, wrong)
    for stale in (record, path):
        if stale.is_dir() and not stale.is_symlink():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            stale.unlink(missing_ok=True)
    return None
