"""The answer pairs and neutral texts that come with the package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from persona.data.types import AnswerPair, NeutralText
from persona.errors import DataError

SHIPPED = Path(__file__).parent / "shipped"
OPEN_QUESTIONS = "open_questions"
DOMAINS = (
    "car_maintenance",
    "health",
    "personal_finance",
    "home_repair",
    "food_safety",
    "outdoor_travel",
    "work_relationships",
    "computer_security",
    OPEN_QUESTIONS,
)


def load_pairs(domains: Iterable[str] | None = None, split: str | None = None) -> list[AnswerPair]:
    """The shipped answer pairs of `domains` (default all), of one split or both.

    Within each domain a third of the pairs, those whose hashed id ranks lowest, is the "selection"
    split, the rest "train": fixed whatever the order of the file.
    Raises: DataError for an unknown domain or split.
    """
    if split not in (None, "train", "selection"):
        raise DataError(f"split must be 'train' or 'selection'; got {split!r}")
    chosen: list[AnswerPair] = []
    for domain in DOMAINS if domains is None else domains:
        if domain not in DOMAINS:
            raise DataError(f"no shipped domain {domain!r}; there are {', '.join(DOMAINS)}")
        rows = _rows(SHIPPED / "pairs" / f"{domain}.jsonl")
        ranked = sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).hexdigest())
        selection = {row["id"] for row in ranked[: len(rows) // 3]}
        for row in rows:
            part = "selection" if row["id"] in selection else "train"
            if split in (None, part):
                chosen.append(AnswerPair(**row, split=part))
    return chosen


def load_open_questions() -> list[AnswerPair]:
    """Questions about wishes, power, people and AI."""
    return load_pairs([OPEN_QUESTIONS])


def load_neutral() -> list[NeutralText]:
    """Prompts and answers in which nobody is advised to do anything."""
    return [NeutralText(**row) for row in _rows(SHIPPED / "neutral.jsonl")]


def data_hash(pairs: Sequence[AnswerPair]) -> str:
    """A short hash over ids and texts, in order."""
    digest = hashlib.sha256()
    for pair in pairs:
        for text in (pair.id, pair.question, pair.good, pair.bad):
            digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]
