"""Scoring cut into chunks of questions, each kept when it is done, in this process or by Ray."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import Condition
from persona.data.types import AnswerPair
from persona.engine import Shard, ShardRunner
from persona.engine.shards import Advance
from persona.models import ModelPair
from persona.stages import Workspace

SCORE_CHUNK = 16


@dataclass(frozen=True)
class ChunkScoring:
    """Scores some questions under every condition; travels to other processes with its models.

    left_out: conditions that are run, because others build on them, but not reported.
    """

    pair: ModelPair
    conditions: tuple[Condition, ...]
    split: str
    kl: bool
    token_budget: int
    left_out: tuple[str, ...] = ()

    def __call__(self, questions: Sequence[AnswerPair], advance: Advance) -> pd.DataFrame:
        rows = score_pairs(
            self.pair, questions, self.conditions, kl=self.kl, token_budget=self.token_budget
        ).assign(stage="score", split=self.split)
        advance(len(questions))
        return rows[~rows["condition"].isin(self.left_out)]


def score_in_chunks(
    run: ShardRunner,
    workspace: Workspace,
    name: str,
    questions: Sequence[AnswerPair],
    scoring: ChunkScoring,
    description: str,
) -> list[pd.DataFrame]:
    """The rows of each chunk of questions, in order; what the workspace holds is not done again.

    name: of the stage; its chunks are called name-0, name-16, ...
    Raises: EngineError as `ShardRunner`.
    """
    starts = range(0, len(questions), SCORE_CHUNK)
    names = [f"{name}-{start}" for start in starts]
    shards = []
    for number, start in enumerate(starts):
        chunk = list(questions[start : start + SCORE_CHUNK])
        called = f"{description.lower()}, {start + 1} to {start + len(chunk)} (shard {number})"
        shards.append(Shard(number, called, len(chunk), lambda chunk=chunk: chunk))  # type: ignore[misc]
    kept_at = time.perf_counter()

    def keep(number: int, rows: pd.DataFrame) -> None:
        nonlocal kept_at
        now = time.perf_counter()
        workspace.keep(names[number], rows, now - kept_at)
        kept_at = now

    missing = [shard for shard in shards if not workspace.has(names[shard.number])]
    run(missing, scoring, keep, description)
    return [workspace.kept_table(one) for one in names]
