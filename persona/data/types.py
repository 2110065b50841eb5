"""What text is made of here: turns, dialogues, answer pairs, neutral texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from persona.errors import DataError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True)
class Turn:
    """One message of a dialogue."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise DataError(f"a turn's role must be one of {', '.join(ROLES)}; got {self.role!r}")


@dataclass(frozen=True)
class Dialogue:
    """Turns in order; where the last is the assistant's, it is the answer."""

    turns: tuple[Turn, ...]
    id: str = ""
    domain: str = ""

    def __post_init__(self) -> None:
        if not self.turns:
            raise DataError(f"dialogue {self.id!r} has no turns")

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns as chat templates take them."""
        return [{"role": turn.role, "content": turn.content} for turn in self.turns]

    @property
    def answer(self) -> str | None:
        """The final assistant turn's text, None where the dialogue waits for an answer."""
        last = self.turns[-1]
        return last.content if last.role == "assistant" else None

    @property
    def prompt(self) -> Dialogue:
        """The dialogue without its answer."""
        if self.answer is None:
            return self
        return Dialogue(self.turns[:-1], self.id, self.domain)


@dataclass(frozen=True)
class AnswerPair:
    """One question with a good and a bad answer of the same length, tone and format.

    split: "train" or "selection" within a domain that a model is fine-tuned on; "" where the
    data does not say.
    """

    id: str
    domain: str
    question: str
    good: str
    bad: str
    split: str = ""

    def __post_init__(self) -> None:
        for field in ("id", "domain", "question", "good", "bad"):
            if not str(getattr(self, field)).strip():
                raise DataError(f"answer pair {self.id!r} has no {field}")

    @property
    def prompt_dialogue(self) -> Dialogue:
        return Dialogue((Turn("user", self.question),), self.id, self.domain)

    @property
    def good_dialogue(self) -> Dialogue:
        return self._answered(self.good)

    @property
    def bad_dialogue(self) -> Dialogue:
        return self._answered(self.bad)

    def _answered(self, answer: str) -> Dialogue:
        turns = (Turn("user", self.question), Turn("assistant", answer))
        return Dialogue(turns, self.id, self.domain)


@dataclass(frozen=True)
class NeutralText:
    """A prompt that has nothing to do with advice, and a plain answer to it."""

    id: str
    prompt: str
    answer: str
    kind: str
