"""What a scorecard says of the traits that were laid beside the fine-tune, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona.report.wording import as_float, cleaned, number


def resemblance_sentence(scorecard: Mapping[str, Any]) -> str:
    """Which traits the fine-tune resembles, with the cosine of each; "" where none was given."""
    found = scorecard.get("traits")
    if not isinstance(found, Mapping) or not found.get("traits"):
        return ""
    alike = ", ".join(cleaned(name) for name in found.get("resembles") or ())
    n = int(as_float(found.get("n_nonsense")) or 0)
    beside = f"chance and {n} nonsense traits" if n else "chance (no nonsense trait was given)"
    told = ", ".join(
        f"{cleaned(row.get('trait'))} {_cosine(row)} (block {cleaned(row.get('layer'))}, "
        f"p = {number(as_float(row.get('p_family')), 3)} over all)"
        for row in found["traits"]
    )
    return (
        f"Traits: what the fine-tune did resembles {alike or 'none of those given'}, beyond "
        f"{beside}; cosine of its shift with {told}."
    )


def _cosine(row: Mapping[str, Any]) -> str:
    value = number(as_float(row.get("cosine")), signed=True)
    if row.get("low") is None:
        return value
    low, high = (number(as_float(row[end]), signed=True) for end in ("low", "high"))
    return f"{value} [{low}, {high}]"
