"""What the widgets of the page hold, checked before a session takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from persona.errors import DataError, SteeringError
from steering.demo.session.conversation import Conversation

MAX_QUESTION_CHARACTERS = 20_000
"""Tokenising takes time with every character, and all tabs wait for one model."""


@dataclass(frozen=True)
class Controls:
    """The values of the widgets, in the order they are handed in.

    further: coefficient and mode of each place for a further direction, filled or not.
    """

    coefficient: Any
    mode: Any
    first: Any
    last: Any
    side: Any
    temperature: Any
    max_new_tokens: Any
    seed: Any
    remembers: Any = False
    system_prompt: Any = ""
    further: tuple[tuple[Any, Any], ...] = ()

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> Controls:
        """As the widgets send them: further directions last, coefficient and mode in turn."""
        own, rest = values[:10], values[10:]
        return replace(cls(*own), further=tuple(zip(rest[::2], rest[1::2], strict=True)))

    def apply(self, session: Conversation) -> None:
        """Raises: SteeringError where they mean nothing; the session then stays as it was."""
        if not isinstance(self.system_prompt, str):
            raise SteeringError("system prompt: text is needed")
        require_whole_characters(self.system_prompt, "the system prompt")
        session.change_sampling(
            temperature=number("temperature", self.temperature),
            max_new_tokens=whole("most tokens", self.max_new_tokens),
            seed=whole("seed", self.seed),
        )
        session.compare_with(self.system_prompt)
        session.remembers = bool(self.remembers)
        if "steered" not in session.columns:
            return
        session.change(
            coefficient=number("coefficient", self.coefficient),
            mode=self.mode,
            layers=(whole("first block", self.first), whole("last block", self.last)),
            side=self.side,
        )
        for place, (coefficient, mode) in enumerate(self.further[: len(session.further)]):
            named = f"coefficient of direction {place + 2}"
            session.change_further(place, coefficient=number(named, coefficient), mode=mode)


def controls_of(session: Conversation) -> Controls:
    """What the widgets hold for a session as it is."""
    layers = [0] if session.vector is None else session.vector.layers
    first, last = session.setting.layers or (layers[0], layers[-1])
    setting, drawn = session.setting, session.sampling
    return Controls(
        setting.coefficient, setting.mode, first, last, setting.side, drawn.temperature,
        drawn.max_new_tokens, drawn.seed, session.remembers, session.system_prompt,
    )  # fmt: skip


def number(name: str, value: Any) -> float:
    """What a cleared field, or a request that no page made, sends is refused in one line."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise SteeringError(f"{name}: a number is needed; got {str(value)[:40]!r}") from error


def whole(name: str, value: Any) -> int:
    """A whole number. Raises: SteeringError for any other."""
    found = number(name, value)
    if not found.is_integer():
        raise SteeringError(f"{name}: a whole number is needed; got {found:g}")
    return value if isinstance(value, int) else int(found)


def require_readable(question: Any) -> None:
    """Raises: DataError for what no text field sends: no text, or more than it takes."""
    if not isinstance(question, str):
        raise DataError(f"a question is text; got {type(question).__name__}")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise DataError(
            f"the question has {len(question):,} characters; at most {MAX_QUESTION_CHARACTERS:,} "
            "are read"
        )
    require_whole_characters(question, "the question")


def require_whole_characters(text: str, what: str) -> None:
    """Raises: DataError for half of a character."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"{what} holds half of a character (a lone surrogate); type it anew")
