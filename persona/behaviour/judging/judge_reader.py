"""Who reads for a judge: a model's next words behind prompts, and how likely it finds answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations.passes import read_responses
from persona.models.chat.chat_format import ChatFormat, TokenizedDialogue
from persona.models.next_token import Beginning, next_logits, run_beginning, shared_start
from persona.progress import progress

CHUNK = 16
"""Answers to one question that are read before what they gave is kept."""
DIALOGUES = 256
"""Dialogues that are scored before what they gave is kept."""


@runtime_checkable
class JudgeReader(Protocol):
    """A model of a judge, wherever it is held.

    kind: what a person names it by, before its colon. engine: what it runs in, such as
    "vllm 0.30.0"; revision: what else its numbers depend on. Kept ones of others are not taken.
    """

    kind: str
    engine: str
    revision: str
    chat: ChatFormat

    @property
    def n_parameters(self) -> int: ...

    def next_probabilities(
        self,
        groups: Sequence[Sequence[Sequence[int]]],
        tokens: Sequence[int],
        shared: Sequence[int],
    ) -> Iterator[Float[Tensor, "prompt token"]]:
        """Probability of each token behind each prompt, for some prompts after the other.

        groups: prompts, those that begin alike together. shared: what all of them begin with, and
        those of later calls too.
        """

    def answer_scores(self, dialogues: Sequence[TokenizedDialogue]) -> Iterator[list[float]]:
        """Mean log-probability of each dialogue's response tokens, nats, for some after the other.

        Raises: DataError for a dialogue longer than the model's context.
        """


class ReadsHere:
    """A plain Hugging Face causal LM in this process, which runs once what prompts share."""

    kind = engine = "local"

    def __init__(self, model: Any, chat: ChatFormat, revision: str) -> None:
        self.model, self.chat, self.revision = model, chat, revision
        self._shared = Beginning()

    @property
    def n_parameters(self) -> int:
        return sum(weight.numel() for weight in self.model.parameters())

    def next_probabilities(
        self,
        groups: Sequence[Sequence[Sequence[int]]],
        tokens: Sequence[int],
        shared: Sequence[int],
    ) -> Iterator[Float[Tensor, "prompt token"]]:
        """As `JudgeReader`; `CHUNK` prompts of one group at a time."""
        if self._shared.ids != tuple(shared):
            self._shared = run_beginning(self.model, shared)
        chunks = [(group, start) for group in groups for start in range(0, len(group), CHUNK)]
        for group, start in progress(chunks, f"Judging answers ({CHUNK} at a time)"):
            if start == 0:
                beginning = run_beginning(self.model, shared_start(group), self._shared)
            logits = next_logits(
                self.model,
                group[start : start + CHUNK],
                beginning,
                longest_allowed=self.chat.max_length,
            )
            yield torch.softmax(logits, dim=-1)[:, list(tokens)]

    def answer_scores(self, dialogues: Sequence[TokenizedDialogue]) -> Iterator[list[float]]:
        """As `JudgeReader`."""
        for start in range(0, len(dialogues), DIALOGUES):
            some = dialogues[start : start + DIALOGUES]
            yield read_responses(
                self.model, some, description="Measuring coherence"
            ).log_prob.tolist()
