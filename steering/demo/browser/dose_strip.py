"""The strip under the slider: where a dose costs more than the damage budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from persona.choices import MAX_DAMAGE
from steering.demo.session.conversation import Conversation
from steering.demo.session.evidence import Budget, Dose, budget_of

FARTHEST = 1.5
"""Right end of the slider, where no higher coefficient is set."""


def place_of(session: Conversation) -> tuple[Any, ...]:
    """What a dose curve belongs to: mode, blocks and model, whatever the coefficient."""
    blocks = () if session.vector is None else session.vector.chosen(session.setting.layers)
    return session.setting.mode, tuple(blocks), session.setting.side


def doses_of_run(session: Conversation) -> tuple[Dose, ...]:
    """What the run measured, where the page is set as the run was; else nothing."""
    vector = session.vector
    if vector is None or vector.evidence is None:
        return ()
    as_run = ("restore", tuple(vector.layers), "finetuned")
    return vector.evidence.doses if place_of(session) == as_run else ()


def strip_html(session: Conversation, measured: Sequence[Dose] | None) -> str:
    """Zones and a sentence; "" without a direction, or where doses run to both sides of 0."""
    if session.vector is None or session.setting.mode == "add":
        return ""
    doses = measured or doses_of_run(session)
    budget = budget_of(doses)
    if budget is None or any(each.setting.coefficient for each in session.further):
        return (
            '<div class="dose"><small>What a dose costs was not measured at this setting; '
            "<b>Dose and response</b> below measures it.</small></div>"
        )
    reach = max(FARTHEST, session.setting.coefficient)
    return (
        f'<div class="dose"><div class="track" role="img" aria-label="{_words(budget)}">'
        f'{"".join(_zones(budget, reach))}</div><small class="whole">{_words(budget)}</small>'
        f'<small class="brief">{_brief(budget)}</small></div>'
    )


def _zones(budget: Budget, reach: float) -> list[str]:
    inside = min(reach, budget.measured_to if budget.edge is None else budget.edge)
    zones = [_zone("in", 0, inside, reach)]
    end = min(reach, budget.measured_to)
    if budget.edge is not None and end > inside:
        zones.append(_zone("out", inside, end, reach))
    if reach > end:
        zones.append(_zone("unknown", end, reach, reach))
    return zones


def _zone(kind: str, start: float, end: float, reach: float) -> str:
    left, width = 100 * start / reach, 100 * (end - start) / reach
    return f'<u class="{kind}" style="left:{left:.1f}%;width:{width:.1f}%"></u>'


def _brief(budget: Budget) -> str:
    """The same where there is little room."""
    harm = "" if budget.edge is None else " · red: it harms other text"
    return f"green: within the damage budget{harm} · dotted: not measured"


def _words(budget: Budget) -> str:
    most = f"{MAX_DAMAGE:g} nats a token, the damage budget of the texts that choose"
    beyond = f"beyond {budget.measured_to:g} nothing was measured"
    if budget.edge is None:
        return f"Up to {budget.measured_to:g} neutral text loses at most {most}; {beyond}."
    return f"From {budget.edge:.2g} on neutral text loses more than {most}; {beyond}."
