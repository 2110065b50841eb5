"""Reading the labelled answers like the samples, and keeping what is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from persona.data.shipped import data_hash
from persona.data.types import AnswerPair
from persona.engine import Shard, ShardFolder, ShardRunner
from persona.engine.cut import BLOCK
from persona.engine.shards import Advance, run_here
from persona.errors import DataError
from persona.fingerprint import fingerprint_of
from persona.models.pair import ModelPair
from probes.screening.compared_with import (
    Baseline,
    Encoded,
    engines_of,
    read_answers_and_baselines,
    require_room,
)
from probes.screening.reference import ReferenceAnswers

MIN_QUESTIONS = 20


def read_reference(
    pair: ModelPair,
    answers: Sequence[AnswerPair],
    layers: Sequence[int],
    baseline: Baseline,
    max_new_tokens: int,
    token_budget: int,
    folder: Path,
    run: ShardRunner = run_here,
) -> ReferenceAnswers:
    """Reads both answers of every pair at every block, 64 pairs at a time.

    folder: what is read is kept there, and not read again.
    run: where it is read; see `Engine`.
    Raises: DataError for fewer than 20 pairs, or as `ChatFormat.encode_all`; EngineError as
    `read_all`.
    """
    if len(answers) < MIN_QUESTIONS:
        raise DataError(
            f"screening needs at least {MIN_QUESTIONS} reference pairs of good and bad answers; "
            f"got {len(answers)}"
        )
    reading = _ReferenceReading(pair, tuple(layers), baseline, max_new_tokens, token_budget)
    job = {**reading.facts(), "answers": data_hash(list(answers))}
    # A name of its own for each job: several may be tried before one screens the data.
    kept = ShardFolder(folder / f"reference-{fingerprint_of(job)}", job, "a reference")
    shards = _cut(answers)
    run(kept.missing(shards), reading, kept.write, "Reading reference answers")
    parts = [kept.finished(shard.number) for shard in shards]
    good, bad, raw = (
        torch.cat([torch.from_numpy(part[name]) for part in parts])
        for name in ("good", "bad", "raw")
    )
    return ReferenceAnswers(good, bad, raw, tuple(layers), baseline)


@dataclass(frozen=True)
class _ReferenceReading:
    """Reads some pairs; travels to other processes with its model."""

    pair: ModelPair
    layers: tuple[int, ...]
    baseline: Baseline
    max_new_tokens: int
    token_budget: int

    def facts(self) -> dict[str, Any]:
        """What the readings depend on, but for the answers."""
        return {
            "model": self.pair.files("aligned"),
            "chat_template": self.pair.chat.fingerprint,
            "dtype": self.pair.precision,
            "device": self.pair.device.type,
            "layers": list(self.layers),
            "baseline": self.baseline,
            "max_new_tokens": self.max_new_tokens if self.baseline == "own" else None,
            "token_budget": self.token_budget,
            **engines_of(self.pair, self.baseline),
        }

    def __call__(self, answers: Sequence[AnswerPair], advance: Advance) -> dict[str, Any]:
        chat, common = self.pair.chat, (self.max_new_tokens, self.token_budget)
        dialogues = [(one.good_dialogue, one.bad_dialogue) for one in answers]
        good, bad = (
            [Encoded(d, t) for d, t in zip(side, chat.encode_all(list(side)), strict=True)]
            for side in zip(*dialogues, strict=True)
        )
        if self.baseline == "own":
            for sample in good:
                require_room(chat, sample.tokens, self.max_new_tokens)
        with self.pair.active("aligned") as bridge:
            rows, raw = read_answers_and_baselines(
                bridge, chat, good, self.layers, self.baseline, *common
            )
            worse, _ = read_answers_and_baselines(
                bridge, chat, bad, self.layers, "reference", *common
            )
        advance(len(answers))
        return {"good": rows.numpy(), "bad": worse.numpy(), "raw": raw.numpy()}


def _cut(answers: Sequence[AnswerPair]) -> list[Shard]:
    shards = []
    for number, start in enumerate(range(0, len(answers), BLOCK)):
        part = list(answers[start : start + BLOCK])
        name = f"reference pairs {start + 1} to {start + len(part)} (shard {number})"
        shards.append(Shard(number, name, len(part), lambda part=part: part))  # type: ignore[misc]
    return shards
