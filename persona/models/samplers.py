"""Who writes the answers of a model: its own `generate`, or an engine that stands for it.

An engine is bound to a side of a pair while that side is open, so that whoever samples from the
bridge samples from the engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

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


_bound: list[tuple[Any, Sampler, Side]] = []


@contextlib.contextmanager
def sampled_by(bridge: Any, sampler: Sampler | None, side: Side) -> Iterator[None]:
    """While open, `sampler` answers for the bridge, as this side; None changes nothing."""
    if sampler is None:
        yield
        return
    _bound.append((bridge, sampler, side))
    try:
        yield
    finally:
        _bound.pop()


def sampler_of(bridge: Any) -> tuple[Sampler, Side] | None:
    """Who answers for the bridge, and as which side; None where it does so itself."""
    for bound, sampler, side in reversed(_bound):
        if bound is bridge:
            return sampler, side
    return None
