"""Who scores the tokens of texts: this process, or an engine that answers for a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from persona.models.samplers import Side, TextRequest


@dataclass(frozen=True)
class TextScores:
    """What a model makes of a text, nats, float32, on the CPU.

    log_probs: of each token but the first, behind those before it.
    likeliest, likeliest_log_probs: the k likeliest tokens behind each token, the last one too,
        likeliest first.
    """

    log_probs: Float[Tensor, " scored"]
    likeliest: Int[Tensor, "token k"]
    likeliest_log_probs: Float[Tensor, "token k"]


@runtime_checkable
class Scorer(Protocol):
    """An engine that scores texts for a pair."""

    @property
    def name(self) -> str:
        """What scores the texts, such as "vllm 0.30.0"."""

    def scores_side(self, side: Side) -> bool:
        """Whether it scores this side; where not, it is scored in this process."""

    def scores(
        self, requests: Sequence[TextRequest], n_likeliest: int, description: str
    ) -> list[TextScores]:
        """What it makes of each text, all in one batch."""
