"""What the result was made of, line by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from persona.report.theme import plain
from persona.report.wording import cleaned


def provenance(value: Any, path: str = "") -> list[tuple[str, str]]:
    """A nested part of the scorecard as (path, text), in its own order."""
    if isinstance(value, Mapping):
        if not value:
            return [(path, "none")]
        return [
            pair
            for key, inner in value.items()
            for pair in provenance(inner, f"{path} › {plain(key)}" if path else plain(key))
        ]
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(inner, Mapping) for inner in value):
            return [
                pair
                for i, inner in enumerate(value, start=1)
                for pair in provenance(inner, f"{path} {i}")
            ]
        return [(path, ", ".join(cleaned(inner) for inner in value) or "none")]
    return [(path, "none" if value is None or value == "" else cleaned(value))]
