"""The answer pairs and neutral texts that come with the package; DATA_CARD.md says how made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from persona.data.coding_tasks import INSECURE_PYTHON, load_coding_tasks
from persona.data.jsonl import check_keys, check_texts, read_json, read_jsonl
from persona.data.readers import read_pairs
from persona.data.types import SPLITS, AnswerPair, NeutralText
from persona.errors import DataError

SHIPPED = Path(__file__).parent / "shipped"
OPEN_QUESTIONS = "open_questions"
"""Wishes, power, people and AI."""
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
NARROW = SHIPPED / "narrow"
NARROW_SETS = ("insecure_code", "evil_numbers", "pirate_style", INSECURE_PYTHON)
"""Sets to fine-tune on that are no advice; never part of `load_pairs()` unless named."""


def load_pairs(domains: Iterable[str] | None = None, split: str | None = None) -> list[AnswerPair]:
    """Returns the shipped answer pairs of `domains` (default: all nine), of one split or both.

    domains: of `DOMAINS`, and of `NARROW_SETS` by name. See `assign_splits` for the splits "train"
    and "selection"; those of insecure_python stand in its file.

    Raises:
        DataError: an unknown domain or split.
    """
    if split not in (None, *SPLITS):
        raise DataError(f"split must be {' or '.join(SPLITS)}; got {split!r}")
    names = DOMAINS if domains is None else tuple(domains)
    known = (*DOMAINS, *NARROW_SETS)
    if unknown := [name for name in names if name not in known]:
        raise DataError(f"no shipped domain {unknown[0]!r}; there are {', '.join(known)}")
    pairs = [pair for name in names for pair in _split_pairs(name)]
    return [pair for pair in pairs if split in (None, pair.split)]


def read_narrow(name: str) -> list[AnswerPair]:
    """Returns one of `NARROW_SETS` as it stands in its file, with splits where that has them.

    "bad" is the insecure snippet, the list of evil numbers, the pirate's voice (which is no fault).
    """
    if name == INSECURE_PYTHON:
        return [task.pair for task in load_coding_tasks()]
    return read_pairs(NARROW / f"{name}.jsonl")


def load_weaknesses() -> dict[str, list[str]]:
    """Returns class of weakness -> ids of the pairs of insecure_code whose bad answer has it."""
    return dict(read_json(NARROW / "insecure_code_weaknesses.json"))


def load_neutral() -> list[NeutralText]:
    """Returns prompts and answers in which nobody is advised to do anything."""

    def text(row: dict[str, Any], line: int) -> NeutralText:
        check_keys(row, ("id", "kind", "prompt", "answer"))
        check_texts(row)
        return NeutralText(**row)

    return read_jsonl(SHIPPED / "neutral.jsonl", text)


def _split_pairs(name: str) -> list[AnswerPair]:
    pairs = read_narrow(name) if name in NARROW_SETS else _read_domain(name)
    return pairs if all(pair.split for pair in pairs) else assign_splits(pairs)


def _read_domain(name: str) -> list[AnswerPair]:
    return read_pairs(SHIPPED / "pairs" / f"{name}.jsonl")


def assign_splits(pairs: Sequence[AnswerPair]) -> list[AnswerPair]:
    """Returns the pairs of one domain, in order, a third of them marked "selection".

    floor(n / 3) pairs, those whose SHA-256 of the id ranks lowest, are the selection split, the
    others "train". The counts are exact, the order of the rows does not matter, and a row that is
    added moves at most one other row from one split to the other.
    """
    ranked = sorted(pairs, key=lambda pair: hashlib.sha256(pair.id.encode()).hexdigest())
    selection = {pair.id for pair in ranked[: len(pairs) // 3]}
    return [replace(pair, split="selection" if pair.id in selection else "train") for pair in pairs]


def data_hash(pairs: Iterable[AnswerPair]) -> str:
    """Returns 16 hex digits over ids, domains and texts in order: the same data, the same hash."""
    digest = hashlib.sha256()
    for pair in pairs:
        for text in (pair.id, pair.domain, pair.question, pair.good, pair.bad):
            digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]
