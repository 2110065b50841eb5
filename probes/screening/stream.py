"""From a file of samples to readings in shards, with memory that does not grow with the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from persona.data.jsonl import Line, stream_lines
from persona.data.samples import Answer, sample_dialogue
from persona.data.types import Dialogue
from persona.errors import DataError
from persona.progress import progress
from probes.screening.blocks import Block
from probes.screening.shards import Shard, Shards

BLOCK = 64
"""Samples read together. Batches are made within a block, so that a shard's size changes no bit."""
SHARD_SIZE = 512
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
class Readings:
    """Readings of all samples, in the order of the file: a few numbers a sample.

    See `Shard`; skipped: line number and reason of each line left out.
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
    end: int
    encoded: Any = None
    cluster: int = 0
    reason: str = ""


@dataclass
class _Filling:
    """A shard being filled with blocks."""

    totals: NDArray[np.float64]
    counts: NDArray[np.int64]
    end: tuple[int, int]
    samples: list[_Item] = field(default_factory=list)
    values: list[NDArray[np.float64]] = field(default_factory=list)
    skipped: list[_Item] = field(default_factory=list)

    def closed(self) -> Shard:
        return Shard(
            np.array([item.number for item in self.samples], dtype=np.int64),
            np.array([item.cluster for item in self.samples], dtype=np.int64),
            np.concatenate([np.empty((0, 3)), *self.values]),
            self.totals,
            self.counts,
            np.array([item.number for item in self.skipped], dtype=np.int64),
            np.array([item.reason[:MAX_REASON] for item in self.skipped], dtype=np.str_),
            np.array(self.end, dtype=np.int64),
        )


def read_all(
    data: Path,
    reader: Reads,
    shards: Shards,
    *,
    n_lines: int,
    answer: Answer | None = None,
    skip_bad: bool = False,
    shard_size: int = SHARD_SIZE,
) -> Readings:
    """Reads what no finished shard holds yet, and returns the readings of all samples.

    n_lines: of the file, for the time left.
    Raises: DataError for a line that is no sample, unless skip_bad; for a file without any; for a
    shard size that is no multiple of 64.
    """
    if shard_size < BLOCK or shard_size % BLOCK:
        raise DataError(f"the shard size must be a multiple of {BLOCK}; got {shard_size}")
    number = 0
    filling = _Filling(
        np.zeros((2, reader.d_model)), np.zeros(reader.n_draws, dtype=np.int64), (0, 0)
    )
    for shard in shards.finished():
        number += 1
        filling = _Filling(shard.totals, shard.counts, (int(shard.end[0]), int(shard.end[1])))
    items = _items(data, reader, filling.end, answer, skip_bad)
    for block in _blocks(progress(items, "Screening", total=n_lines - filling.end[1])):
        samples = [item for item in block if not item.reason]
        if samples:
            found = reader.read([item.encoded for item in samples])
            filling.values.append(found.values)
            filling.totals = filling.totals + found.totals
            filling.counts = filling.counts + found.counts
        # The tokens are not needed any more.
        filling.samples += [replace(item, encoded=None) for item in samples]
        filling.skipped += [item for item in block if item.reason]
        filling.end = (block[-1].end, block[-1].number)
        if len(filling.samples) >= shard_size:
            shards.write(number, filling.closed())
            number += 1
            filling = _Filling(filling.totals, filling.counts, filling.end)
    if filling.samples or filling.skipped:
        shards.write(number, filling.closed())
    readings = _gathered(shards)
    if not len(readings):
        left_out = len(readings.skipped)
        raise DataError(
            f"{data} holds no sample: all {left_out} lines were left out, the first for "
            f"{readings.skipped[0][1]!r}"
            if left_out
            else f"{data} is empty; one sample a line is needed"
        )
    return readings


def _items(
    data: Path, reader: Reads, start: tuple[int, int], answer: Answer | None, skip_bad: bool
) -> Iterator[_Item]:
    for line in stream_lines(data, *start):
        item = _item(line, reader, answer)
        if item.reason and not skip_bad:
            raise DataError(f"{data}, line {line.number}: {item.reason}")
        yield item


def _item(line: Line, reader: Reads, answer: Answer | None) -> _Item:
    try:
        row = line.json_object()
        if KEY in row:
            raise DataError(
                f"the row has a {KEY!r} already, as screened rows have; screen the file before"
            )
        dialogue = sample_dialogue(row, f"line {line.number}", answer)
        return _Item(line.number, line.end, reader.encode(dialogue), prompt_hash(dialogue))
    except DataError as error:
        return _Item(line.number, line.end, reason=str(error))


def _blocks(items: Iterator[_Item]) -> Iterator[list[_Item]]:
    """So many items that 64 of them are samples; the last block holds the rest."""
    block: list[_Item] = []
    n_samples = 0
    for item in items:
        block.append(item)
        n_samples += not item.reason
        if n_samples == BLOCK:
            yield block
            block, n_samples = [], 0
    if block:
        yield block


def _gathered(shards: Shards) -> Readings:
    found = list(shards.finished())
    if not found:
        none = np.empty(0, dtype=np.int64)
        return Readings(none, none, np.empty((0, 3)), np.empty((2, 0)), none, [])
    return Readings(
        np.concatenate([shard.lines for shard in found]),
        np.concatenate([shard.clusters for shard in found]),
        np.concatenate([shard.values for shard in found]),
        found[-1].totals,
        found[-1].counts,
        [
            (int(line), str(reason))
            for shard in found
            for line, reason in zip(shard.skipped_lines, shard.skipped_reasons, strict=True)
        ],
    )


def prompt_hash(dialogue: Dialogue) -> int:
    """63 bits of SHA-256 over the prompt: samples of one prompt hang together."""
    text = json.dumps(dialogue.prompt.messages)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
