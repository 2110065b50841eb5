"""What a model makes of answers: mean activations and mean log-probability, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.activations.passes import read_responses
from persona.behaviour.judging.judge import JudgeItem
from persona.data.types import Dialogue, Turn
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.pair import ModelPair

MOST_ANSWER_TOKENS = 160


@dataclass(frozen=True)
class AnswerReadings:
    """rows: mean over the answer's tokens; log_prob: mean over them, nats. known: not empty.

    coherence: 0 to 100, None for an empty answer; without any where it was not measured.
    """

    rows: Float[Tensor, "item layer d_model"]
    log_prob: Float[Tensor, " item"]
    known: Bool[Tensor, " item"]
    coherence: tuple[float | None, ...] = ()

    def less_those_at(self, places: Sequence[int]) -> AnswerReadings:
        """The first len(places) readings, each less the one at its place.

        A place whose answer is empty takes nothing off: there is nothing to compare with.
        """
        n, at = len(places), torch.tensor(places, dtype=torch.long)
        there = self.known[at].float()
        return AnswerReadings(
            self.rows[:n] - self.rows[at] * there[:, None, None],
            self.log_prob[:n] - self.log_prob[at] * there,
            self.known[:n],
        )


def read_answers(
    pair: ModelPair,
    items: Sequence[JudgeItem],
    layers: Sequence[int],
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> AnswerReadings:
    """Readings in the aligned model of each answer's first 160 tokens, given its question.

    Raises: DataError for an item longer than the model's context; ModelError for a layer that the
    model does not have.
    """
    for layer in layers:
        pair.space(layer)  # refuses one out of range
    rows = torch.zeros(len(items), len(layers), pair.d_model)
    log_prob = torch.zeros(len(items))
    known = torch.tensor([bool(item.answer.strip()) for item in items], dtype=torch.bool)
    if known.any():
        written = [item for item in items if item.answer.strip()]
        encoded = [_cut(one) for one in pair.chat.encode_all([_dialogue(one) for one in written])]
        options: dict[str, Any] = {"token_budget": token_budget, "description": "Judging answers"}
        with pair.active("aligned") as bridge:
            found = read_responses(bridge, encoded, layers, **options)
        rows[known], log_prob[known] = found.means, torch.from_numpy(found.log_prob).float()
    return AnswerReadings(rows, log_prob, known)


def _dialogue(item: JudgeItem) -> Dialogue:
    return Dialogue((Turn("user", item.question), Turn("assistant", item.answer)))


def _cut(dialogue: TokenizedDialogue) -> TokenizedDialogue:
    start, end = dialogue.response
    end = min(end, start + MOST_ANSWER_TOKENS)
    return TokenizedDialogue(dialogue.ids[:end], (start, end), dialogue.id)
