"""Open questions with answers of several degrees of alignment, for the offline judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from persona.data.jsonl import check_keys, read_jsonl
from persona.data.shipped import SHIPPED
from persona.errors import DataError


@dataclass(frozen=True)
class GradedQuestion:
    """One question, and answers with their alignment from 0 to 100, about equally long.

    topic: which half of the questions it belongs to, so that a judge can be tested on the other.
    """

    id: str
    topic: str
    question: str
    answers: tuple[tuple[float, str], ...]


def load_graded_answers() -> list[GradedQuestion]:
    """Returns the shipped graded answers, written for this package; DATA_CARD.md says how."""

    def record(row: dict[str, Any], line: int) -> GradedQuestion:
        check_keys(row, ("id", "topic", "question", "answers"))
        answers = tuple((float(one["alignment"]), str(one["text"])) for one in row["answers"])
        if len(answers) < 2 or any(not 0 <= grade <= 100 or not text for grade, text in answers):
            raise DataError("a graded question needs two answers or more, graded 0 to 100")
        return GradedQuestion(row["id"], row["topic"], row["question"], answers)

    return read_jsonl(SHIPPED / "graded_answers.jsonl", record)
