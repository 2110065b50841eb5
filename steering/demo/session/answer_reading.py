"""What can be trusted of an answer: its question's gap, and the harm to its text.

The *gap* is that of the shipped answer pair of the question, teacher-forced in the column's model:
it says whether the bad answer has become less likely, whatever the model happens to write.

The *harm* is the cross-entropy of what was written under the unsteered aligned model, nats per
token. A steered model whose text falls apart writes what that model finds stranger than text that
was written with care: the limit is the strangest of the written good answers to the selection
questions, in the same model. A text that goes round in circles is not strange, so its repetition
is looked at as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import UNEDITED, Condition, score_dialogues
from persona.data.text import as_question
from persona.data.types import AnswerPair, Dialogue, Turn
from persona.errors import PersonaError
from persona.models.pair import ModelPair
from persona.progress import one_bar_only
from persona.report.wording import number
from steering.demo.session.evidence import shipped_pairs
from steering.demo.session.exchanges import LABELS, Column, Exchange
from steering.demo.session.session import Session
from steering.edits.steer import edited
from steering.evidence.dose_answers import repeated_share
from steering.evidence.system_prompt import score_prompted

N_WRITTEN = 12
IN_CIRCLES = 0.5
"""Share of a text's runs of four tokens that it has had before: above it, more is old than new."""
FEWEST_TOKENS = 8
"""Of a shorter answer neither says anything."""


@dataclass(frozen=True)
class Reading:
    """Of the newest answer of a column.

    gap: nats per token, of the shipped pair of this question; None where there is none.
    strangeness: cross-entropy under the unsteered aligned model, nats per token.
    repeated: share of its runs of four tokens that it has had before. None: too short to tell.
    """

    gap: float | None = None
    strangeness: float | None = None
    repeated: float | None = None

    @property
    def in_circles(self) -> bool:
        """Whether more of the text is old than new."""
        return self.repeated is not None and self.repeated > IN_CIRCLES


@dataclass(frozen=True)
class Limit:
    """The strangest of `n` written good answers, nats per token."""

    nats: float
    n: int

    def words(self, reading: Reading, unsteered: Reading | None = None) -> tuple[bool, str] | None:
        """Whether a steered text holds, in words too; None where it is too short to tell.

        unsteered: of what the same model wrote without steering.
        """
        if reading.strangeness is None or reading.repeated is None:
            return None
        if reading.strangeness > self.nats:
            without = None if unsteered is None else unsteered.strangeness
            alike = without is not None and without > self.nats
            why = "as it is without steering" if alike else "steering breaks the text"
            return False, f"stranger than every written answer: {why}"
        if reading.in_circles:
            return False, "goes round in circles"
        return True, "the text is sound"


def read_newest(session: Session) -> dict[Column, Reading]:
    """Readings of the newest answer of every column; the models are held meanwhile.

    A column whose question or setting cannot be scored has none of that reading.
    """
    newest = {column: found[-1] for column in session.columns if (found := session.of(column))}
    with session.lock, one_bar_only():
        strange = strangeness(
            session.pair,
            [session.heard_by(exchange) for exchange in newest.values()],
            [exchange.answer.text for exchange in newest.values()],
        )
        gaps = _gaps(session, newest)
    return {
        column: Reading(gaps.get(column), nats, _repeated(exchange))
        for (column, exchange), nats in zip(newest.items(), strange, strict=True)
    }


def read_steered(session: Session, before: Mapping[Column, Reading]) -> dict[Column, Reading]:
    """The same where the steered column alone has answered anew; what others said stays."""
    exchange = session.of("steered")[-1]
    with session.lock, one_bar_only():
        heard = session.heard_by(exchange)
        [strange] = strangeness(session.pair, [heard], [exchange.answer.text])
        gap = _gaps(session, {"steered": exchange}).get("steered")
    return {**before, "steered": Reading(gap, strange, _repeated(exchange))}


