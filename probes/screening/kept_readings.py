"""Readings on the disk, shard by shard: killed at any moment, a screening goes on from there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.engine.folder import ShardFolder

FOLDER = "readings"


@dataclass(frozen=True, eq=False)
class Shard:
    """Readings of consecutive lines of the file.

    lines, clusters: [sample], line number from 1, and hash of the prompt.
    values: [sample 3]: projection, raw baseline, probe score.
    totals: [block 2 d_model], sums over each block of 64 lines (see `Block`); added up in their
        order they are the same to the bit wherever shards end and whoever read them.
    counts: [draw], over the shard.
    skipped_lines, skipped_reasons: of the lines left out.
    """

    lines: NDArray[np.int64]
    clusters: NDArray[np.int64]
    values: NDArray[np.float64]
    totals: NDArray[np.float64]
    counts: NDArray[np.int64]
    skipped_lines: NDArray[np.int64]
    skipped_reasons: NDArray[Any]

    def __len__(self) -> int:
        return len(self.lines)


class Shards:
    """The shards of one job in a folder.

    job: everything the readings depend on.
    Raises: DataError where the folder holds those of another job, and names what differs.
    """

    def __init__(self, out: Path, job: Mapping[str, Any]) -> None:
        self.kept = ShardFolder(out / FOLDER, job, "a screening")

    def finished(self, n_shards: int) -> Iterator[Shard]:
        """The first `n_shards` shards, which must all be there."""
        for number in range(n_shards):
            yield Shard(**self.kept.finished(number))

    def write(self, number: int, shard: Shard) -> None:
        arrays = {field.name: getattr(shard, field.name) for field in fields(shard)}
        self.kept.write(number, arrays)
