"""What a scorecard says of the skill that was to be kept, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona.report.wording import as_float, cleaned, number, with_interval

_MEASURES = {
    "margin_nats": "the margin of right over wrong answers",
    "log_prob_right": "the log-probability of right answers",
}


def skill_sentence(scorecard: Mapping[str, Any]) -> str:
    """One sentence with its interval; "" where no skill was scored."""
    kept = scorecard.get("skill_kept")
    if not isinstance(kept, Mapping):
        return ""
    gained = kept.get("gained") or {}
    n = number(as_float(gained.get("n")), 0)
    what = (
        f"on the skill {cleaned(kept.get('skill'))} ({n} items in words never trained on, by "
        f"{_MEASURES.get(str(kept.get('measure')), cleaned(kept.get('measure')))}), "
        f"{with_interval(gained, 3, signed=True)} nats per token"
    )
    if kept.get("share") is None:
        why = cleaned(kept.get("why_undefined"))
        return f"Skill kept is undefined ({why}): the fine-tune gained nothing clear {what}."
    return (
        f"Skill kept: {with_interval(kept['share'], 2)} of what the fine-tune gained {what}, is "
        "still there once it is restored (1 is all of it)."
    )
