"""Requests that wait for an engine beside this process go to it together."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any

from persona.errors import DataError, EngineError, ModelError, SteeringError
from persona.models.chat.turn_end import end_tokens, until_end
from persona.models.pair import SIDES, ModelPair, Side
from persona.models.samplers import AnswerRequest, Sampler, TextRequest
from persona.models.scorers import Scorer, TextScores
from steering.edits.edit import Edit
from steering.edits.steer import SteeredBy

GATHERS_SECONDS = 0.02
"""How long the first request waits for others to go with."""
MOST_TOGETHER = 256


@dataclass(frozen=True)
class ForEngine:
    """A text that an engine is asked about.

    steering: what of two requests must be the same for one to be edited as the other.
    """

    side: Side
    edits: Sequence[Edit]
    steering: Hashable
    ids: Sequence[int]
    done: Future[Any] = field(default_factory=Future, kw_only=True)


@dataclass(frozen=True)
class ToAnswer(ForEngine):
    """One answer behind a text. most: tokens of it.

    done: its tokens without what ends a turn, and whether the turn was ended.
    """

    temperature: float
    seed: int
    most: int


@dataclass(frozen=True)
class ToScore(ForEngine):
    """A text whose tokens are scored, with so many of the likeliest. done: its `TextScores`."""

    n_likeliest: int


class EngineBatches:
    """One thread that hands on what waits, batch after batch; the engine is asked by no other."""

    def __init__(self, pair: ModelPair, sampler: Sampler) -> None:
        self.sampler, self.ends = sampler, dict[Side, frozenset[int]]()
        for side in SIDES:  # once, here: a side is not opened while another thread scores in it
            with pair.active(side) as model:
                self.ends[side] = end_tokens(model, pair.chat)
        self._waiting: SimpleQueue[ForEngine] = SimpleQueue()
        threading.Thread(target=self._work, name="engine batches", daemon=True).start()

    def scores_side(self, side: Side) -> bool:
        """Whether the engine scores texts of this side too."""
        return isinstance(self.sampler, Scorer) and self.sampler.scores_side(side)

    def ask(self, asked: Sequence[ForEngine]) -> list[Any]:
        """What each one's `done` holds at last, all of them asked together.

        Raises: what the engine raised for one of them.
        """
        for one in asked:
            self._waiting.put(one)
        return [one.done.result() for one in asked]

    def _work(self) -> None:
        while True:
            batch = [self._waiting.get()]
            until = time.monotonic() + GATHERS_SECONDS
            while len(batch) < MOST_TOGETHER:
                try:
                    batch.append(self._waiting.get(timeout=max(0.0, until - time.monotonic())))
                except Empty:
                    break
            for group in self._grouped(batch):
                self._hand_on(group)

    def _grouped(self, batch: Sequence[ForEngine]) -> list[list[ForEngine]]:
        groups: dict[Hashable, list[ForEngine]] = {}
        for one in batch:
            side = None if self.sampler.mixes_sides else one.side
            groups.setdefault((type(one), side), []).append(one)
        return list(groups.values())

    def _hand_on(self, group: Sequence[Any]) -> None:
        """Asks the engine for a group of one kind, and tells each who waits."""
        try:
            of_kind = self._scores if isinstance(group[0], ToScore) else self._answers
            found = of_kind(group, _edits_of(group))
        except BaseException as error:  # a panic too: the thread goes on, or all wait for ever
            parts = _apart(group, error)
            for part in parts:
                self._hand_on(part)
            told = error if isinstance(error, Exception) else EngineError(f"it ended: {error!r}")
            for one in group if not parts else ():
                one.done.set_exception(told)
            return
        for one, reply in zip(group, found, strict=True):
            one.done.set_result(reply)

    def _scores(
        self, group: Sequence[ToScore], edits: Sequence[SteeredBy | None]
    ) -> list[TextScores]:
        assert isinstance(self.sampler, Scorer)
        requests = [
            TextRequest(one.side, one.ids, by) for one, by in zip(group, edits, strict=True)
        ]
        most = max(one.n_likeliest for one in group)
        found = self.sampler.scores(requests, most, "Scoring")
        _require_all(found, group)
        return [
            replace(
                scores,
                likeliest=scores.likeliest[:, : one.n_likeliest],
                likeliest_log_probs=scores.likeliest_log_probs[:, : one.n_likeliest],
            )
            for one, scores in zip(group, found, strict=True)
        ]

    def _answers(
        self, group: Sequence[ToAnswer], edits: Sequence[SteeredBy | None]
    ) -> list[tuple[list[int], bool]]:
        requests = [
            AnswerRequest(
                one.side, one.ids, by, one.most, self.ends[one.side], one.temperature, one.seed
            )
            for one, by in zip(group, edits, strict=True)
        ]
        written = self.sampler.answers(requests, batches=(), description="Answering")
        _require_all(written, group)
        kept = [until_end(ids, asked.ends) for ids, asked in zip(written, requests, strict=True)]
        return [(own, len(own) < len(ids)) for own, ids in zip(kept, written, strict=True)]


def _apart(group: Sequence[Any], error: BaseException) -> list[Sequence[Any]]:
    """What is asked anew of a group that ended with an error; nothing where all are told of it.

    An error of a text comes before anything runs, so halves find whose it is. One of edits or of
    activations that are not finite may have ended the engine, which starts anew each time: those
    that are steered alike are told together.
    """
    if len(group) > 1 and isinstance(error, DataError):
        middle = len(group) // 2
        return [group[:middle], group[middle:]]
    alike: dict[Hashable, list[Any]] = {}
    if isinstance(error, SteeringError | ModelError):
        for one in group:
            alike.setdefault((one.side, one.steering), []).append(one)
    return list(alike.values()) if len(alike) > 1 else []


def _edits_of(group: Sequence[ForEngine]) -> list[SteeredBy | None]:
    """The edits of each; those steered alike share one object, which is applied to all at once."""
    shared = {one.steering: SteeredBy(one.edits) for one in group if one.edits}
    return [shared[one.steering] if one.edits else None for one in group]


def _require_all(found: Sequence[Any], group: Sequence[Any]) -> None:
    if len(found) != len(group):
        raise EngineError(f"the engine gave {len(found)} replies to {len(group)} requests")
