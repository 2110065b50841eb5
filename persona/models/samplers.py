"""Who writes the answers of a model: its own `generate`, or an engine that stands for it.

An engine is bound to a side of a pair while that side is open, so that whoever samples from the
bridge samples from the engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from persona.models.hooks import InContext

Side = Literal["aligned", "finetuned"]
"""That of `persona.models.pair`, which imports this file."""

SEEDS_APART = 1_000_003
"""Answers that one seed has numbers for, before those of the next seed begin."""


def seeds_of_answers(seed: int, n: int) -> list[int]:
    """A seed for each of n answers that are drawn together under one."""
    return [seed * SEEDS_APART + place for place in range(n)]


@dataclass(frozen=True)
class TextRequest:
    """A text that an engine is asked about, under edits of its own.

    intervene: None leaves the model as it is. One object that several requests hold is one set of
    edits, which an engine applies to all of them at once.
    """

    side: Side
    ids: Sequence[int]
    intervene: InContext | None


@dataclass(frozen=True)
class AnswerRequest(TextRequest):
    """One answer behind a text, the same one whatever else is in its batch.

    room: most tokens of it. ends: tokens that end it. temperature: 0 takes the likeliest.
    seed: of the numbers that this answer alone is drawn with.
    """

    room: int
    ends: frozenset[int]
    temperature: float
    seed: int


@runtime_checkable
class Sampler(Protocol):
    """An engine that answers for both sides of a pair."""

    @property
    def name(self) -> str:
        """What wrote the answers, such as "vllm 0.30.0"."""

    @property
    def mixes_sides(self) -> bool:
        """Whether it may be asked for both sides at once."""

    def answers(
        self,
        requests: Sequence[AnswerRequest],
        *,
        batches: Sequence[Sequence[int]],
        description: str,
    ) -> list[list[int]]:
        """The tokens of the answer to each request.

        batches: places of the requests that an edit with a coefficient for each row takes for one
        batch, in the order of its rows; empty where no edit has such.
        """


_Engine = TypeVar("_Engine")


class BoundEngines(Generic[_Engine]):
    """Which engine stands for a bridge, and as which side of its pair, while that is open."""

    def __init__(self) -> None:
        self._bound: list[tuple[Any, _Engine, Side]] = []

    @contextlib.contextmanager
    def stands_for(self, bridge: Any, engine: _Engine | None, side: Side) -> Iterator[None]:
        """None changes nothing."""
        if engine is None:
            yield
            return
        self._bound.append((bridge, engine, side))
        try:
            yield
        finally:
            self._bound.pop()

    def of(self, bridge: Any) -> tuple[_Engine, Side] | None:
        """The last one that was bound; None where the bridge works for itself."""
        for bound, engine, side in reversed(self._bound):
            if bound is bridge:
                return engine, side
        return None


_SAMPLERS: BoundEngines[Sampler] = BoundEngines()


def sampled_by(
    bridge: Any, sampler: Sampler | None, side: Side
) -> contextlib.AbstractContextManager[None]:
    """While open, `sampler` answers for the bridge, as this side; None changes nothing."""
    return _SAMPLERS.stands_for(bridge, sampler, side)


def sampler_of(bridge: Any) -> tuple[Sampler, Side] | None:
    """Who answers for the bridge, and as which side; None where it does so itself."""
    return _SAMPLERS.of(bridge)
