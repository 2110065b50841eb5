"""How answers were sampled, and whether a rate is given of them, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persona.report.wording import as_float, cleaned, interval, n_is, number


@dataclass(frozen=True)
class Sampled:
    """Sentences; each "" where the scorecard does not say it, as those of older versions do not.

    read, rate: how the answers to be read, and those to be counted, were sampled.
    why_no_rate: what keeps the EM rate back. coherent: share of the aligned model's answers.
    """

    read: str
    rate: str
    why_no_rate: str
    coherent: str


def sampled(scorecard: Mapping[str, Any]) -> Sampled:
    """What the scorecard's field `sampling` says."""
    known = _part(scorecard, "sampling")
    why = known.get("why_no_rate")
    return Sampled(
        cleaned(_part(known, "read").get("sentence") or ""),
        cleaned(_part(known, "rate").get("sentence") or ""),
        cleaned(why) if why else "",
        _coherent(_part(known, "aligned_coherent")),
    )


def _part(whole: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = whole.get(key)
    return part if isinstance(part, Mapping) else {}


def _coherent(share: Mapping[str, Any]) -> str:
    """`94 % [89, 97], n = 256`."""
    ends = {end: as_float(share.get(end)) for end in ("value", "low", "high")}
    if ends["value"] is None:
        return ""
    hundred = {end: None if known is None else 100 * known for end, known in ends.items()}
    text = f"{number(hundred['value'], 0)} % {interval(hundred, 0)}".strip()
    n = as_float(share.get("n"))
    return f"{text}, {n_is(n)}" if n else text
