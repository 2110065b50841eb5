"""The baseline of every intervention: a system prompt that asks for the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.scoring import Condition
from persona.data.types import AnswerPair, Dialogue, NeutralText, Turn
from persona.errors import DataError, SteeringError
from persona.models.chat.chat_format import ChatFormat
from persona.models.pair import ModelPair, Side


def with_system_prompt(dialogue: Dialogue, system_prompt: str) -> Dialogue:
    """The dialogue with a system turn before it, in place of one that it has.

    Raises: SteeringError for an empty prompt.
    """
    if not system_prompt.strip():
        raise SteeringError("the system prompt to compare with is empty")
    turns = [turn for turn in dialogue.turns if turn.role != "system"]
    turns = [Turn("system", system_prompt), *turns]
    return Dialogue(tuple(turns), dialogue.id, dialogue.domain)


def score_prompted(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    system_prompt: str,
    side: Side = "aligned",
    *,
    neutral: Sequence[NeutralText] = (),
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> pd.DataFrame:
    """What one side of the pair says with a system prompt: rows as of `score_pairs`.

    KL is from the aligned model *without* the system prompt, token by token of the same answer, so
    that it compares with the KL of an edit. Columns: question_id, domain, measure, value.
    Raises: SteeringError for an empty prompt, or a chat template without a place for one.
    """
    for dialogue in [*(q.good_dialogue for q in questions), *(t.dialogue for t in neutral)][:1]:
        require_shown(pair.chat, dialogue, system_prompt)
    condition = [Condition("system prompt", side)]
    options: dict[str, Any] = {
        "asked": partial(with_system_prompt, system_prompt=system_prompt),
        "token_budget": token_budget,
        "description": "Scoring the system prompt",
    }
    tables = [score_pairs(pair, questions, condition, **options)] if questions else []
    tables += [score_neutral(pair, neutral, condition, **options)] if neutral else []
    return pd.concat(tables, ignore_index=True)[["question_id", "domain", "measure", "value"]]


def require_shown(chat: ChatFormat, dialogue: Dialogue, system_prompt: str) -> None:
    """Raises: SteeringError for an empty prompt, or a chat template without a place for one."""
    try:
        asked = chat.encode(with_system_prompt(dialogue, system_prompt))
    except DataError as error:
        raise SteeringError(f"the texts with a system prompt cannot be read: {error}") from error
    if asked.ids == chat.encode(dialogue).ids:
        raise SteeringError("the chat template of this model does not show a system prompt")
