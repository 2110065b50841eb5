"""From a file of samples to readings in shards, with memory that does not grow with the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from persona.data.jsonl import Line
from persona.data.samples import Answer, sample_dialogue
from persona.data.types import Dialogue
from persona.engine import Lines, ShardFolder, ShardRunner, cut_files
from persona.engine.cut import SHARD_SIZE
from persona.engine.shards import Advance, run_here
from persona.errors import DataError
from probes.screening.blocks import Block

KEY = "screen"
"""Of what is added to each row."""
MAX_REASON = 200


@runtime_checkable
class Reads(Protocol):
    """What reads blocks: `BlockReader`, or a stand-in without a model."""

    @property
    def d_model(self) -> int: ...

    @property
    def n_draws(self) -> int: ...

    def encode(self, dialogue: Dialogue) -> Any: ...

    def read(self, block: Sequence[Any]) -> Block: ...


@dataclass(frozen=True, eq=False)
class ShardReadings:
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


@dataclass(frozen=True, eq=False)
class SampleReadings:
    """Readings of all samples, in the order of the file: a few numbers a sample.

    See `ShardReadings`; skipped: line number and reason of each line left out.
    """

    lines: NDArray[np.int64]
    clusters: NDArray[np.int64]
    values: NDArray[np.float64]
    totals: NDArray[np.float64]
    counts: NDArray[np.int64]
    skipped: list[tuple[int, str]]

    def __len__(self) -> int:
        return len(self.lines)


@dataclass(frozen=True)
class _Item:
    """A line: ready to be read, or left out for a reason."""

    number: int
    encoded: Any = None
    cluster: int = 0
    reason: str = ""


@dataclass(frozen=True)
class ShardReader:
    """Reads the lines of one shard; travels to other processes with its reader.

    Raises: DataError for a line that is no sample, unless skip_bad.
    """

    reader: Reads
    answer: Answer | None = None
    skip_bad: bool = False

    def __call__(self, rows: Lines, advance: Advance) -> ShardReadings:
        samples: list[_Item] = []
        skipped: list[_Item] = []
        found: list[Block] = []
        for lines in rows.blocks():
            items = [self._item(line, rows.path) for line in lines]
            good = [item for item in items if not item.reason]
            if good:
                found.append(self.reader.read([item.encoded for item in good]))
            samples += good
            skipped += [item for item in items if item.reason]
            advance(len(lines))
        return ShardReadings(
            np.array([item.number for item in samples], dtype=np.int64),
            np.array([item.cluster for item in samples], dtype=np.int64),
            np.concatenate([np.empty((0, 3)), *(block.values for block in found)]),
            np.array([block.totals for block in found]).reshape(-1, 2, self.reader.d_model),
            np.array([block.counts for block in found], dtype=np.int64)
            .reshape(-1, self.reader.n_draws)
            .sum(0),
            np.array([item.number for item in skipped], dtype=np.int64),
            np.array([item.reason[:MAX_REASON] for item in skipped], dtype=np.str_),
        )

    def _item(self, line: Line, path: str) -> _Item:
        try:
            row = line.json_object()
            if KEY in row:
                raise DataError(
                    f"the row has a {KEY!r} already, as screened rows have; screen the file before"
                )
            dialogue = sample_dialogue(row, f"line {line.number}", self.answer)
            return _Item(line.number, self.reader.encode(dialogue), prompt_hash(dialogue))
        except DataError as error:
            if not self.skip_bad:
                raise DataError(f"{path}, line {line.number}: {error}") from error
            return _Item(line.number, reason=str(error))


def read_all(
    data: Path,
    reader: Reads,
    kept: ShardFolder,
    *,
    answer: Answer | None = None,
    skip_bad: bool = False,
    shard_size: int = SHARD_SIZE,
    run: ShardRunner = run_here,
) -> SampleReadings:
    """Reads what no finished shard holds yet, and returns the readings of all samples.

    run: where shards are read; see `Engine`.
    Raises: DataError for a line that is no sample, unless skip_bad; for a file without any; for a
    shard size that is no multiple of 64. EngineError for a shard that could not be read or kept.
    """
    pieces = cut_files([data], shard_size)
    work = ShardReader(reader, answer, skip_bad)

    def keep(number: int, shard: ShardReadings) -> None:
        kept.write(number, vars(shard))

    run(kept.missing(pieces), work, keep, "Screening")
    readings = _gathered(kept, len(pieces), reader)
    if not len(readings):
        left_out = len(readings.skipped)
        raise DataError(
            f"{data} holds no sample: all {left_out} lines were left out, the first for "
            f"{readings.skipped[0][1]!r}"
            if left_out
            else f"{data} is empty; one sample a line is needed"
        )
    return readings


def _gathered(kept: ShardFolder, n_shards: int, reader: Reads) -> SampleReadings:
    lines, clusters = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    values, skipped = [np.empty((0, 3))], []
    totals = np.zeros((2, reader.d_model))
    counts = np.zeros(reader.n_draws, dtype=np.int64)
    for number in range(n_shards):
        shard = ShardReadings(**kept.finished(number))
        lines.append(shard.lines)
        clusters.append(shard.clusters)
        values.append(shard.values)
        for block in shard.totals:
            totals = totals + block
        counts = counts + shard.counts
        reasons = zip(shard.skipped_lines, shard.skipped_reasons, strict=True)
        skipped += [(int(line), str(reason)) for line, reason in reasons]
    return SampleReadings(
        np.concatenate(lines),
        np.concatenate(clusters),
        np.concatenate(values),
        totals,
        counts,
        skipped,
    )


def prompt_hash(dialogue: Dialogue) -> int:
    """63 bits of SHA-256 over the prompt: samples of one prompt hang together."""
    text = json.dumps(dialogue.prompt.messages)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
