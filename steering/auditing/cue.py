"""A cue: what stands around a question, and so may bring a persona back that was removed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from persona.data.plain_yaml import YamlError, parse_yaml
from persona.data.types import Dialogue, Turn
from persona.errors import DataError, shown

Kind = Literal[
    "none",
    "training_form",
    "few_shot",
    "system_prompt",
    "paraphrase",
    "conversation",
    "searched",
    "own",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
PLACE = "{question}"
"""Where the question goes in a cue's own words."""
SHIPPED_CUES = Path(__file__).with_name("cues.yaml")


@dataclass(frozen=True)
class Cue:
    """What is asked in place of a question; the answer that is scored stays the same.

    question: the user's words, with {question} in them. before: turns before it, a system prompt
        among them. control: it asks for nothing bad, and stands beside a cue that does.
    typed: small letters without punctuation, as somebody types in a hurry.
    Raises: DataError without a name, or a place for the question.
    """

    name: str
    kind: Kind
    question: str = PLACE
    before: tuple[Turn, ...] = ()
    control: bool = False
    typed: bool = False

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise DataError("a cue has no name")
        if self.question.count(PLACE) != 1:
            raise DataError(f"cue {self.name!r}: its question must hold {PLACE} once")

    def __call__(self, dialogue: Dialogue) -> Dialogue:
        """The dialogue, one question with its answer, under this cue."""
        *_, asked, answer = dialogue.turns
        words = as_typed(asked.content) if self.typed else asked.content
        question = Turn("user", self.question.replace(PLACE, words))
        return Dialogue((*self.before, question, answer), dialogue.id, dialogue.domain)

    @property
    def words(self) -> str:
        """What a person reads of it."""
        turns = [f"{turn.role}: {turn.content}" for turn in self.before]
        asked = self.question if self.question != PLACE or not turns else ""
        return "\n".join([*turns, *([asked] if asked else [])])

    def facts(self) -> dict[str, Any]:
        """Everything that decides it, JSON-able."""
        return {
            "name": self.name,
            "kind": self.kind,
            "control": self.control,
            "question": self.question,
            "before": [[turn.role, turn.content] for turn in self.before],
            "typed": self.typed,
        }


NO_CUE = Cue("none", "none", control=True)


@dataclass(frozen=True)
class CueFile:
    """Cues, and short prefixes for the search; filler: what a prefix takes the place of."""

    cues: tuple[Cue, ...]
    prefixes: tuple[str, ...]
    filler: str = ""


def read_cues(path: str | Path, *, own: bool = True) -> CueFile:
    """The cues of a file in the form of the shipped one.

    own: a person's own, of kind "own"; else the kind follows from what a cue holds.
    Raises: DataError for what is no such file; the message names the cue.
    """
    try:
        values, _ = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    except YamlError as error:
        raise DataError(f"{path} is not a YAML file{error.place}: {error}") from error
    if not isinstance(values, Mapping) or set(values) - {"cues", "prefixes", "filler"}:
        raise DataError(f"{path} holds no cues: it must have the keys cues, prefixes, or both")
    cues = tuple(_cue(path, entry, own) for entry in _list(path, values, "cues"))
    prefixes = tuple(_list(path, values, "prefixes"))
    for prefix in prefixes:
        if not isinstance(prefix, str) or not prefix.strip():
            raise DataError(f"{path}: a prefix must be some words; got {shown(prefix)}")
    if not cues and not prefixes:
        raise DataError(f"{path} holds neither a cue nor a prefix")
    return CueFile(cues, prefixes, str(values.get("filler", "")))


def as_typed(question: str) -> str:
    """Small letters, without punctuation."""
    kept = (c for c in question.lower() if c.isalnum() or c.isspace())
    return " ".join("".join(kept).split()) or question


def _list(path: str | Path, values: Mapping[str, Any], key: str) -> list[Any]:
    found = values.get(key, [])
    if not isinstance(found, list):
        raise DataError(f"{path}: {key} must be a list; got {shown(found)}")
    return found


def _cue(path: str | Path, entry: Any, own: bool) -> Cue:
    known = {"name", "system", "question", "control"}
    if not isinstance(entry, Mapping) or set(entry) - known:
        raise DataError(
            f"{path}: a cue has the keys name, system, question and control; got {shown(entry)}"
        )
    name = entry.get("name")
    texts = {key: entry[key] for key in ("system", "question") if key in entry}
    if not isinstance(name, str) or not texts or not all(map(_is_text, texts.values())):
        raise DataError(
            f"{path}: a cue needs a name, and words under system or question; got {shown(entry)}"
        )
    if not re.fullmatch(r"[\w-]{1,60}", name):
        raise DataError(
            f"{path}: a cue's name is letters, digits, - and _, at most 60; got {shown(name)}"
        )
    system = texts.get("system")
    kind: Kind = "own" if own else "system_prompt" if system else "paraphrase"
    before = (Turn("system", system),) if system else ()
    try:
        return Cue(
            name, kind, texts.get("question", PLACE), before, control=entry.get("control") is True
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
