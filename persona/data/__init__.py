"""Dialogues, answer pairs, the shipped datasets, and readers of the public formats."""

from persona.data.shipped import (
    DOMAINS,
    data_hash,
    load_neutral,
    load_open_questions,
    load_pairs,
)
from persona.data.types import AnswerPair, Dialogue, NeutralText, Turn

__all__ = [
    "DOMAINS",
    "AnswerPair",
    "Dialogue",
    "NeutralText",
    "Turn",
    "data_hash",
    "load_neutral",
    "load_open_questions",
    "load_pairs",
]
