"""The controls of the edit: placebos, the twin, and the induction beside its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persona.report.wording import as_float, cleaned, number, with_interval

PLACEBOS = {
    "answer_effect": "Bad minus good answers, read in the aligned model",
    "halves": "Two halves of the aligned model's good answers",
    "good_twin": "The model effect of the good twin",
    "other_fine_tune": "The model effect of another fine-tune",
    "neutral_text": "The model effect of this fine-tune on neutral text",
}


@dataclass(frozen=True)
class ControlLine:
    """One line of the table of controls: what was restored or induced, and the share of it."""

    name: str
    net: str
    raw: str


def placebo_lines(scorecard: Mapping[str, Any]) -> list[ControlLine]:
    """The placebos, best first, and beneath them zero-ablation; none in older scorecards."""
    lines = [
        ControlLine(
            PLACEBOS.get(str(each.get("name")), cleaned(each.get("name"))),
            with_interval(each.get("net_restoration")),
            with_interval(each.get("restoration")),
        )
        for each in (scorecard.get("placebos") or {}).get("each") or []
    ]
    if scorecard.get("zero_ablation"):
        lines.append(
            ControlLine(
                "The direction itself, set to zero", "—", with_interval(scorecard["zero_ablation"])
            )
        )
    return lines


def above_neutral_text(scorecard: Mapping[str, Any]) -> str:
    """What it means where neutral text finds as good a direction; empty without that placebo."""
    above = (scorecard.get("placebos") or {}).get("above_neutral_text")
    if not above:
        return ""
    if (as_float(above.get("low")) or 0.0) > 0:
        return (
            "It takes back more than the same fit on neutral text, by "
            f"{with_interval(above, signed=True)} of the shift: bad and good answers tell "
            "something that other text does not."
        )
    return (
        "It takes back no clearly larger share than the same fit on neutral text (difference "
        f"{with_interval(above, signed=True)}): it is the direction of this fine-tune, and no bad "
        "answer was needed to find it."
    )


def induction_in_words(scorecard: Mapping[str, Any]) -> str:
    """The induction beside random steps, the twin's, and what it costs; empty without controls."""
    controls = scorecard.get("induction_controls")
    if not isinstance(controls, Mapping):
        return ""
    induced = with_interval(scorecard.get("induction"))
    said = [
        f"Added to the aligned model at {number(controls.get('coefficient'))} of the way to the "
        f"fine-tuned one, it brings about {induced} of the shift"
    ]
    if random := controls.get("random"):
        said.append(
            f"{int(random['did_as_much'])} of {int(random['n'])} random inductions as long did as "
            f"much (the largest {number(random['largest'])})"
        )
    if twin := controls.get("good_twin"):
        said.append(f"the good twin's direction induces {with_interval(twin)}")
    cost, bar = controls.get("neutral_ce_nats"), controls.get("neutral_ce_nats_finetuned")
    said.append(
        f"neutral text costs {with_interval(cost, signed=True)} nats more than in the aligned "
        f"model, in the fine-tuned {with_interval(bar, signed=True)}"
    )
    return "; ".join(said) + "."
