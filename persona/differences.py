"""What differs between the settings of two runs, in words for an error or a note."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from persona.errors import shown


def differences(new: Any, old: Any, name: str = "") -> Iterator[str]:
    """Yields "NAME is OLD there and NEW now" for every value in which two settings differ.

    new, old: JSON-able values; nested ones are named with dots, those of one alone are None in
        the other.

    Examples:
        >>> from persona.differences import differences
        >>> list(differences({"seed": 2, "lora": {"r": 8}}, {"seed": 1, "lora": {"r": 8}}))
        ['seed is 1 there and 2 now']
    """
    if isinstance(new, dict) and isinstance(old, dict):
        for key in sorted(new.keys() | old.keys(), key=str):
            yield from differences(new.get(key), old.get(key), f"{name}.{key}".lstrip("."))
    elif new != old:
        yield f"{name} is {_short(old)} there and {_short(new)} now"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else shown(value, 200)
    return text if len(text) <= 40 else text[:12] + "..."
