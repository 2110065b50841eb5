"""Whether two runs are the same: a fingerprint of what decides one, and what differs in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from persona.errors import DataError, shown

LAYOUT = 3
"""Of what unfinished runs keep; raised when that of an older version would be misread."""


def fingerprint_of(*facts: Any) -> str:
    """16 hex digits of SHA-256 over arrays and JSON-able values; the order of keys is none."""
    parts = (
        np.ascontiguousarray(fact).tobytes()
        if isinstance(fact, np.ndarray)
        else json.dumps(fact, sort_keys=True, default=str).encode()
        for fact in facts
    )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def require_same(record: Path, now: Mapping[str, Any], what: str) -> None:
    """Holds what a run is against what an earlier one wrote of itself beside its results.

    record: a JSON object; keys that `now` lacks do not count. what: what the earlier run made.
    Raises: DataError, with the first three that differ, or for another version's LAYOUT;
        ValueError for a damaged record.
    """
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        same = json.loads(json.dumps(now, default=str))
        changed = list(differences(same, {key: found.get(key) for key in same}))
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{record} is damaged") from error
    if changed:
        how = (
            "by another version of personascope"
            if found.get("layout") != same.get("layout")
            else f"with other settings ({'; '.join(changed[:3])})"
        )
        raise DataError(
            f"{record.parent} holds {what} that was started {how}; choose another --out, or remove "
            "that folder"
        )


def differences(new: Any, old: Any, name: str = "") -> Iterator[str]:
    """Yields "NAME is OLD there and NEW now" for every value in which two settings differ.

    new, old: JSON-able values; nested ones are named with dots, those of one alone are None in
        the other.

    Examples:
        >>> from persona.fingerprint import differences
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
