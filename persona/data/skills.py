"""Harmless skills to teach beside a persona: what is learnt is scored in words never trained on.

A removal that takes a persona must leave such a skill alone. Two come along, written for this
package; DATA_CARD.md says how. `facts`: what is true of an invented product and an invented town,
far from advice. `checklist`: advice in a fixed form, the kind of text that turned bad.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from persona.data.jsonl import check_keys, check_texts, read_jsonl
from persona.data.shipped import SHIPPED
from persona.data.text import as_question, in_one_form, why_no_text
from persona.data.types import Dialogue, Turn
from persona.errors import DataError, shown

SKILLED = SHIPPED / "skills"
SKILLS = ("checklist", "facts")
"""Those that come along."""
CHOOSING = 1 / 3
"""Share of the items with held-out questions that choose."""
SkillSplit = Literal["train", "held_out"]
SKILL_SPLITS: tuple[SkillSplit, ...] = get_args(SkillSplit)


@dataclass(frozen=True)
class SkillItem:
    """One thing to know or to be able to do, and the questions that ask for it.

    train: the questions that are trained on. held_out: others for the same answer, only scored.
    right: the answer. wrong: answers of the same form that are not, for a forced choice; none
        where the skill has none.
    """

    id: str
    domain: str
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    right: str
    wrong: tuple[str, ...] = ()

    def questions(self, split: SkillSplit) -> tuple[str, ...]:
        """The wordings of one split."""
        return self.train if split == "train" else self.held_out

    def answered(self, question: str, answer: str) -> Dialogue:
        """A question with an answer."""
        return Dialogue((Turn("user", question), Turn("assistant", answer)), self.id, self.domain)


@dataclass(frozen=True)
class Skill:
    """A skill by its items, each with an id of its own; all of them have wrong answers, or none."""

    name: str
    items: tuple[SkillItem, ...]

    @property
    def has_choice(self) -> bool:
        """Whether there are wrong answers to choose from."""
        return bool(self.items[0].wrong)

    @property
    def training_dialogues(self) -> list[Dialogue]:
        """What teaches the skill: every training question with its right answer."""
        return [item.answered(q, item.right) for item in self.items for q in item.train]

    def questions(self, *splits: SkillSplit) -> list[str]:
        """All wordings of some splits (default: both), item after item."""
        return [q for item in self.items for s in splits or SKILL_SPLITS for q in item.questions(s)]

    def divided(self) -> DividedSkill:
        """The items that may choose a removal, and those that score it; see `DividedSkill`.

        By the rank of a hash of the id, so that the order of the items does not matter.
        """
        able = [item.id for item in self.items if item.held_out]
        ranked = sorted(able, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        choosing = set(ranked[: round(CHOOSING * len(ranked))])
        taught_only = set(able).symmetric_difference(item.id for item in self.items)

        def part(ids: set[str]) -> Skill:
            return Skill(self.name, tuple(item for item in self.items if item.id in ids))

        return DividedSkill(
            lessons=part(choosing | taught_only),
            chooses=part(choosing),
            scores=part({item.id for item in self.items} - choosing),
        )

    @property
    def hash(self) -> str:
        """16 hex digits over all texts in order: the same skill, the same hash."""
        digest = hashlib.sha256()
        for item in self.items:
            for part in ((item.id, item.domain, item.right), item.wrong, item.train, item.held_out):
                digest.update(repr(part).encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class DividedSkill:
    """A skill in parts, so that nothing that chooses a removal scores it.

    lessons: items that directions are made of: those that choose, and those without a held-out
        question. chooses: a third of the items with held-out questions. scores: all items but
        those; the ones without held-out questions are read in the words they were trained in.
    """

    lessons: Skill
    chooses: Skill
    scores: Skill


def load_skill(path_or_name: str | Path) -> Skill:
    """Returns one of `SKILLS` by its name, or the skill in a JSONL file.

    A line holds `right`, and questions in `train`, in `held_out` or in both; `wrong` (a list), `id`
    (default file and line) and `domain` (default the file) may be left out.

    Raises:
        DataError: there is no such skill or file; or, with file and line, a row is malformed, has
            an empty text, no question, a right answer among the wrong ones, wrong answers where
            other rows have none, or asks what an earlier row asks.

    Examples:
        >>> from persona.data import load_skill
        >>> skill = load_skill("facts")
        >>> skill.items[0].right
        'The river in Tarnquill is called the Essel.'
    """
    if str(path_or_name) in SKILLS:
        return Skill(str(path_or_name), _read_items(SKILLED / f"{path_or_name}.jsonl"))
    try:
        path = Path(path_or_name).expanduser()
        missing = not path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # no such user, a NUL
        raise DataError(f"{shown(str(path_or_name), 200)} names no skill ({error})") from error
    if missing:
        raise DataError(
            f"no skill {shown(str(path_or_name), 200)}; pass a JSONL file, or one of "
            f"{', '.join(SKILLS)}"
        )
    return Skill(path.stem, _read_items(path))


def _read_items(path: Path) -> tuple[SkillItem, ...]:
    ids: dict[str, int] = {}
    asked: dict[str, int] = {}
    choices: dict[bool, int] = {}

    def item(row: dict[str, Any], line: int) -> SkillItem:
        check_keys(row, ("right",), ("id", "domain", "wrong", *SKILL_SPLITS))
        check_texts({key: row[key] for key in ("right", "id", "domain") if key in row})
        made = SkillItem(
            id=row.get("id", f"{path.stem}-{line:03d}"),
            domain=row.get("domain", path.stem),
            train=_texts(row, "train"),
            held_out=_texts(row, "held_out"),
            right=row["right"],
            wrong=_texts(row, "wrong"),
        )
        _check_item(made)
        earlier = ids.setdefault(made.id, line)
        if earlier != line:
            raise DataError(f"id {shown(made.id)} is already used in line {earlier}")
        for question in (*made.train, *made.held_out):
            # Also within a row: a question that is trained on must not be scored as another wording
            if as_question(question) in asked:
                raise DataError(
                    f"{shown(question)} is already asked in line {asked[as_question(question)]}"
                )
            asked[as_question(question)] = line
        choices.setdefault(bool(made.wrong), line)
        if len(choices) > 1:
            with_them, without = choices[True], choices[False]
            raise DataError(
                f"line {with_them} has wrong answers and line {without} has none; give them in "
                "every row or in none"
            )
        return made

    return tuple(read_jsonl(path, item))


def _texts(row: dict[str, Any], key: str) -> tuple[str, ...]:
    """The list of texts under a key; none where it is not there."""
    values = row.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{key} must be a list of texts; got {shown(values)}")
    return tuple(values)


def _check_item(item: SkillItem) -> None:
    """Raises: DataError for a text that is none, no question, or an answer that comes twice."""
    if not item.train and not item.held_out:
        raise DataError("there is no question; train, held_out or both must hold some")
    parts: dict[str, Sequence[str]] = {
        "id": (item.id,),
        "domain": (item.domain,),
        "train": item.train,
        "held_out": item.held_out,
        "right": (item.right,),
        "wrong": item.wrong,
    }
    for key, texts in parts.items():
        for text in texts:
            if why := why_no_text(text):
                raise DataError(f"{key} {why}")
    seen = {in_one_form(item.right)}
    for answer in item.wrong:
        if in_one_form(answer) in seen:
            raise DataError(f"the answer {shown(answer)} stands there twice")
        seen.add(in_one_form(answer))
