"""Moments over files of any size: read shard by shard, kept, merged as a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.activations.collect import collect_sets
from persona.activations.file_rows import encoded_lines
from persona.activations.moments import Moments, merge_in_tree
from persona.data.samples import Answer
from persona.engine import Engine, Lines
from persona.engine.cut import SHARD_SIZE
from persona.engine.over_files import results_over_files
from persona.engine.shards import Advance
from persona.models.pair import ModelPair, Side


def extract_moments(
    pair: ModelPair,
    data: str | Path | Sequence[str | Path],
    layers: Sequence[int],
    *,
    side: Side = "aligned",
    token_set: str = "response",
    answer: Answer | None = None,
    out: str | Path | None = None,
    shard_size: int = SHARD_SIZE,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    engine: Engine | None = None,
) -> Moments:
    """Moments of the samples' mean activations at the output of each block; each sample weighs one.

    data: JSONL or Parquet, one file, several, or a folder; rows as `persona.data.samples` has them.
    answer: which answer of an answer pair is the sample.
    out: folder where the moments of each shard are kept: the same call goes on after a stop.
    engine: where the texts are read, by default in this process. The moments are the same whatever
        the number of workers and the order they end in: shards merge by their number.
    Raises: DataError for a row that is no sample, by file and line, or another job in `out`;
    ModelError for a layer out of range; EngineError for a shard that could not be done.
    """
    work = MomentsOfShard(pair, side, tuple(layers), token_set, answer, token_budget)
    with results_over_files(
        work,
        work.facts(),
        data,
        out,
        shard_size,
        engine,
        what="an extraction",
        description="Reading activations",
    ) as parts:
        return merge_in_tree(_moments(part) for part in parts)


@dataclass(frozen=True)
class MomentsOfShard:
    """The moments of one shard; travels to other processes with its model."""

    pair: ModelPair
    side: Side
    layers: tuple[int, ...]
    token_set: str = "response"
    answer: Answer | None = None
    token_budget: int = DEFAULT_TOKEN_BUDGET

    def facts(self) -> dict[str, Any]:
        """What the moments depend on, but for the data."""
        return {
            "model": self.pair.files(self.side),
            "side": self.side,
            "chat_template": self.pair.chat.fingerprint,
            "dtype": self.pair.precision,
            "layers": list(self.layers),
            "token_set": self.token_set,
            "answer": self.answer,
            "token_budget": self.token_budget,
            "reader": self.pair.reader.name if self.pair.reader else None,
        }

    def __call__(self, rows: Lines, advance: Advance) -> dict[str, NDArray[Any]]:
        parts = []
        with self.pair.active(self.side) as bridge:
            for lines in rows.blocks():
                texts = encoded_lines(self.pair.chat, rows.path, lines, self.answer)
                read = collect_sets(
                    bridge, texts, [self.token_set], self.layers, token_budget=self.token_budget
                )
                parts.append(Moments.of(read[:, 0]))
                advance(len(lines))
        moments = merge_in_tree(parts)
        return {
            "count": np.array(moments.count),
            "centre": moments.centre_LD.numpy(),
            "squares": moments.squares_LD.numpy(),
        }


def _moments(arrays: dict[str, NDArray[Any]]) -> Moments:
    centre, squares = (torch.from_numpy(arrays[name]) for name in ("centre", "squares"))
    return Moments(int(arrays["count"]), centre, squares)
