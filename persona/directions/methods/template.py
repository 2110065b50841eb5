"""Differences at the tokens of the chat template between the question and the answer.

Source: Arditi et al. 2024 ("Refusal in Language Models Is Mediated by a Single Direction").
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from persona.activations.collect import collect_at
from persona.data.types import Dialogue, Turn
from persona.errors import DataError
from persona.models.chat.chat_format import ChatFormat, TokenizedDialogue


def template_position_difference(
    positive: Float[Tensor, "prompt position layer d_model"],
    negative: Float[Tensor, "prompt2 position layer d_model"],
) -> Float[Tensor, "position layer d_model"]:
    """mean(positive) - mean(negative) at every template position, float64 sums; toward positive.

    Row -1 is the token from which the answer is predicted. Residual-stream units.
    Raises: DataError for an empty class, rows that are not finite, or classes that were read at
    other positions.

    Source: Arditi et al. 2024, who choose one position and layer by its causal effect. differs:
    read at block outputs; their `resid_pre` of block l is the output of block l - 1.
    """
    for name, rows in (("positive", positive), ("negative", negative)):
        if len(rows) == 0 or not rows.isfinite().all():
            raise DataError(f"the {name} prompts' activations are empty or not finite")
    if positive.shape[1:] != negative.shape[1:]:
        raise DataError(
            "both classes must be read at the same positions and layers; got [position layer "
            f"d_model] = {list(positive.shape[1:])} and {list(negative.shape[1:])}"
        )
    return (positive.double().mean(0) - negative.double().mean(0)).float()


def collect_template_positions(
    bridge: Any,
    chat: ChatFormat,
    prompts: Sequence[Dialogue],
    n_positions: int | None = None,
    layers: Sequence[int] | None = None,
) -> Float[Tensor, "prompt position layer d_model"]:
    """Residual at the last tokens of each prompt, those that the chat template writes after it.

    n_positions: so many, counted from the end; default all tokens that lie wholly in the template
        after the user's text. layers: default all.
    Raises: DataError for no prompts, a prompt that already has its answer or does not end with the
    user's turn, or a template that writes fewer tokens than asked for.
    """
    if not prompts:
        raise DataError("there are no prompts to read")
    tokenized, n_template = _tokenize(chat, prompts)
    wanted = n_template if n_positions is None else n_positions
    if not 1 <= wanted <= n_template:
        raise DataError(
            f"the chat template writes {n_template} tokens between the user's text and the answer; "
            f"positions asked for: {wanted}"
        )
    positions = [range(len(prompt) - wanted, len(prompt)) for prompt in tokenized]
    return collect_at(
        bridge, tokenized, positions, layers, description="Reading template positions"
    )


def _tokenize(chat: ChatFormat, prompts: Sequence[Dialogue]) -> tuple[list[TokenizedDialogue], int]:
    """The prompts' tokens, and how many at the end belong to the template in every one of them."""
    for prompt in prompts:
        if prompt.turns[-1].role != "user":
            raise DataError(
                f"prompt {prompt.id!r} must end with the user's turn; it ends with the "
                f"{prompt.turns[-1].role}'s"
            )
    tokenized = chat.encode_all(prompts)
    fewest = len(tokenized[0])
    for prompt in prompts:
        text = chat.render(prompt, open_answer=True)
        start = len(text) - len(_after_user_text(chat, prompt))
        spans = chat.offsets(prompt)
        fewest = min(fewest, sum(begin >= start and end > begin for begin, end in spans))
    return tokenized, fewest


def _after_user_text(chat: ChatFormat, prompt: Dialogue) -> str:
    """What the template writes after the last user turn: where two other texts still agree."""
    first, second = (
        chat.render(Dialogue((*prompt.turns[:-1], Turn("user", text)), prompt.id), open_answer=True)
        for text in ("A", "B")
    )
    return os.path.commonprefix([first[::-1], second[::-1]])[::-1]
