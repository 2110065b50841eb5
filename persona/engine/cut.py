"""Files of rows cut into shards by their lines alone, before any model has seen them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from persona.data.jsonl import Line, stream_lines
from persona.engine.shards import Shard
from persona.errors import DataError

BLOCK = 64
"""Rows read together. Batches are made within a block, so that a shard's size changes no bit."""
SHARD_SIZE = 512


@dataclass(frozen=True)
class Lines:
    """Consecutive rows of one file, as JSON lines. path: for what an error says."""

    path: str
    lines: tuple[Line, ...]

    def blocks(self) -> Iterator[tuple[Line, ...]]:
        """64 rows each; the last holds the rest."""
        for start in range(0, len(self.lines), BLOCK):
            yield self.lines[start : start + BLOCK]


def cut_files(paths: Sequence[Path], shard_size: int = SHARD_SIZE) -> list[Shard]:
    """Shards of at most `shard_size` rows, numbered through all files; each loads its `Lines`.

    paths: JSONL, whose blank lines count for nothing, or Parquet (.parquet), whose rows become
        JSON lines.
    Raises: DataError for a file that cannot be read, or a size that is no multiple of 64.
    """
    if shard_size < BLOCK or shard_size % BLOCK:
        raise DataError(f"the shard size must be a multiple of {BLOCK}; got {shard_size}")
    pieces = [
        piece
        for path in paths
        for piece in (_cut_parquet if is_parquet(path) else _cut_jsonl)(path, shard_size)
    ]
    return [
        Shard(number, piece.name(number), piece.n_rows, piece.load)
        for number, piece in enumerate(pieces)
    ]


def files_of(data: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files meant: one, several, or all .jsonl and .parquet of a folder by name.

    Raises: DataError where there is none.
    """
    if not isinstance(data, str | Path):
        paths = [Path(one) for one in data]
    elif Path(data).is_dir():
        paths = sorted(p for p in Path(data).iterdir() if p.suffix == ".jsonl" or is_parquet(p))
    else:
        paths = [Path(data)]
    if not paths:
        raise DataError(f"{data} holds no .jsonl or .parquet file")
    return paths


def is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


@dataclass(frozen=True)
class _JsonlPiece:
    """start, before: offset and number of the line that the piece begins behind."""

    path: Path
    start: int
    before: int
    last: int
    n_rows: int

    def name(self, number: int) -> str:
        return f"lines {self.before + 1} to {self.last} of {self.path} (shard {number})"

    def load(self) -> Lines:
        found = tuple(islice(stream_lines(self.path, self.start, self.before), self.n_rows))
        if len(found) < self.n_rows or found[-1].number != self.last:
            raise DataError(f"{self.path} has changed: line {self.last} is not where it was")
        return Lines(str(self.path), found)


def _cut_jsonl(path: Path, size: int) -> Iterator[_JsonlPiece]:
    start = before = n_rows = 0
    for line in stream_lines(path):
        n_rows += 1
        if n_rows == size:
            yield _JsonlPiece(path, start, before, line.number, n_rows)
            start, before, n_rows = line.end, line.number, 0
    if n_rows:
        yield _JsonlPiece(path, start, before, line.number, n_rows)


@dataclass(frozen=True)
class _ParquetPiece:
    path: Path
    before: int
    n_rows: int

    def name(self, number: int) -> str:
        last = self.before + self.n_rows
        return f"rows {self.before + 1} to {last} of {self.path} (shard {number})"

    def load(self) -> Lines:
        rows = _parquet_rows(self.path, self.before, self.n_rows)
        numbered = enumerate(rows, start=self.before + 1)
        return Lines(
            str(self.path),
            tuple(
                Line(number, json.dumps(row, default=str).encode(), 0) for number, row in numbered
            ),
        )


def _cut_parquet(path: Path, size: int) -> Iterator[_ParquetPiece]:
    with _opened(path) as file:
        n_rows = file.metadata.num_rows
    for before in range(0, n_rows, size):
        yield _ParquetPiece(path, before, min(size, n_rows - before))


def _parquet_rows(path: Path, before: int, n_rows: int) -> list[dict[str, Any]]:
    """Reads only the row groups that the rows lie in."""
    with _opened(path) as file:
        groups, first, seen = [], before, 0
        for group in range(file.num_row_groups):
            length = file.metadata.row_group(group).num_rows
            if seen + length <= before:
                first -= length
            elif seen < before + n_rows:
                groups.append(group)
            seen += length
        try:
            rows: list[dict[str, Any]] = (
                file.read_row_groups(groups).slice(first, n_rows).to_pylist()
            )
        except (
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # pyarrow's own errors are of these kinds
            raise DataError(
                f"{path}, rows {before + 1} to {before + n_rows}, cannot be read: "
                f"{' '.join(str(error).split())[:160]}"
            ) from error
    return rows


def _opened(path: Path) -> Any:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
        raise DataError(f"{path} cannot be read: {reason}") from error
