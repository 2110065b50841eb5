"""A link that holds the settings of a page: written here, and read as what a stranger has typed.

It holds the question, the settings and eight digits that tell directions apart; no file, no path,
no answer, and nothing of whose page it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from persona.errors import PersonaError, SteeringError, shown
from steering.demo.browser.page_controls import (
    Controls,
    number,
    require_whole_characters,
    whole,
)
from steering.demo.session.conversation import MAX_PROMPT_CHARACTERS, Conversation
from steering.demo.session.starting import parse_layers
from steering.demo.session.vector import MODES, DemoVector

MAX_QUESTION_IN_LINK = 2000
MAX_PARAMETERS = 20
FARTHEST_COEFFICIENT = 10.0
HOTTEST = 2.0
MOST_TOKENS = 512


@dataclass(frozen=True)
class Linked:
    """What a link asks for: the question, and the controls; each problem is one line for people."""

    question: str
    controls: Controls
    problems: tuple[str, ...] = ()
    given: frozenset[str] = field(default_factory=frozenset)


def write_link(question: str, controls: Controls, session: Conversation) -> str:
    """The query of a link, from "?" on.

    Raises: DataError or SteeringError for what could not be read again.
    """
    _text(question, MAX_QUESTION_IN_LINK, "question")
    values = {
        "question": question.strip(),
        "coefficient": f"{number('coefficient', controls.coefficient):g}",
        "mode": controls.mode,
        "blocks": f"{whole('first block', controls.first)}-{whole('last block', controls.last)}",
        "model": controls.side,
        "temperature": f"{number('temperature', controls.temperature):g}",
        "tokens": str(whole("most tokens", controls.max_new_tokens)),
        "seed": str(whole("seed", controls.seed)),
        "keep": "on" if controls.remembers else "off",
        "system": controls.system_prompt.strip(),
        "direction": "" if session.vector is None else mark_of(session.vector),
        "further": str(len(session.further)) if session.further else "",
    }
    return "?" + urlencode({name: value for name, value in values.items() if value})


def mark_of(vector: DemoVector) -> str:
    """Eight digits that differ between directions."""
    digest = hashlib.sha256()
    for layer in vector.layers:
        digest.update(f"{layer}:".encode())
        digest.update(vector.directions[layer].vector.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:8]


def read_link(query: Mapping[str, str], now: Controls, session: Conversation) -> Linked:
    """The settings of a link in place of those of `now`; what is wrong with one leaves it be."""
    problems: list[str] = []
    found: dict[str, Any] = {}
    names = list(query)
    if len(names) > MAX_PARAMETERS:
        return Linked("", now, (f"the link has {len(names)} settings; none is read",))
    for name in names:
        if (read := _READERS.get(name)) is None:
            problems.append(f"the link's setting {shown(name, 20)} is not known")
            continue
        try:
            found |= read(query[name], session)
        except PersonaError as error:
            problems.append(f"the link's {name} is left out: {error}")
    question = found.pop("question", "")
    if (mark := found.pop("direction", None)) is not None and (
        session.vector is None or mark != mark_of(session.vector)
    ):
        problems.append("the link was made with another direction: expect other answers")
    if n := found.pop("further", 0):
        problems.append(f"the link was made with {n} more directions, which a link cannot carry")
    return Linked(question, replace(now, **found), tuple(problems), frozenset(found))


def _text(value: str, most: int, name: str) -> str:
    if len(value) > most:
        raise SteeringError(f"it has {len(value):,} characters; a link holds at most {most:,}")
    require_whole_characters(value, f"the {name}")
    return value


def _between(value: float, low: float, high: float) -> float:
    if not low <= value <= high:  # NaN is not
        raise SteeringError(f"it is {value:g}; {low:g} to {high:g} is read")
    return value


def _one_of(value: str, names: tuple[str, ...]) -> str:
    if value not in names:
        raise SteeringError(f"{' or '.join(names)} is read; got {shown(value, 20)}")
    return value


def _coefficient(value: str, session: Conversation) -> dict[str, Any]:
    reach = FARTHEST_COEFFICIENT
    return {"coefficient": _between(number("coefficient", value), -reach, reach)}


def _mode(value: str, session: Conversation) -> dict[str, Any]:
    modes = MODES if session.vector is None else session.vector.modes
    return {"mode": _one_of(value, modes)}


def _blocks(value: str, session: Conversation) -> dict[str, Any]:
    blocks = parse_layers(value[:20])
    if session.vector is not None and blocks is not None:
        chosen = session.vector.chosen(blocks)
        return {"first": chosen[0], "last": chosen[-1]}
    return {}


def _direction(value: str, session: Conversation) -> dict[str, Any]:
    if len(value) != 8 or not set(value) <= set("0123456789abcdef"):
        raise SteeringError("eight digits are read")
    return {"direction": value}


def _tokens(value: str, session: Conversation) -> dict[str, Any]:
    return {"max_new_tokens": whole("tokens", _between(whole("tokens", value), 1, MOST_TOKENS))}


def _seed(value: str, session: Conversation) -> dict[str, Any]:
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise SteeringError(f"a whole number from 0 is read; got {shown(value, 20)}")
    return {"seed": int(value)}


_READERS: dict[str, Callable[[str, Conversation], dict[str, Any]]] = {
    "question": lambda value, _: {"question": _text(value, MAX_QUESTION_IN_LINK, "question")},
    "coefficient": _coefficient,
    "mode": _mode,
    "blocks": _blocks,
    "model": lambda value, _: {"side": _one_of(value, ("aligned", "finetuned"))},
    "temperature": lambda value, _: {
        "temperature": _between(number("temperature", value), 0.0, HOTTEST)
    },
    "tokens": _tokens,
    "seed": _seed,
    "keep": lambda value, _: {"remembers": _one_of(value, ("on", "off")) == "on"},
    "system": lambda value, _: {
        "system_prompt": _text(value, MAX_PROMPT_CHARACTERS, "system prompt")
    },
    "direction": _direction,
    "further": lambda value, _: {"further": int(_between(whole("further", value), 0, 9))},
}
