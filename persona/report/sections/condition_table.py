"""The table of conditions: gaps, damage, rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona.report.sections.how_sampled import sampled
from persona.report.theme import in_order, look_of
from persona.report.wording import UNDEFINED, as_float, interval, n_is, number, with_interval
from persona.rows import RESTORED


@dataclass(frozen=True)
class ConditionLine:
    """One line of the table of conditions."""

    name: str
    label: str
    colour: str
    meaning: str
    gap_held_out: str
    gap: str
    neutral_kl: str
    neutral_ce: str
    em_rate: str
    em_rate_without_direction: str
    coherence: str
    same_questions: str = ""


def condition_lines(
    scorecard: Mapping[str, Any], rows: pd.DataFrame | None = None
) -> list[ConditionLine]:
    """Every condition of the scorecard, in the order that is used everywhere.

    One that was scored on fewer questions than others says so, and what the restored model has on
    the same ones, which rows are needed for.
    """
    withheld = bool(sampled(scorecard).why_no_rate)
    entries = {str(e.get("name")): e for e in scorecard.get("conditions") or []}
    lines = []
    for name in in_order(entries):
        entry, look = entries[name], look_of(name)
        kept_back = withheld and entry.get("coherence") is not None
        lines.append(
            ConditionLine(
                name,
                look.label,
                look.colour,
                look.meaning,
                with_interval(entry.get("gap_held_out"), signed=True),
                with_interval(entry.get("gap"), signed=True),
                number(entry.get("neutral_kl_nats"), 3),
                number(entry.get("neutral_ce_delta_nats"), 3, signed=True),
                _rate(entry.get("em_rate"), kept_back),
                _rate(entry.get("em_rate_without_direction"), kept_back),
                _score(entry.get("coherence"), 0),
                "" if rows is None else _on_the_same(rows, name),
            )
        )
    return lines


def _on_the_same(rows: pd.DataFrame, condition: str) -> str:
    """What the restored model has on the questions of a condition that was not asked all."""
    gaps = rows[(rows["stage"] == "score") & (rows["measure"] == "gap")]
    gaps = gaps[(gaps["split"] == "held_out") & gaps["value"].notna()]
    asked = set(gaps.loc[gaps["condition"] == condition, "question_id"])
    restored = gaps[gaps["condition"] == RESTORED]
    if not asked or len(asked) >= restored["question_id"].nunique():
        return ""
    there = restored[restored["question_id"].isin(asked)]["value"].mean()
    return f"on {len(asked)} questions; restored there {number(there, signed=True)}"


def was_judged(scorecard: Mapping[str, Any], *fields: str) -> bool:
    """Whether any condition has one of `fields`, default an EM rate or a coherence."""
    return any(
        entry.get(field) is not None
        for entry in scorecard.get("conditions") or []
        for field in fields or ("em_rate", "coherence")
    )


def _rate(value: Any, kept_back: bool) -> str:
    """An EM rate in per cent: a number, or `{value, low, high, n}`."""
    if value is None:
        return "not given" if kept_back else "not judged"
    if not isinstance(value, Mapping):
        known = as_float(value)
        return UNDEFINED if known is None else f"{number(100 * known, 0)} %"
    found = {end: as_float(value.get(end)) for end in ("value", "low", "high")}
    ends = {end: None if known is None else 100 * known for end, known in found.items()}
    n = as_float(value.get("n"))
    text = f"{number(ends.get('value'), 0)} % {interval(ends, 0)}".strip()
    return f"{text}, {n_is(n)}" if n else text


def _score(value: Any, digits: int) -> str:
    if value is None:
        return "not judged"
    return number(value.get("value") if isinstance(value, Mapping) else value, digits)
