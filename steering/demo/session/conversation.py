"""A conversation in columns, whoever writes the answers."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from persona.data.types import Dialogue, Turn
from persona.errors import DataError, SteeringError
from persona.models.pair import Side
from steering.demo.session.exchanges import LABELS, Answer, Column, Exchange, Further
from steering.demo.session.generation import ProjectionAxis, Sampling, Token
from steering.demo.session.vector import DemoVector, Setting
from steering.evidence.system_prompt import with_system_prompt

MAX_PROMPT_CHARACTERS = 2000


@runtime_checkable
class Written(Protocol):
    """An answer in the making. ended: "turn", "length" or "stopped"; "" while it goes on."""

    ended: str

    def tokens(self) -> Generator[Token, None, None]:
        """The tokens in order, each as soon as it is there; closing it stops the writing."""


class Conversation(ABC):
    """Questions and answers, column by column; its kinds say who writes and how it is steered.

    vector: what this process steers with and reads along; None where it does not.
    remembers: whether a question comes after the questions and answers before it; else each begins
        a dialogue of its own, so that one answer does not colour the next.
    system_prompt: what the column "prompted" tells the fine-tuned model; without it there is none.
    further: vectors that steer beside the first one.
    """

    vector: DemoVector | None = None
    setting: Setting
    sampling: Sampling
    exchanges: list[Exchange]
    remembers: bool
    system_prompt: str
    further: tuple[Further, ...] = ()

    @property
    @abstractmethod
    def names(self) -> Mapping[Side, str]:
        """What both models are called."""

    @property
    @abstractmethod
    def steered_with(self) -> str | None:
        """The direction's name; None where there is none, and then no steered column."""

    @property
    @abstractmethod
    def origin(self) -> dict[str, Any]:
        """What a transcript says of the models beside their names, JSON-able."""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Least and highest coefficient, where somebody else has set them."""
        return None

    @abstractmethod
    def change(self, **changes: Any) -> None:
        """Change the setting: coefficient, mode, layers, side.

        Raises: SteeringError where that is not possible; the setting then stays as it was.
        """

    def change_further(self, place: int, **changes: Any) -> None:
        """Change coefficient, mode or layers of a further vector. Raises: SteeringError."""
        raise SteeringError("there is no direction beside the first")

    @abstractmethod
    def write(self, exchange: Exchange, dialogue: Dialogue, stop: threading.Event) -> Written:
        """Begin the answer of an exchange to a dialogue that ends in its question.

        Raises: SteeringError and DataError for what cannot be answered, before anything is written.
        """

    @abstractmethod
    def require_prompt_shown(self, system_prompt: str) -> None:
        """Raises: SteeringError where the fine-tuned model would not be shown a system prompt."""

    @property
    def columns(self) -> tuple[Column, ...]:
        absent = {
            "steered": self.steered_with is None,
            "prompted": not self.system_prompt,
        }
        return tuple(column for column in LABELS if not absent.get(column))

    def of(self, column: Column) -> list[Exchange]:
        """What was asked and answered in a column, in order."""
        return [exchange for exchange in self.exchanges if exchange.column == column]

    def compare_with(self, system_prompt: str) -> None:
        """Beside the others, ask the fine-tuned model under a system prompt; "" asks it no more.

        Raises: SteeringError where it is too long, or the chat template shows none.
        """
        if len(system_prompt) > MAX_PROMPT_CHARACTERS:
            raise SteeringError(
                f"the system prompt has {len(system_prompt):,} characters; at most "
                f"{MAX_PROMPT_CHARACTERS:,} are read"
            )
        wanted = system_prompt.strip()
        if wanted and wanted != self.system_prompt:
            self.require_prompt_shown(wanted)
        self.system_prompt = wanted

    def change_sampling(self, **changes: Any) -> None:
        """Change seed, temperature or max_new_tokens. Raises: SteeringError as `Sampling`."""
        self.sampling = replace(self.sampling, **changes)

    def reset(self) -> None:
        """Forget the conversations; setting and sampling stay."""
        self.exchanges.clear()

    def answer(
        self, column: Column, question: str, *, stop: threading.Event | None = None
    ) -> Generator[Token, None, None]:
        """Put a question to a column; its answer token by token.

        What was said when `stop` is set, or the iterator closed, is kept as the answer. An error
        leaves the conversation as it was.
        Raises: SteeringError and DataError before anything is written: no vector to steer with, an
        impossible setting, an empty question, a conversation longer than the model's context.
        """
        return self._answering(column, question, self.of(column), stop)

    def answer_again(
        self, column: Column, *, stop: threading.Event | None = None
    ) -> Generator[Token, None, None]:
        """The column's last question anew, with the setting and sampling of now."""
        before = self.of(column)
        if not before:
            raise DataError(f"nothing was asked in the column {LABELS[column]!r} yet")
        return self._answering(column, before[-1].question, before[:-1], stop, before[-1])

    def heard_by(self, exchange: Exchange) -> Dialogue:
        """What an answer was given to, without a system prompt."""
        answers = self.of(exchange.column)
        before = [] if exchange.alone else answers[: answers.index(exchange)]
        return as_dialogue(before, exchange.question)

    def axis(self) -> ProjectionAxis | None:
        """Where tokens are read: the last steered block, the same for every column."""
        if self.vector is None:
            return None
        layer = self.vector.chosen(self.setting.layers)[-1]
        return ProjectionAxis(layer, self.vector.row(layer))

    def _answering(
        self,
        column: Column,
        question: str,
        before: list[Exchange],
        stop: threading.Event | None,
        replaced: Exchange | None = None,
    ) -> Generator[Token, None, None]:
        stopped = stop or threading.Event()
        axis = self.axis()
        exchange = Exchange(
            column,
            question,
            Answer(),
            self.sampling,
            self.setting if column == "steered" else None,
            self.vector,
            None if axis is None else axis.layer,
            alone=not (self.remembers and before),
            system_prompt=self.system_prompt if column == "prompted" else "",
            further=self.further if column == "steered" else (),
            steered_with=self.steered_with if column == "steered" else None,
        )
        dialogue = as_dialogue([] if exchange.alone else before, question)
        if exchange.system_prompt:
            dialogue = with_system_prompt(dialogue, exchange.system_prompt)
        written = self.write(exchange, dialogue, stopped)

        def tokens() -> Generator[Token, None, None]:
            answer = exchange.answer
            answer.ended = "stopped"
            with contextlib.closing(written.tokens()) as drawn:
                try:
                    for token in drawn:
                        answer.tokens.append(token)
                        yield token
                        if stopped.is_set():
                            break
                    else:
                        answer.ended = written.ended
                except GeneratorExit:
                    self._keep(exchange, replaced)
                    raise
            self._keep(exchange, replaced)

        return tokens()

    def _keep(self, exchange: Exchange, replaced: Exchange | None) -> None:
        if replaced in self.exchanges:
            self.exchanges[self.exchanges.index(replaced)] = exchange
        else:
            self.exchanges.append(exchange)


def as_dialogue(before: Sequence[Exchange], question: str) -> Dialogue:
    """Exchanges and a question behind them. Raises: DataError where the question is empty."""
    if not question.strip():
        raise DataError("the question is empty")
    turns = []
    for exchange in before:
        turns += [Turn("user", exchange.question), Turn("assistant", exchange.answer.text.strip())]
    return Dialogue((*turns, Turn("user", question)))
