"""The columns of a conversation, and what was asked and answered in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from steering.demo.session.generation import NO_ID, Sampling, Token
from steering.demo.session.vector import DemoVector, Setting

Column = Literal["aligned", "finetuned", "steered", "prompted"]
LABELS: dict[Column, str] = {
    "aligned": "Aligned",
    "finetuned": "Fine-tuned",
    "steered": "Steered",
    "prompted": "System prompt",
}


@dataclass
class Answer:
    """The tokens of an answer and why it ended: "turn", "length" or "stopped"."""

    tokens: list[Token] = field(default_factory=list)
    ended: str = ""

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def in_tokens(self) -> bool:
        """Whether it came token by token; else what is called so are pieces of its text."""
        return all(token.id != NO_ID for token in self.tokens)


@dataclass(frozen=True, eq=False)
class Further:
    """A vector that steers beside the first one; its setting's side is not read."""

    vector: DemoVector
    setting: Setting


@dataclass
class Exchange:
    """A question to one column and its answer, with all that it takes to repeat it.

    setting: how it was steered, None for the columns that are not.
    vector, layer: along what and after which block the projections were read, None where none were.
    steered_with: the direction's name, None for the columns that are not steered.
    alone: whether the question began a dialogue of its own, or came after those before it.
    system_prompt: what the model was told before, "" for nothing.
    further: the vectors that steered beside the first.
    """

    column: Column
    question: str
    answer: Answer
    sampling: Sampling
    setting: Setting | None = None
    vector: DemoVector | None = None
    layer: int | None = None
    alone: bool = True
    system_prompt: str = ""
    further: tuple[Further, ...] = ()
    steered_with: str | None = None
