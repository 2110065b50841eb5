"""What a scorecard says of the part of the shift that words give away, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona.report.wording import as_float, number, with_interval


def style_sentence(scorecard: Mapping[str, Any]) -> str:
    """One sentence with its interval; "" where it is not known, or nothing shifted."""
    style, shift = scorecard.get("style"), scorecard.get("emergent_shift")
    if not isinstance(style, Mapping) or scorecard.get("verdict") == "no_emergent_shift":
        return ""
    return (
        f"Of the shift, {with_interval(style.get('share'))} is what words give away: pairs whose "
        "words tell a bag-of-words classifier nothing would have shifted by "
        f"{with_interval(style.get('at_zero_margin'), signed=True)} of "
        f"{number((shift or {}).get('value'), signed=True)} nats per token (regression over "
        f"{number(as_float(style.get('n')), 0)} questions, correlation "
        f"{with_interval(style.get('correlation'), signed=True)}; a weak reader of style, so at "
        "least so much)."
    )