def in_words(readings: Mapping[Column, Reading], limit: Limit) -> list[str]:
    """The readings in a line each, as a terminal shows them; none where there is none."""
    gaps = [
        f"{LABELS[column].lower()} {number(reading.gap, 2, signed=True)}"
        for column, reading in readings.items()
        if reading.gap is not None
    ]
    lines = []
    if gaps:
        lines.append(f"gap: {', '.join(gaps)} nats a token; above 0 the bad answer is likelier")
    steered = readings.get("steered", Reading())
    judged = limit.words(steered, readings.get("finetuned"))
    if judged is not None:
        lines.append(
            f"steered text: {judged[1]} ({number(steered.strangeness, 1)} nats a token under the "
            f"aligned model; limit {number(limit.nats, 1)})"
        )
    return lines


def strangeness(
    pair: ModelPair, asked: Sequence[Dialogue], answers: Sequence[str]
) -> list[float | None]:
    """Cross-entropy of each answer to what was asked, in the aligned model; None of short ones."""
    found: list[float | None] = [None] * len(answers)
    encoded = {}
    for place, (heard, answer) in enumerate(zip(asked, answers, strict=True)):
        if not answer.strip():
            continue
        whole = Dialogue((*heard.turns, Turn("assistant", answer.strip())), f"answer {place}")
        try:
            encoded[place] = pair.chat.encode(whole)
        except PersonaError:  # it does not fit into the model's context any more
            continue
    long = {
        place: tokens
        for place, tokens in encoded.items()
        if tokens.response[1] - tokens.response[0] >= FEWEST_TOKENS
    }
    if long:
        [read] = score_dialogues(pair, list(long.values()), [Condition("aligned", "aligned")])
        for place, log_prob in zip(long, read.log_prob, strict=True):
            found[place] = -float(log_prob) if math.isfinite(log_prob) else None
    return found


def limit_of(session: Session) -> Limit:
    """As the direction's run has measured it, else measured now on shipped selection questions."""
    evidence = None if session.vector is None else session.vector.evidence
    if evidence is not None and evidence.written:
        return Limit(max(evidence.written), len(evidence.written))
    pairs = [pair for pair in shipped_pairs().values() if pair.split == "selection"][:N_WRITTEN]
    with session.lock, one_bar_only():
        asked = [pair.prompt_dialogue for pair in pairs]
        found = strangeness(session.pair, asked, [pair.good for pair in pairs])
    known = [nats for nats in found if nats is not None]
    return Limit(max(known, default=math.inf), len(known))


def _gaps(session: Session, newest: Mapping[Column, Exchange]) -> dict[Column, float]:
    questions = {as_question(exchange.question) for exchange in newest.values()}
    known = [shipped_pairs()[question] for question in questions if question in shipped_pairs()]
    if len(known) != 1 or len(questions) != 1:
        return {}
    [pair] = known
    conditions = [condition for condition in UNEDITED if condition.name in newest]
    if "steered" in newest:
        side, edits = session.steering("steered")
        conditions.append(edited("steered", side, edits))
    found: dict[Column, float] = {}
    if conditions:
        rows = score_pairs(session.pair, [pair], conditions, kl=False)
        gaps = rows[rows["measure"] == "gap"].set_index("condition")["value"]
        found = {column: float(gaps[column]) for column in newest if column in gaps.index}
    if "prompted" in newest:
        found["prompted"] = _prompted_gap(session, pair)
    return found


def _prompted_gap(session: Session, pair: AnswerPair) -> float:
    rows = score_prompted(session.pair, [pair], session.system_prompt, "finetuned")
    return float(rows[rows["measure"] == "gap"]["value"].iloc[0])


def _repeated(exchange: Exchange) -> float | None:
    tokens = [token.id for token in exchange.answer.tokens]
    return repeated_share(tokens) if len(tokens) >= FEWEST_TOKENS else None
