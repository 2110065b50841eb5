"""What a scorecard says of the skill that was to be kept, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona.report.theme import candidate_label
from persona.report.wording import as_float, cleaned, number, with_interval

NET_AIM = 0.8
"""Net restoration at which the skill that can be kept is told."""
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


def aim_in_words(scorecard: Mapping[str, Any]) -> str:
    """What can be kept of the skill where the persona goes, in one sentence; "" without a skill."""
    kept = scorecard.get("skill_kept")
    if not isinstance(kept, Mapping) or "front" not in kept:
        return ""
    best = kept.get("at_restoration_0.8")
    if not isinstance(best, Mapping) or not best.get("share"):
        return (
            f"No removal that was tried takes {number(NET_AIM)} of the shift, net, on the "
            "questions that choose."
        )
    return (
        f"Of the removals that take {number(NET_AIM)} of the shift, net, where they were chosen, "
        f"the one that keeps most of the skill ({removal_label(str(best.get('name')))}) takes "
        f"{with_interval(best['net_restoration'])} and keeps {with_interval(best['share'])} where "
        "nothing was chosen."
    )


def removal_label(label: str) -> str:
    """The label of a trial with the candidate's name for people."""
    candidate, _, rest = label.partition(" ")
    return f"{candidate_label(candidate)} {rest}"
