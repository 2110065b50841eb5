"""Results on the disk, shard by shard: killed at any moment, a run goes on from there."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.engine.shards import Shard
from persona.errors import DataError
from persona.files import atomic_write_bytes, atomic_write_text, remove_leftovers

NAMES = "names-of-all"
"""The array beside those of a shard that says which belong to it."""

Arrays = Mapping[str, NDArray[Any]]


class ShardFolder:
    """The finished shards of one job: named arrays by number.

    job: everything that the results depend on, JSON-able.
    what: what the job is, as an error names it.
    Raises: DataError where the folder holds those of another job, and names what differs.
    """

    def __init__(self, folder: Path, job: Mapping[str, Any], what: str = "work") -> None:
        self.folder = folder
        remove_leftovers(folder)
        mark = folder / "job.json"
        if mark.exists():
            try:
                before = json.loads(mark.read_text(encoding="utf-8"))
                keys = sorted({*before, *job})
            except (OSError, ValueError, TypeError, RecursionError) as error:
                raise DataError(
                    f"{mark} is damaged; delete that folder or use another --out"
                ) from error
            if changed := [key for key in keys if before.get(key) != job.get(key)]:
                raise DataError(
                    f"{folder} holds {what} that differs in: {', '.join(changed)}. Use another "
                    "--out, or delete that folder"
                )
        else:
            atomic_write_text(mark, json.dumps(job, sort_keys=True, indent=1))

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
        # The archive proves its contents, not its names.
        names = arrays.pop(NAMES, None)
        if names is None or sorted(names.tolist()) != sorted(arrays):
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
        np.savez(buffer, **{**arrays, NAMES: np.array(sorted(arrays))})  # type: ignore[arg-type]
        atomic_write_bytes(self.path(number), buffer.getvalue())

    def missing(self, shards: Sequence[Shard]) -> list[Shard]:
        """Those that are still to be done."""
        return [shard for shard in shards if self.read(shard.number) is None]

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"


def digest_of(*parts: Any) -> str:
    """16 hex digits of SHA-256 over arrays and JSON-able values."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
