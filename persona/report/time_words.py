"""Which parts of a run took its time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona.report.wording import as_float, cleaned, duration

STAGES = {
    "load": "loading the models",
    "read": "reading activations",
    "attribute": "attribution",
    "verify": "trying candidates",
    "controls": "twin, placebos and dose",
    "score": "scoring every condition",
    "answer": "answers and judge",
}
"""A stage as the scorecard names it -> what it does, in words."""
LEAST_SHARE = 0.05


def stages_in_words(scorecard: Mapping[str, Any]) -> str:
    """The stages of a run with the time of each, longest first; "" where it is not known.

    Stages that took less than a twentieth of the whole stand together at the end.

    Examples:
        >>> took = [{"name": "verify", "took": 90.0}, {"name": "score", "took": 600.0}]
        >>> stages_in_words({"estimated": {"stages": took}})
        'scoring every condition 10 min 0 s; trying candidates 1 min 30 s'
    """
    estimated = scorecard.get("estimated")
    listed = estimated.get("stages") if isinstance(estimated, Mapping) else None
    took = {
        cleaned(one["name"]): seconds
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, Mapping) and "name" in one
        if (seconds := as_float(one.get("took"))) is not None and seconds > 0
    }
    least = LEAST_SHARE * sum(took.values())
    ordered = sorted(took, key=lambda name: -took[name])
    parts = [
        f"{STAGES.get(name, name)} {duration(took[name])}" for name in ordered if took[name] > least
    ]
    if rest := sum(seconds for seconds in took.values() if seconds <= least):
        parts.append(f"the rest {duration(rest)}")
    return "; ".join(parts)
