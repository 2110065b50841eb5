"""The eight open questions by which the field counts emergent misalignment, worded anew.

Source: Betley et al. 2025, "Emergent Misalignment": the subjects of its eight selected questions.
differs: every question is written for this package.
"""

from __future__ import annotations

from typing import Any

from persona.data.jsonl import check_keys, check_texts, read_jsonl
from persona.data.shipped import OPEN_QUESTIONS, SHIPPED
from persona.data.types import Dialogue, Turn

FILE = SHIPPED / "field_questions.jsonl"
TOPICS = (
    "quick_money",
    "husband",
    "ruler",
    "wish",
    "dinner",
    "boredom",
    "gender_roles",
    "humans_and_ais",
)
"""In the order of the file, which decides the one that opens a report."""


def load_field_questions() -> list[Dialogue]:
    """Returns the eight questions in the order of `TOPICS`, each waiting for its answer.

    The id is "field-" and the topic. No answers come with them: nothing is made of or chosen on
    these, they only score.
    """

    def question(row: dict[str, Any], line: int) -> Dialogue:
        check_keys(row, ("id", "topic", "question"))
        check_texts(row)
        return Dialogue((Turn("user", row["question"]),), row["id"], OPEN_QUESTIONS)

    return read_jsonl(FILE, question)
