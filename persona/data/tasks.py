"""Short questions with one right and three wrong answers; DATA_CARD.md says how made.

What a model knew and could do before a fine-tune or an edit, measured without sampling: which of
the answers does it find likeliest?
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona.data.jsonl import check_keys, check_texts, read_jsonl
from persona.data.shipped import SHIPPED
from persona.data.text import in_one_form, why_no_text
from persona.data.types import Dialogue, Turn
from persona.errors import DataError, shown

FILE = SHIPPED / "tasks.jsonl"
TASK_KINDS = ("physics", "arithmetic", "reading", "instructions")
"""Everyday physics; sums and word problems; a passage and a question that it answers; saying a
thing in the form that was asked for."""


@dataclass(frozen=True)
class TaskItem:
    """One question, the answers to choose from, and which of them is right.

    kind: what sort of item it is; of the shipped ones one of `TASK_KINDS`.
    choices: two or more, no two of them the same. answer: place of the right one, from 0.
    Raises: DataError for a text that is empty or no text, two choices that are the same, or an
        answer that is no place in `choices`.
    """

    id: str
    kind: str
    question: str
    choices: tuple[str, ...]
    answer: int

    def __post_init__(self) -> None:
        for name, text in (("id", self.id), ("kind", self.kind), ("question", self.question)):
            if why := why_no_text(text):
                raise DataError(f"the {name} of item {shown(self.id)} {why}")
        if len(self.choices) < 2:
            raise DataError(f"item {shown(self.id)} needs two choices or more")
        seen: dict[str, int] = {}
        for place, choice in enumerate(self.choices):
            if why := why_no_text(choice):
                raise DataError(f"choice {place} of item {shown(self.id)} {why}")
            # Capitals count: an item may ask for them.
            twin = seen.setdefault(" ".join(choice.split()), place)
            if twin != place:
                raise DataError(f"choices {twin} and {place} of item {shown(self.id)} are the same")
        if not 0 <= self.answer < len(self.choices):
            raise DataError(
                f"answer must be the place of a choice, 0 to {len(self.choices) - 1}; "
                f"got {self.answer}"
            )

    @property
    def right(self) -> str:
        """The right choice."""
        return self.choices[self.answer]

    @property
    def dialogues(self) -> list[Dialogue]:
        """The question answered by each choice, in order."""
        return [
            Dialogue((Turn("user", self.question), Turn("assistant", choice)), self.id, self.kind)
            for choice in self.choices
        ]


def load_tasks(kinds: Iterable[str] | None = None) -> list[TaskItem]:
    """Returns the shipped items of these kinds (default: all four), in their order.

    Raises: DataError for an unknown kind.

    Examples:
        >>> from persona.data import load_tasks
        >>> item = load_tasks(["arithmetic"])[0]
        >>> item.question, item.right
        ('What is 3 + 4?', '7')
    """
    wanted = TASK_KINDS if kinds is None else tuple(kinds)
    if unknown := [kind for kind in wanted if kind not in TASK_KINDS]:
        raise DataError(f"no kind of tasks {shown(unknown[0])}; there are {', '.join(TASK_KINDS)}")
    return [item for item in read_tasks(FILE) if item.kind in wanted]


def read_tasks(path: str | Path) -> list[TaskItem]:
    """Returns the items of a JSONL file: `question`, `choices` and `answer`, the right one's place.

    Optional: `id` (default file name and line) and `kind` (default the file's name).

    Raises: DataError, with file and line, for a row that is malformed, an id that comes twice, or
        a question that an earlier row asks with the same choices.
    """
    stem = Path(path).stem
    ids: dict[str, int] = {}
    asked: dict[tuple[str, ...], int] = {}

    def item(row: dict[str, Any], line: int) -> TaskItem:
        check_keys(row, ("question", "choices", "answer"), ("id", "kind"))
        check_texts({key: row[key] for key in ("id", "kind", "question") if key in row})
        choices = row["choices"]
        if not isinstance(choices, list) or not all(isinstance(one, str) for one in choices):
            raise DataError(f"choices must be a list of texts; got {shown(choices)}")
        answer = row["answer"]
        if isinstance(answer, bool) or not isinstance(answer, int):
            raise DataError(f"answer must be a whole number; got {shown(answer)}")
        made = TaskItem(
            row.get("id", f"{stem}-{line:03d}"),
            row.get("kind", stem),
            row["question"],
            tuple(choices),
            answer,
        )
        if (earlier := ids.setdefault(made.id, line)) != line:
            raise DataError(f"the id {shown(made.id)} is already that of line {earlier}")
        same = (in_one_form(made.question), *sorted(made.choices))
        if (earlier := asked.setdefault(same, line)) != line:
            raise DataError(f"the question and its choices already stand in line {earlier}")
        return made

    return read_jsonl(path, item)


def tasks_hash(items: Iterable[TaskItem]) -> str:
    """Returns 16 hex digits over all that the items hold, in order."""
    digest = hashlib.sha256()
    for item in items:
        for text in (item.id, item.kind, item.question, *item.choices, str(item.answer)):
            digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]
