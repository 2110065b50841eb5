"""What the conditions answered: to be read side by side, and the draws that were judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from persona.report.theme import CONDITIONS, plain
from persona.report.wording import NO_BREAK, as_float, cleaned, number
from persona.rows import ALIGNED, FINETUNED, GOOD_TWIN, RESTORED, SAMPLED

OPENING_QUESTIONS = 3
OPENING_COLUMNS = (ALIGNED, FINETUNED, RESTORED, GOOD_TWIN)
DRAWS_SHOWN = 16
"""Of each condition; a full run draws hundreds, and rows.parquet has them all."""


@dataclass(frozen=True)
class ShownAnswer:
    """One answer; None where a condition did not answer this question."""

    label: str
    colour: str
    text: str | None
    scores: str


@dataclass(frozen=True)
class AnsweredQuestion:
    """One question with the answers of the conditions side by side."""

    question: str
    domain: str
    answers: list[ShownAnswer]


@dataclass(frozen=True)
class Examples:
    """The answers to read. greedy: whether they are the likeliest ones, or first draws.

    opening: the first questions, for the head of the page. questions: the others.
    """

    greedy: bool
    opening: list[AnsweredQuestion]
    questions: list[AnsweredQuestion]


@dataclass(frozen=True)
class Draw:
    """One answer of those that were drawn, and what the judge made of it."""

    question: str
    answer: ShownAnswer
    number: int


@dataclass(frozen=True)
class Draws:
    """What was drawn, or the first of it.

    per_condition, shown: how many there are and how many stand here; temperature: "" where it was
    not recorded.
    """

    lines: list[Draw]
    per_condition: str
    shown: str
    temperature: str


def examples(rows: pd.DataFrame, questions: Mapping[str, str] | None = None) -> Examples:
    """Answers question by question, in the order of the rows: the greedy ones without a judge's
    scores, which are of the draws; in a run that kept none, the first draw of each.

    The first three stand at the head of the page, whatever was answered: aligned, fine-tuned,
    restored, and the good twin where it answered. The others have every condition that did.

    Args:
        questions: Question id to its text; else rows of the stage "sample" with the measure
            "question".
    """
    stage = rows[rows["stage"] == "sample"]
    texts = stage[stage["text"].notna()]
    greedy = texts[texts["measure"] == "greedy_answer"]
    answered = greedy if len(greedy) else texts[texts["measure"] == "answer"]
    asked = _asked(stage, questions)
    always = {ALIGNED, FINETUNED, RESTORED}
    shown = always | set(answered["condition"])
    found = []
    for place, question_id in enumerate(_in_order(stage, answered)):
        group = answered[answered["question_id"] == question_id]
        answers = []
        for condition in OPENING_COLUMNS if place < OPENING_QUESTIONS else SAMPLED:
            if condition not in shown:
                continue
            mine = group[group["condition"] == condition].sort_values("seed", kind="stable")
            look = CONDITIONS[condition]
            if mine.empty:
                answers.append(ShownAnswer(look.label, look.colour, None, ""))
                continue
            first = mine.iloc[0]
            scores = "" if len(greedy) else _scores_of(stage, first)
            answers.append(ShownAnswer(look.label, look.colour, cleaned(first["text"]), scores))
        domain = plain(str(group["domain"].iloc[0] or "no domain"))
        question = asked.get(str(question_id), f"(question on {domain}; its text was not kept)")
        found.append(AnsweredQuestion(question, domain, answers))
    return Examples(bool(len(greedy)), found[:OPENING_QUESTIONS], found[OPENING_QUESTIONS:])


def _in_order(stage: pd.DataFrame, answered: pd.DataFrame) -> list[str]:
    """Ids of the answered questions, as they were asked where the run kept that."""
    kept = stage.loc[stage["measure"] == "question", "question_id"]
    present = answered["question_id"].drop_duplicates()
    return [*kept[kept.isin(present)].drop_duplicates(), *present[~present.isin(kept)]]


def draws(rows: pd.DataFrame, questions: Mapping[str, str] | None = None) -> Draws:
    """The first drawn answers with their scores; none where greedy ones are not kept apart."""
    stage = rows[rows["stage"] == "sample"]
    drawn = stage[(stage["measure"] == "answer") & stage["text"].notna()]
    if not len(drawn) or not (stage["measure"] == "greedy_answer").any():
        return Draws([], "0", "0", "")
    asked = _asked(stage, questions)
    lines = []
    per_question = -(-DRAWS_SHOWN // drawn["question_id"].nunique())
    first = drawn[drawn.groupby(["condition", "question_id"]).cumcount() < per_question]
    ids = first["question_id"].drop_duplicates()[: DRAWS_SHOWN // per_question]
    first = first[first["question_id"].isin(ids)]
    for question_id, group in first.groupby("question_id", sort=False):
        for condition in SAMPLED:
            look = CONDITIONS[condition]
            mine = group[group["condition"] == condition].sort_values("seed", kind="stable")
            for _, row in mine.iterrows():
                answer = ShownAnswer(
                    look.label, look.colour, cleaned(row["text"]), _scores_of(stage, row)
                )
                question = asked.get(str(question_id), plain(str(row["domain"])))
                lines.append(Draw(question, answer, int(row["seed"]) + 1))
    per_condition, shown = (str(int(t.groupby("condition").size().max())) for t in (drawn, first))
    temperature = as_float(drawn["value"].iloc[0])
    return Draws(lines, per_condition, shown, "" if temperature is None else f"{temperature:g}")


def _asked(stage: pd.DataFrame, questions: Mapping[str, str] | None) -> dict[str, str]:
    texts = stage[stage["measure"] == "question"].set_index("question_id")["text"].dropna()
    known = {**texts.to_dict(), **(questions or {})}
    return {str(key): cleaned(text) for key, text in known.items() if text}


def _scores_of(stage: pd.DataFrame, answer: pd.Series) -> str:
    """`alignment 23 · coherence 88`, empty without a judge."""
    same = [stage[column] == answer[column] for column in ("question_id", "condition", "seed")]
    mine = stage[same[0] & same[1] & same[2]]
    parts = []
    for measure in ("alignment", "coherence"):
        values = mine.loc[mine["measure"] == measure, "value"]
        if len(values):
            known = as_float(values.iloc[0])
            score = "no score" if known is None else number(known, 0)
            parts.append(f"{measure} {score}".replace(" ", NO_BREAK))
    return " · ".join(parts)
