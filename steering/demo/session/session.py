"""A conversation in columns: the aligned, the fine-tuned, the steered and the prompted model."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

from persona.data.types import Dialogue, Turn
from persona.errors import DataError, SteeringError
from persona.models.pair import ModelPair, Side
from steering.demo.session.exchanges import LABELS, Answer, Column, Exchange, Further
from steering.demo.session.generation import Generation, ProjectionAxis, Sampling, Token
from steering.demo.session.vector import DemoVector, Setting, edits_of
from steering.edits.edit import Edit, require_no_conflict
from steering.evidence.system_prompt import require_shown, with_system_prompt

MOST_VECTORS = 4
"""That steer at once, the first among them."""
MAX_PROMPT_CHARACTERS = 2000


@dataclass
class Session:
    """One person's conversation with a pair of models. Not shared between threads, but for `lock`.

    vector: what the third column is steered with; without it there are two columns.
    lock: held while a model answers; sessions over one pair share it.
    remembers: whether a question comes after the questions and answers before it; else each begins
        a dialogue of its own, so that one answer does not colour the next.
    system_prompt: what the column "prompted" tells the fine-tuned model; without it there is none.
    further: vectors that steer beside the first one.
    """

    pair: ModelPair
    vector: DemoVector | None = None
    setting: Setting = field(default_factory=Setting)
    sampling: Sampling = field(default_factory=Sampling)
    lock: threading.Lock = field(default_factory=threading.Lock)
    exchanges: list[Exchange] = field(default_factory=list)
    remembers: bool = False
    system_prompt: str = ""
    further: tuple[Further, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        absent = {
            "steered": self.vector is None,
            "prompted": not self.system_prompt,
        }
        return tuple(column for column in LABELS if not absent.get(column))

    def of(self, column: Column) -> list[Exchange]:
        """What was asked and answered in a column, in order."""
        return [exchange for exchange in self.exchanges if exchange.column == column]

    def load(self, vector: DemoVector) -> None:
        """Steer with another vector from now on, at the setting that suits it."""
        self.vector, self.setting = vector, vector.default_setting

    def load_further(self, vector: DemoVector) -> None:
        """Steer with another vector beside those there are, at coefficient 0 until it is changed.

        Raises: SteeringError without a first one, or beyond `MOST_VECTORS`.
        """
        if self.vector is None:
            raise SteeringError("there is no direction yet to add another to; load one first")
        if len(self.further) + 1 >= MOST_VECTORS:
            raise SteeringError(f"at most {MOST_VECTORS} directions steer at once; drop one first")
        setting = replace(vector.default_setting, coefficient=0.0)
        self.further = (*self.further, Further(vector, setting))

    def drop_further(self, place: int) -> None:
        """Steer without one of the further vectors; `place` from 0. Raises: SteeringError."""
        dropped = self._further_at(place)
        self.further = tuple(each for each in self.further if each is not dropped)

    def change_further(self, place: int, **changes: Any) -> None:
        """Change coefficient, mode or layers of a further vector. Raises: SteeringError."""
        old = self._further_at(place)
        new = Further(old.vector, replace(old.setting, **changes))
        edits_of(new.vector, new.setting)
        self.further = tuple(new if each is old else each for each in self.further)

    def _further_at(self, place: int) -> Further:
        if not 0 <= place < len(self.further):
            n = len(self.further)
            raise SteeringError(f"beside the first there are {n} directions; got {place + 1}")
        return self.further[place]

    def compare_with(self, system_prompt: str) -> None:
        """Beside the others, ask the fine-tuned model under a system prompt; "" asks it no more.

        Raises: SteeringError where it is too long, or the chat template shows none.
        """
        if len(system_prompt) > MAX_PROMPT_CHARACTERS:
            raise SteeringError(
                f"the system prompt has {len(system_prompt):,} characters; at most "
                f"{MAX_PROMPT_CHARACTERS:,} are read"
            )
        system_prompt = system_prompt.strip()
        if system_prompt and system_prompt != self.system_prompt:
            require_shown(self.pair.chat, _dialogue([], "A question."), system_prompt)
        self.system_prompt = system_prompt

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

    def heard_by(self, exchange: Exchange) -> Dialogue:
        """What an answer was given to, without a system prompt."""
        answers = self.of(exchange.column)
        before = [] if exchange.alone else answers[: answers.index(exchange)]
        return _dialogue(before, exchange.question)

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
        )
        side, edits = self.steering(column)
        unbounded = replace(self.pair.chat, max_length=None)  # Generation says it in better words
        dialogue = _dialogue([] if exchange.alone else before, question)
        if exchange.system_prompt:
            dialogue = with_system_prompt(dialogue, exchange.system_prompt)
        ids = unbounded.encode(dialogue).ids
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

    def steering(self, column: Column) -> tuple[Side, list[Edit]]:
        """Which model answers in a column, and under which edits. Raises: SteeringError."""
        if column != "steered":
            return ("aligned" if column == "aligned" else "finetuned"), []
        if self.vector is None:
            raise SteeringError("there is no direction to steer with; load one first")
        edits = list(edits_of(self.vector, self.setting))
        for each in self.further:
            if each.setting.coefficient:
                edits += edits_of(each.vector, each.setting)
        require_no_conflict(edits)
        return self.setting.side, edits


def _dialogue(before: list[Exchange], question: str) -> Dialogue:
    if not question.strip():
        raise DataError("the question is empty")
    turns = []
    for exchange in before:
        turns += [Turn("user", exchange.question), Turn("assistant", exchange.answer.text.strip())]
    return Dialogue((*turns, Turn("user", question)))
