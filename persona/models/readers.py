"""Who reads the activations of a model: this process, or an engine that stands for it.

An engine is bound to a side of a pair while that side is open, so that what is pooled of texts
(`persona.activations.collect_rows`, `collect_sets`, `collect_moments`, and all that is made of
them: directions, screening) is read there. Single tokens, covariances, gradients and scores are
read in this process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.samplers import BoundEngines, Side


@runtime_checkable
class Reader(Protocol):
    """An engine that reads both sides of a pair."""

    @property
    def name(self) -> str:
        """What reads the activations, such as "vllm 0.30.0"."""

    def means(
        self,
        side: Side,
        dialogues: Sequence[TokenizedDialogue],
        token_sets: Sequence[str],
        layers: Sequence[int],
        description: str,
    ) -> Float[Tensor, "dialogue set layer d_model"]:
        """Mean activation of each dialogue's tokens at the output of each block, float32."""


_READERS: BoundEngines[Reader] = BoundEngines()


def read_by(
    bridge: Any, reader: Reader | None, side: Side
) -> contextlib.AbstractContextManager[None]:
    """While open, `reader` reads for the bridge, as this side; None changes nothing."""
    return _READERS.stands_for(bridge, reader, side)


def reader_of(bridge: Any) -> tuple[Reader, Side] | None:
    """Who reads for the bridge, and as which side; None where this process does."""
    return _READERS.of(bridge)
