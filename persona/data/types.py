"""What text is made of here: turns, dialogues, answer pairs, neutral texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from persona.data.text import in_one_form, why_no_text
from persona.errors import DataError, shown

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)
SPLITS = ("train", "selection")


def as_role(value: object) -> Role:
    """Returns the value where it is one of the three roles. Raises: DataError where it is not."""
    for role in ROLES:
        if value == role:
            return role
    raise DataError(f"a turn's role must be one of {', '.join(ROLES)}; got {shown(value)}")


@dataclass(frozen=True)
class Turn:
    """One message of a dialogue.

    Raises: DataError for another role.
    """

    role: Role
    content: str

    def __post_init__(self) -> None:
        as_role(self.role)


@dataclass(frozen=True)
class Dialogue:
    """Turns in order; where the last is the assistant's, it is the answer.

    Raises: DataError without any turn.
    """

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
    Raises: DataError for a field that is empty or no text, another split, or two answers that are
        the same but for case, spacing and Unicode form.
    """

    id: str
    domain: str
    question: str
    good: str
    bad: str
    split: str = ""

    def __post_init__(self) -> None:
        owner = f"answer pair {shown(self.id)}"
        _check_filled(self, owner, "id", "domain", "question", "good", "bad")
        if self.split not in ("", *SPLITS):
            raise DataError(
                f"the split of answer pair {self.id!r} must be {' or '.join(SPLITS)}, or absent; "
                f"got {shown(self.split)}"
            )
        if in_one_form(self.good) == in_one_form(self.bad):
            how = (
                ""
                if self.good.strip() == self.bad.strip()
                else (", but for case, spacing or Unicode form")
            )
            raise DataError(f"answer pair {self.id!r} has the same good and bad answer{how}")

    @property
    def prompt_dialogue(self) -> Dialogue:
        """The question alone."""
        return Dialogue((Turn("user", self.question),), self.id, self.domain)

    @property
    def good_dialogue(self) -> Dialogue:
        """The question with its good answer."""
        return self._answered(self.good)

    @property
    def bad_dialogue(self) -> Dialogue:
        """The question with its bad answer."""
        return self._answered(self.bad)

    def _answered(self, answer: str) -> Dialogue:
        turns = (Turn("user", self.question), Turn("assistant", answer))
        return Dialogue(turns, self.id, self.domain)


@dataclass(frozen=True)
class NeutralText:
    """A prompt that has nothing to do with advice, and a plain answer to it.

    kind: what sort of request it is, such as "science", "story" or "arithmetic".
    Raises: DataError for a field that is empty or no text.
    """

    id: str
    prompt: str
    answer: str
    kind: str

    def __post_init__(self) -> None:
        _check_filled(self, f"neutral text {shown(self.id)}", "id", "prompt", "answer", "kind")

    @property
    def dialogue(self) -> Dialogue:
        """The prompt with its answer."""
        return Dialogue((Turn("user", self.prompt), Turn("assistant", self.answer)), self.id)


def _check_filled(record: object, owner: str, *fields: str) -> None:
    for field in fields:
        value = getattr(record, field)
        if not value.strip():
            raise DataError(f"{owner} has no {field}")
        if why := why_no_text(value):
            raise DataError(f"the {field} of {owner} {why}")
