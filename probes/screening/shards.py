"""Readings on the disk, shard by shard: killed at any moment, a screening goes on from there."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.errors import DataError
from persona.files import atomic_write_bytes, atomic_write_text

FOLDER = "readings"


@dataclass(frozen=True, eq=False)
class Shard:
    """Readings of consecutive samples, and where the file was then.

    lines, clusters: [sample], line number from 1, and hash of the prompt.
    values: [sample 3]: projection, raw baseline, probe score.
    totals, counts: [2 d_model] and [draw], sums over all samples up to the end of this shard (see
        `Block`); running sums are the same to the bit wherever shards end.
    skipped_lines, skipped_reasons: of the lines left out since the shard before.
    end: byte offset and line number up to which the file is read.
    """

    lines: NDArray[np.int64]
    clusters: NDArray[np.int64]
    values: NDArray[np.float64]
    totals: NDArray[np.float64]
    counts: NDArray[np.int64]
    skipped_lines: NDArray[np.int64]
    skipped_reasons: NDArray[Any]
    end: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lines)


class Shards:
    """The shards of one job in a folder.

    job: everything the readings depend on.
    Raises: DataError where the folder holds those of another job, and names what differs.
    """

    def __init__(self, out: Path, job: Mapping[str, Any]) -> None:
        self.folder = out / FOLDER
        mark = self.folder / "job.json"
        if mark.exists():
            try:
                before = json.loads(mark.read_text(encoding="utf-8"))
            except ValueError as error:
                raise DataError(f"{mark} is damaged; delete {out} or use another --out") from error
            if changed := sorted(key for key in {*before, *job} if before.get(key) != job.get(key)):
                raise DataError(
                    f"{out} holds a screening that differs in: {', '.join(changed)}. Use another "
                    "--out, or delete that folder"
                )
        else:
            atomic_write_text(mark, json.dumps(job, sort_keys=True, indent=1))

    def finished(self) -> Iterator[Shard]:
        """The shards from the first up to one that is missing or damaged."""
        number = 0
        while (shard := _read(self._path(number))) is not None:
            yield shard
            number += 1

    def write(self, number: int, shard: Shard) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **{field.name: getattr(shard, field.name) for field in fields(shard)})
        atomic_write_bytes(self._path(number), buffer.getvalue())

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"


def _read(path: Path) -> Shard | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Shard(**{field.name: stored[field.name] for field in fields(Shard)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


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
