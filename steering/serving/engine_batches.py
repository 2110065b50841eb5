"""Requests that wait for an engine beside this process go to it together."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from persona.errors import EngineError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.chat.turn_end import end_tokens, until_end
from persona.models.pair import SIDES, ModelPair, Side
from persona.models.samplers import Sampler
from steering.edits.edit import Edit
from steering.edits.steer import SteeredBy

GATHERS_SECONDS = 0.02
"""How long the first request waits for others to go with."""
MOST_TOGETHER = 256


@dataclass(frozen=True)
class ForEngine:
    """One answer that is asked of an engine.

    steering: what of two requests must be the same for one to be edited as the other.
    seed: None draws as it comes. most: tokens of the answer.
    """

    side: Side
    edits: Sequence[Edit]
    steering: Hashable
    ids: Sequence[int]
    temperature: float
    seed: int | None
    most: int
    done: Future[tuple[list[int], bool]] = field(default_factory=Future)

    @property
    def together(self) -> Hashable:
        """What those of one batch have in common."""
        return self.side, self.steering, self.temperature, self.seed


class EngineBatches:
    """One thread that hands on what waits, batch after batch; the engine is asked by no other."""

    def __init__(self, pair: ModelPair, sampler: Sampler) -> None:
        self.sampler, self.ends = sampler, dict[Side, frozenset[int]]()
        for side in SIDES:  # once, here: a side is not opened while another thread scores in it
            with pair.active(side) as model:
                self.ends[side] = end_tokens(model, pair.chat)
        self._waiting: SimpleQueue[ForEngine] = SimpleQueue()
        threading.Thread(target=self._work, name="engine batches", daemon=True).start()

    def answer(self, asked: ForEngine) -> tuple[list[int], bool]:
        """Its tokens without what ends a turn, and whether the turn was ended.

        Raises: what the engine raised for its batch.
        """
        self._waiting.put(asked)
        return asked.done.result()

    def _work(self) -> None:
        while True:
            batch = [self._waiting.get()]
            until = time.monotonic() + GATHERS_SECONDS
            while len(batch) < MOST_TOGETHER:
                try:
                    batch.append(self._waiting.get(timeout=max(0.0, until - time.monotonic())))
                except Empty:
                    break
            for group in _grouped(batch):
                self._answer_all(group)

    def _answer_all(self, group: Sequence[ForEngine]) -> None:
        first = group[0]
        ends = self.ends[first.side]
        try:
            written = self.sampler.answers(
                first.side,
                [TokenizedDialogue(tuple(g.ids), (len(g.ids), len(g.ids))) for g in group],
                intervene=SteeredBy(first.edits) if first.edits else None,
                room=[g.most for g in group],
                ends=ends,
                batches=[list(range(len(group)))],
                temperature=first.temperature,
                seed=time.time_ns() % 2**31 if first.seed is None else first.seed,
                description="Answering",
            )
        except Exception as error:  # told to each who waits; the thread goes on
            for one in group:
                one.done.set_exception(error)
            return
        if len(written) != len(group):
            lost = EngineError(f"the engine wrote {len(written)} answers of {len(group)}")
            for one in group:
                one.done.set_exception(lost)
            return
        for one, ids in zip(group, written, strict=True):
            kept = until_end(ids, ends)
            one.done.set_result((kept, len(kept) < len(ids)))


def _grouped(batch: Sequence[ForEngine]) -> list[list[ForEngine]]:
    groups: dict[Hashable, list[ForEngine]] = {}
    for one in batch:
        groups.setdefault(one.together, []).append(one)
    return list(groups.values())
