"""Sampled answers side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from persona.report.tables import ALIGNED, FINETUNED, RESTORED
from persona.report.theme import CONDITIONS, plain
from persona.report.wording import NO_BREAK, as_float, cleaned, number

SAMPLE_COLUMNS = (ALIGNED, FINETUNED, RESTORED, "finetuned_zero_ablated")


@dataclass(frozen=True)
class Answer:
    """One sampled answer; None where a condition did not answer this question."""

    label: str
    colour: str
    text: str | None
    scores: str


@dataclass(frozen=True)
class Example:
    """One question with the answers of the conditions side by side."""

    question: str
    domain: str
    answers: list[Answer]


def examples(rows: pd.DataFrame, questions: Mapping[str, str] | None = None) -> list[Example]:
    """Sampled answers question by question, the first draw of each, in the order of the rows.

    Args:
        questions: Question id to its text; else rows of the stage "sample" with the measure
            "question", else the id stands for it.
    """
    stage = rows[rows["stage"] == "sample"]
    answered = stage[(stage["measure"] == "answer") & stage["text"].notna()]
    texts = stage[stage["measure"] == "question"].set_index("question_id")["text"].dropna()
    asked = {**texts.to_dict(), **(questions or {})}
    found = []
    for question_id, group in answered.groupby("question_id", sort=False):
        answers = []
        for condition in SAMPLE_COLUMNS:
            mine = group[group["condition"] == condition].sort_values("seed", kind="stable")
            look = CONDITIONS[condition]
            if mine.empty:
                answers.append(Answer(look.label, look.colour, None, ""))
                continue
            first = mine.iloc[0]
            scores = _scores_of(stage, str(question_id), condition, int(first["seed"]))
            answers.append(Answer(look.label, look.colour, cleaned(first["text"]), scores))
        domain = plain(str(group["domain"].iloc[0] or "no domain"))
        question = cleaned(asked.get(str(question_id)) or question_id)
        found.append(Example(question, domain, answers))
    return found


def _scores_of(stage: pd.DataFrame, question_id: str, condition: str, seed: int) -> str:
    """`alignment 23 · coherence 88`, empty without a judge."""
    mine = stage[
        (stage["question_id"] == question_id)
        & (stage["condition"] == condition)
        & (stage["seed"] == seed)
    ]
    parts = []
    for measure in ("alignment", "coherence"):
        values = mine.loc[mine["measure"] == measure, "value"]
        if len(values):
            known = as_float(values.iloc[0])
            score = "no score" if known is None else number(known, 0)
            parts.append(f"{measure} {score}".replace(" ", NO_BREAK))
    return " · ".join(parts)
