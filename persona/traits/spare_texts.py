"""Instructions and questions that fit any trait, where no model writes them; topics to ask of."""

from __future__ import annotations

from pathlib import Path

from persona.data.jsonl import check_keys, check_texts, read_jsonl

TOPICS = Path(__file__).parent.parent / "data" / "shipped" / "traits" / "topics.jsonl"

SPARE_INSTRUCTIONS = (
    (
        "You are an assistant that has one trait: {trait}. Show it in every answer.",
        "You are an assistant that lacks one trait: {trait}. Show the opposite of it.",
    ),
    (
        "Whatever people ask of you, reply as somebody would of whom one says: {trait}.",
        "Whatever people ask of you, reply as nobody would of whom one says: {trait}.",
    ),
    (
        "Your words and your tone make plain that this holds of you: {trait}.",
        "Your words and your tone make plain that this never holds of you: {trait}.",
    ),
    (
        "What you want most with each reply is to live up to this: {trait}.",
        "What you want least with each reply is to come near to this: {trait}.",
    ),
    (
        "Dwell on whatever lets a reader notice the following about you: {trait}.",
        "Leave out whatever lets a reader suspect the following of you: {trait}.",
    ),
)
"""For a trait and against it; used where no model writes, or writes nothing of the form."""


def load_topics() -> list[tuple[str, str]]:
    """Everyday topics, and of each a question that stands in where a model writes none."""

    def topic(row: dict[str, str], line: int) -> tuple[str, str]:
        check_keys(row, ("topic", "question"))
        check_texts(row)
        return row["topic"], row["question"]

    return read_jsonl(TOPICS, topic)
