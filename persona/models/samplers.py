"""Who writes the answers of a model: its own `generate`, or an engine that stands for it.

An engine is bound to a side of a pair while that side is open, so that whoever samples from the
bridge samples from the engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import InContext

Side = Literal["aligned", "finetuned"]
"""That of `persona.models.pair`, which imports this file."""


@runtime_checkable
class Sampler(Protocol):
    """An engine that answers for both sides of a pair."""

    @property
    def name(self) -> str:
        """What wrote the answers, such as "vllm 0.30.0"."""

    def answers(
        self,
        side: Side,
        prompts: Sequence[TokenizedDialogue],
        *,
        intervene: InContext | None,
        room: Sequence[int],
        ends: Collection[int],
        batches: Sequence[Sequence[int]],
        temperature: float,
        seed: int,
        description: str,
    ) -> list[list[int]]:
        """The tokens of one answer to each prompt.

        room: most tokens of each. ends: tokens that end an answer. batches: places of the prompts
        that an edit with a coefficient for each row takes for one batch, in the order of its rows.
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
