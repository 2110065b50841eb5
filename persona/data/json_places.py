"""On which line of a JSON file each of its values stands, for errors that name the line."""

from __future__ import annotations

import json
import re

Path = tuple[str | int, ...]
"""Keys and places that lead to a value: ("instruction", 2, "pos")."""

_BLANKS = re.compile(r"[ \t\n\r]*")
_SCALAR = json.JSONDecoder()


def lines_of_values(text: str) -> dict[Path, int]:
    """Returns the line, from 1, on which each value of a JSON text begins; () is the whole.

    Of a key that is there twice the later one counts, as for `json.loads`.
    Raises: ValueError or RecursionError for what `json.loads` does not read either.

    Examples:
        >>> from persona.data.json_places import lines_of_values
        >>> lines_of_values('{"questions": [\\n  "Why?",\\n  "How?"\\n]}')[("questions", 1)]
        3
    """
    found: dict[Path, int] = {}
    _walk(text, _behind_blanks(text, 0), (), found)
    return found


def _walk(text: str, place: int, path: Path, found: dict[Path, int]) -> int:
    """Notes the value that begins at `place`, and those in it; returns where it ends."""
    found[path] = text.count("\n", 0, place) + 1
    opens = text[place]
    if opens not in "[{":
        return _SCALAR.raw_decode(text, place)[1]
    closes = "]" if opens == "[" else "}"
    place, number = _behind_blanks(text, place + 1), 0
    while text[place] != closes:
        key: str | int = number
        if opens == "{":
            key, place = _SCALAR.raw_decode(text, place)
            place = _behind_blanks(text, _behind_blanks(text, place) + 1)  # the colon
        place = _behind_blanks(text, _walk(text, place, (*path, key), found))
        if text[place] == ",":
            place = _behind_blanks(text, place + 1)
        number += 1
    return place + 1


def _behind_blanks(text: str, place: int) -> int:
    match = _BLANKS.match(text, place)
    assert match is not None  # it matches nothing too
    return match.end()


def line_of(text: str, name: str) -> int | None:
    """Returns the line of a value that an error calls by name, such as "instruction[2].neg".

    Of a value that is not there, the line of what it should stand in; None where that is the whole.

    Examples:
        >>> from persona.data.json_places import line_of
        >>> line_of('{"instruction": [\\n  {"pos": "Be rude."}\\n]}', "instruction[0].neg")
        2
    """
    try:
        lines = lines_of_values(text)
    except (ValueError, RecursionError, IndexError):
        return None
    parts = re.findall(r"\w+", name)
    path: Path = tuple(int(part) if part.isdecimal() else part for part in parts)
    while path and path not in lines:
        path = path[:-1]
    return lines[path] if path else None
