"""Which tokens of a text an edit writes, by their places alone: for a model run elsewhere too."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from persona.activations.positions import TOKEN_SETS
from persona.errors import SteeringError, shown

POSITION_SETS = ("all", "asking", "answering", "answering:K", "last", "from:K", "(start, end)")
Positions = str | tuple[int, int]


@dataclass(frozen=True)
class TokenChoice:
    """The tokens of `positions`, as `PositionTracker` says; called with places it tells which.

    It holds in an engine that runs a text in pieces, or again from its start: the place of a token
    in its own text decides. "last" is the last token of the prompt and every decoded one.
    first_token: also the first token of the text.
    Raises: SteeringError for another set.
    """

    positions: Positions = "all"
    first_token: bool = False

    def __post_init__(self) -> None:
        parsed(self.positions)

    def __call__(self, index: Tensor, answer_begins: Tensor, n_prompt: Tensor) -> Tensor:
        """Places [row token], where answers begin and how long prompts are [row 1] -> chosen."""
        kind, span = parsed(self.positions)
        begins = n_prompt if kind == "last" else answer_begins
        mask = chosen("answering" if kind == "last" else kind, span, index, begins)
        return mask if self.first_token else mask & (index > 0)


def chosen(kind: str, span: tuple[int, int], index: Tensor, answer_begins: Tensor) -> Tensor:
    """Which places of a text [row token] are in a parsed set other than "last"."""
    if kind in ("all", "from", "span"):
        return (index >= span[0]) & (index < span[1])
    after = index - (answer_begins - 1)
    if kind == "asking":
        return after < 0
    return (after >= 0) & (after < span[1])


_OF_READING = {one.partition(":")[0] for one in TOKEN_SETS} - {"all"}
_WITHOUT_END = torch.iinfo(torch.int64).max


def parsed(positions: Positions) -> tuple[str, tuple[int, int]]:
    """What kind of set this is, and its [start, end) of the text (or of the answering tokens)."""
    if isinstance(positions, str):
        if positions in ("all", "asking", "answering", "last"):
            return positions, (0, _WITHOUT_END)
        if k := re.fullmatch(r"answering:([1-9]\d{0,8})", positions):
            return "answering", (0, int(k[1]))
        if k := re.fullmatch(r"from:(\d{1,9})", positions):
            return "from", (int(k[1]), _WITHOUT_END)
        if positions.partition(":")[0] in _OF_READING:
            raise SteeringError(
                f"{shown(positions)} names tokens that are read. An answer is changed one token "
                "earlier, where it is predicted: take 'answering' (the last prompt token and the "
                "answer), 'answering:K' (the first K of those), 'asking' (all before them), or a "
                "pair (start, end)"
            )
    elif 0 <= positions[0] < positions[1]:
        return "span", positions
    raise SteeringError(
        f"positions must be one of {', '.join(POSITION_SETS)} with 0 <= start < end and K a "
        f"number; got {shown(positions)}"
    )
