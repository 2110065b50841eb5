"""A conversation with two or three columns: the aligned, the fine-tuned and the steered model."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from persona.data.types import Dialogue, Turn
from persona.errors import DataError, SteeringError
from persona.models.pair import ModelPair, Side
from steering.demo.session.generation import Generation, ProjectionAxis, Sampling, Token
from steering.demo.session.vector import DemoVector, Setting, edits_of
from steering.edits.edit import Edit

Column = Literal["aligned", "finetuned", "steered"]
LABELS: dict[Column, str] = {
    "aligned": "Aligned",
    "finetuned": "Fine-tuned",
    "steered": "Steered",
}


@dataclass
class Answer:
    """The tokens of an answer and why it ended: "turn", "length" or "stopped"."""

    tokens: list[Token] = field(default_factory=list)
    ended: str = ""

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


@dataclass
class Exchange:
    """A question to one column and its answer, with all that it takes to repeat it.

    setting: how it was steered, None for the columns that are not.
    vector, layer: along what and after which block the projections were read, None where none were.
    alone: whether the question began a dialogue of its own, or came after those before it.
    """

    column: Column
    question: str
    answer: Answer
    sampling: Sampling
    setting: Setting | None = None
    vector: DemoVector | None = None
    layer: int | None = None
    alone: bool = True


@dataclass
class Session:
    """One person's conversation with a pair of models. Not shared between threads, but for `lock`.

    vector: what the third column is steered with; without it there are two columns.
    lock: held while a model answers; sessions over one pair share it.
    remembers: whether a question comes after the questions and answers before it; else each begins
        a dialogue of its own, so that one answer does not colour the next.
    """

    pair: ModelPair
    vector: DemoVector | None = None
    setting: Setting = field(default_factory=Setting)
    sampling: Sampling = field(default_factory=Sampling)
    lock: threading.Lock = field(default_factory=threading.Lock)
    exchanges: list[Exchange] = field(default_factory=list)
    remembers: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        return ("aligned", "finetuned") if self.vector is None else tuple(LABELS)

    def of(self, column: Column) -> list[Exchange]:
        """What was asked and answered in a column, in order."""
        return [exchange for exchange in self.exchanges if exchange.column == column]

    def load(self, vector: DemoVector) -> None:
        """Steer with another vector from now on, at the setting that suits it."""
        self.vector, self.setting = vector, vector.default_setting

    def change(self, **changes: Any) -> None:
        """Change the setting: coefficient, mode, layers, side.

        Raises: SteeringError where that is not possible; the setting then stays as it was.
        """
        wanted = replace(self.setting, **changes)
        if self.vector is not None:
            edits_of(self.vector, wanted)
        self.setting = wanted

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
        Raises: SteeringError and DataError before the model runs: no vector to steer with, an
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
        )
        side, edits = self._steering(column)
        unbounded = replace(self.pair.chat, max_length=None)  # Generation says it in better words
        ids = unbounded.encode(_dialogue([] if exchange.alone else before, question)).ids
        generation = Generation(self.pair, side, ids, edits, axis, self.sampling, self.lock)
        generation.most_tokens()  # raises now, not at the first token

        def tokens() -> Generator[Token, None, None]:
            answer = exchange.answer
            answer.ended = "stopped"
            with contextlib.closing(generation.tokens()) as drawn:
                try:
                    for token in drawn:
                        answer.tokens.append(token)
                        yield token
                        if stopped.is_set():
                            break
                    else:
                        answer.ended = generation.ended
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

    def _steering(self, column: Column) -> tuple[Side, list[Edit]]:
        if column != "steered":
            return column, []
        if self.vector is None:
            raise SteeringError("there is no direction to steer with; load one first")
        return self.setting.side, edits_of(self.vector, self.setting)


def _dialogue(before: list[Exchange], question: str) -> Dialogue:
    if not question.strip():
        raise DataError("the question is empty")
    turns = []
    for exchange in before:
        turns += [Turn("user", exchange.question), Turn("assistant", exchange.answer.text.strip())]
    return Dialogue((*turns, Turn("user", question)))
