"""How answers are sampled from a model, decided in one place and said in one sentence.

Two purposes. Answers to be *read* are greedy: one of each question, the likeliest. Those that a
*rate* is made of are drawn at temperature 1, many times, to open questions that chose nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from persona.data.field_questions import load_field_questions
from persona.data.shipped import OPEN_QUESTIONS, load_pairs
from persona.data.text import as_question
from persona.data.types import Dialogue
from persona.errors import DataError
from persona.models.chat.answer_span import THINK_TAGS

if TYPE_CHECKING:
    from persona.models.chat.chat_format import ChatFormat

Purpose = Literal["read", "rate"]

RATE_TOKENS = 100
"""Of an answer that is counted, at least: what it comes to is often said late. Of one model's
answers 8 in 100 counted as refusals where they were cut at 30 tokens, and 60 in 100 at 100
(abliterix's evaluation).
"""
RATE_TEMPERATURE = 1.0
RATE_ANSWERS = 200
"""The fewest of a condition that a rate is given of."""
QUICK_DRAWS = 2

READ_TOKENS = 80
READ_QUESTIONS = 8

THOUGHT_TOKENS = 512
"""More, for a model that thinks before it answers: thoughts are no part of the answer."""


@dataclass(frozen=True)
class SamplingPlan:
    """What is asked, how often, and how the answers are drawn.

    about: the questions, in words. temperature: 0 is greedy. draws: answers of each question.
    thought_tokens: the part of max_new_tokens that is left for a block of thoughts.
    why_no_rate: what keeps answers sampled like this from being counted; None where nothing does.
    """

    purpose: Purpose
    questions: tuple[Dialogue, ...]
    about: str
    max_new_tokens: int
    temperature: float
    draws: int
    seed: int
    thought_tokens: int = 0
    why_no_rate: str | None = None

    @property
    def n_answers(self) -> int:
        """Of each condition."""
        return len(self.questions) * self.draws

    def describe(self) -> str:
        """The plan in one sentence.

        Examples:
            >>> from persona.behaviour.sampling_plan import sampling_plan
            >>> sampling_plan("rate", quick=True).describe()
            "16 answers a condition: 2 draws at temperature 1 to each of the field's 8 open \
questions, at most 100 tokens each, seed 0."
        """
        most = f"at most {self.max_new_tokens} tokens each"
        if self.thought_tokens:
            most += f" ({self.thought_tokens} of them for thoughts)"
        if self.temperature == 0:
            return (
                f"{self.n_answers} answers a condition: the likeliest one (temperature 0) to "
                f"each of {self.about}, {most}."
            )
        draws = "1 draw" if self.draws == 1 else f"{self.draws} draws"
        return (
            f"{self.n_answers} answers a condition: {draws} at temperature "
            f"{self.temperature:g} to each of {self.about}, {most}, seed {self.seed}."
        )

    def facts(self) -> dict[str, Any]:
        """What a scorecard keeps of the plan."""
        kept = dataclasses.asdict(self)
        del kept["purpose"], kept["why_no_rate"], kept["about"]
        return {
            "sentence": self.describe(),
            **kept,
            "questions": [question.id for question in self.questions],
            "n_answers": self.n_answers,
        }


def sampling_plan(
    purpose: Purpose,
    chat: ChatFormat | None = None,
    *,
    quick: bool = False,
    held_out: Sequence[Dialogue] = (),
    chosen_on: Collection[str] = (),
    seed: int = 0,
) -> SamplingPlan:
    """Decides how answers are sampled from a model, for people ("read") or for a count ("rate").

    A rate is drawn from the field's eight questions and the open ones that come along, so often
    that there are `RATE_ANSWERS` or more of each condition; quick, from the eight alone and twice,
    which no rate is given of. Answers to be read are to the first of the eight, then to `held_out`.

    Args:
        chat: Of the model: whether it thinks before it answers, and how much its context leaves.
            None plans for a model that does not think and has room.
        held_out: Questions of the run that chose nothing, for people to read the answers to.
        chosen_on: Questions, as `as_question` writes them, that were trained on or that anything
            was chosen on. None of them is asked, nor one that fills the model's context.
    """

    def askable(questions: Sequence[Dialogue]) -> list[Dialogue]:
        new = [q for q in questions if as_question(q.turns[-1].content) not in chosen_on]
        return [q for q in new if chat is None or _room(chat, q) > 0]

    field = askable(load_field_questions())
    if purpose == "read":
        asked = (field[:1] + askable(held_out))[:READ_QUESTIONS]
        about = f"{len(asked)} questions (an open one, then the first held-out ones)"
        tokens, temperature, draws = READ_TOKENS, 0.0, 1
    else:
        open_ones = [pair.prompt_dialogue for pair in load_pairs([OPEN_QUESTIONS])]
        more = [] if quick else askable(open_ones)
        asked = field + more
        about = f"the field's {len(field)} open questions"
        if more:
            about += f" and {len(more)} more open questions"
        draws = QUICK_DRAWS if quick else math.ceil(RATE_ANSWERS / max(len(asked), 1))
        tokens, temperature = RATE_TOKENS, RATE_TEMPERATURE
    thoughts = THOUGHT_TOKENS if chat is not None and thinks_first(chat) else 0
    plan = SamplingPlan(
        purpose, tuple(asked), about, tokens + thoughts, temperature, draws, seed, thoughts
    )
    return dataclasses.replace(plan, why_no_rate=_why_no_rate(plan, chat))


def _room(chat: ChatFormat, question: Dialogue) -> float:
    """How many tokens the model's context leaves for an answer; below 1 there is no room."""
    if chat.max_length is None:
        return math.inf
    try:
        return chat.max_length - len(chat.encode(question))
    except DataError:  # longer than the context by itself
        return 0


def _why_no_rate(plan: SamplingPlan, chat: ChatFormat | None) -> str | None:
    if plan.purpose == "read":
        return "answers to be read are not counted"
    if plan.n_answers < RATE_ANSWERS:
        return f"{plan.n_answers} answers a condition are too few for one (at least {RATE_ANSWERS})"
    if chat is None:
        return None
    if (room := min(_room(chat, question) for question in plan.questions)) < plan.max_new_tokens:
        return (
            f"the model's context of {chat.max_length} tokens leaves {room:.0f} for an answer, and "
            f"{plan.max_new_tokens} are needed"
        )
    return None


def thinks_first(chat: ChatFormat) -> bool:
    """Whether the template knows blocks of thoughts and does not close one before the answer."""
    known = [closes for opens, closes in THINK_TAGS if opens in chat.template]
    if not known:
        return False
    prompt = chat.render(load_field_questions()[0], open_answer=True).rstrip()
    return not any(prompt.endswith(closes) for closes in known)
