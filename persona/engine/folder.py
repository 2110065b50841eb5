"""Results on the disk, shard by shard: killed at any moment, a run goes on from there."""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.engine.shards import Shard
from persona.errors import DataError
from persona.files import atomic_write_bytes, atomic_write_text, remove_leftovers
from persona.fingerprint import LAYOUT, fingerprint_of, require_same

logger = logging.getLogger("persona")

NAMES, MARK = "names-of-all", "job"
"""The arrays beside those of a shard: which belong to it, and to which job it belongs."""

Arrays = Mapping[str, NDArray[Any]]


class ShardFolder:
    """The finished shards of one job: named arrays by number.

    job: everything that the results depend on, JSON-able; each shard carries its fingerprint, so
        that none of another job, or of an older version, is ever read.
    what: what the job is, as an error names it.
    Raises: DataError where the folder holds those of another job, and names what differs.
    """

    def __init__(self, folder: Path, job: Mapping[str, Any], what: str = "work") -> None:
        self.folder, self.mark = folder, fingerprint_of(LAYOUT, job)
        remove_leftovers(folder)
        record = folder / "job.json"
        try:
            if record.exists():
                require_same(record, {"layout": LAYOUT, **job}, what)
                return
        except ValueError as error:
            logger.warning("%s: written anew", error)
        atomic_write_text(record, json.dumps({"layout": LAYOUT, **job}, sort_keys=True, indent=1))

    def read(self, number: int) -> dict[str, NDArray[Any]] | None:
        """The arrays of a shard; None where it is missing or damaged."""
        try:
            # Opened here: of a damaged archive np.load would leave the file open.
            with (
                self.path(number).open("rb") as file,
                np.load(file, allow_pickle=False) as stored,
            ):
                arrays = {name: stored[name] for name in stored.files}
        # RuntimeError: what zipfile says of an archive that claims to be of another kind.
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):
            return None
        # The archive proves its contents, not its names, nor whose they are.
        names, mark = arrays.pop(NAMES, None), arrays.pop(MARK, None)
        if names is None or sorted(names.tolist()) != sorted(arrays) or str(mark) != self.mark:
            return None
        return arrays

    def finished(self, number: int) -> dict[str, NDArray[Any]]:
        """The arrays of a shard that was done. Raises: DataError where it is gone."""
        arrays = self.read(number)
        if arrays is None:
            raise DataError(f"{self.path(number)} is gone or damaged; run the same command again")
        return arrays

    def write(self, number: int, arrays: Arrays) -> None:
        """Keeps a shard, whole or not at all. Raises: OSError where the disk does not take it."""
        buffer = io.BytesIO()
        about = {NAMES: np.array(sorted(arrays)), MARK: np.array(self.mark)}
        np.savez(buffer, **{**arrays, **about})  # type: ignore[arg-type]
        atomic_write_bytes(self.path(number), buffer.getvalue())

    def missing(self, shards: Sequence[Shard]) -> list[Shard]:
        """Those that are still to be done."""
        return [shard for shard in shards if self.read(shard.number) is None]

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"
