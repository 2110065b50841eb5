"""What a sample's projection is compared with, and reading both in one pass.

projection_difference = projection of the answer to learn - baseline of its prompt

own        projection of the model's own answer to the prompt, written greedily. The definition;
           a generation and a second reading for every sample.
prompt     a + b * projection of the last prompt token, the line fitted on reference answers. Read
           in the same pass as the answer, so it costs nothing.
reference  mean projection of the reference answers: one number for every sample. Costs nothing,
           and keeps what a prompt itself brings along: samples rank by their projection alone.

Source: Chen et al. 2025, Persona Vectors, section 6 (projection difference). differs: each answer
weighs one and tokens within it are averaged, as there; the last prompt token, from which a model's
answer can be foretold, comes through a fitted line, so that 0 means an ordinary answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from persona.activations import collect_sets
from persona.data.types import Dialogue, Turn
from persona.errors import DataError
from persona.models.chat.chat_format import ChatFormat, TokenizedDialogue
from persona.models.pair import ModelPair
from persona.models.sampling import sample_answers
from persona.progress import one_bar_only
from probes.screening.monitored import TOKEN_SET

Baseline = Literal["own", "prompt", "reference"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)


@dataclass(frozen=True)
class Encoded:
    """A sample ready to be read: its dialogue, and the same as tokens."""

    dialogue: Dialogue
    tokens: TokenizedDialogue


def read_answers_and_baselines(
    bridge: Any,
    chat: ChatFormat,
    samples: Sequence[Encoded],
    layers: Sequence[int],
    baseline: Baseline,
    max_new_tokens: int,
    token_budget: int,
) -> tuple[Tensor, Tensor]:
    """Mean activations [sample layer d_model] of the answers, and what the baseline starts from.

    That is the model's own answer, the last prompt token, or zeros. An own answer that is empty is
    read at the last prompt token, where the model decided to say nothing.
    """
    token_sets = [TOKEN_SET, "last_prompt"] if baseline == "prompt" else [TOKEN_SET]
    tokens = [sample.tokens for sample in samples]
    rows = collect_sets(bridge, tokens, token_sets, layers, token_budget=token_budget)
    if baseline == "prompt":
        return rows[:, 0], rows[:, 1]
    if baseline == "reference":
        return rows[:, 0], torch.zeros_like(rows[:, 0])
    prompts: dict[Dialogue, int] = {}
    places = [prompts.setdefault(_nameless(s.dialogue.prompt), len(prompts)) for s in samples]
    with one_bar_only():
        written = sample_answers(
            bridge, chat, list(prompts), temperature=0.0, max_new_tokens=max_new_tokens
        )
    own = [_answered(chat, prompt, text) for prompt, text in zip(prompts, written, strict=True)]
    read = collect_sets(bridge, own, [TOKEN_SET], layers, token_budget=token_budget)
    return rows[:, 0], read[places, 0]


def engines_of(pair: ModelPair, baseline: Baseline) -> dict[str, str | None]:
    """The engine that writes own answers and the one that reads, on which readings depend; None
    where this process does."""
    return {
        "sampler": pair.sampler.name if baseline == "own" and pair.sampler else None,
        "reader": pair.reader.name if pair.reader else None,
    }


def require_room(chat: ChatFormat, tokens: TokenizedDialogue, max_new_tokens: int) -> None:
    """Raises: DataError where an own answer would not fit behind the prompt."""
    room = None if chat.max_length is None else chat.max_length - tokens.response[0]
    if room is not None and room < max_new_tokens:
        raise DataError(
            f"dialogue {tokens.id} leaves {max(room, 0)} tokens for the model's own answer; "
            f"{max_new_tokens} are asked for (--max-new-tokens)"
        )


def _nameless(prompt: Dialogue) -> Dialogue:
    return Dialogue(prompt.turns)


def _answered(chat: ChatFormat, prompt: Dialogue, text: str) -> TokenizedDialogue:
    if text.strip():
        try:
            return chat.encode(Dialogue((*prompt.turns, Turn("assistant", text))))
        except DataError:
            pass  # the template swallows it, or decoding made it longer than the context
    asked = chat.encode(prompt)
    return TokenizedDialogue(asked.ids, (len(asked) - 1, len(asked)))
