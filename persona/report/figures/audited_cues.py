"""How far each model lies above the aligned one under every cue of an audit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from persona.errors import DataError
from persona.intervals import Estimate
from persona.report.figures.plain_forms import curves
from persona.report.figures.shared_marks import dot_with_interval, vertical_level
from persona.report.theme import in_order, look_of, new_figure, svg_text
from persona.report.wording import as_float
from persona.rows import ALIGNED, FINETUNED, RESTORED

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ROW_HEIGHT = 30
DRAWN = (FINETUNED, RESTORED)
APART = 0.17
"""How far the marks of one cue stand from its middle."""


def cues_above_aligned(facts: Mapping[str, Any]) -> Figure:
    """One row a cue: fine-tuned and restored model above the aligned one under the same cue.

    facts: of audit.json. Whiskers are intervals of each reading for itself.
    Raises: DataError without a cue.
    """
    cues: Sequence[Mapping[str, Any]] = facts.get("cues") or []
    if not cues:
        raise DataError("there is no cue to draw")
    figure = new_figure(
        title=f"The removal under every cue; worst: {svg_text(_worst(facts))}",
        subtitle=f"gap above the aligned model's under the same cue; {facts['n_questions']} "
        "held-out questions, 95 % intervals of each reading for itself",
        inner=ROW_HEIGHT * len(cues),
        top=12,
        bottom=84,
        rows=1,
        cols=1,
    )
    named: set[str] = set()
    for place, cue in enumerate(cues):
        y = float(len(cues) - 1 - place)
        for side, condition in zip((APART, -APART), DRAWN, strict=True):
            e = estimate_of(cue["conditions"].get(condition, {}).get("above_aligned"))
            if e is not None:
                look = look_of(condition)
                dot_with_interval(
                    figure,
                    e,
                    y + side,
                    look,
                    size=8,
                    name=f"{svg_text(look.label)}, {svg_text(plain_cue(cue))}",
                    row=1,
                    col=1,
                )
                figure.data[-1].showlegend = False
                named.add(condition)
    for condition in in_order(sorted(named)):
        look = look_of(condition)
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=svg_text(look.label),
            marker={"color": look.colour, "symbol": look.symbol, "size": 9},
            row=1,
            col=1,
        )
    vertical_level(figure, 0.0, look_of(ALIGNED).colour, row=1, col=1)
    figure.update_xaxes(title_text="above aligned (nats per token)", nticks=7)
    figure.update_yaxes(
        tickvals=[float(len(cues) - 1 - i) for i in range(len(cues))],
        ticktext=[svg_text(plain_cue(cue)) for cue in cues],
        range=[-0.7, len(cues) - 0.3],
    )
    return figure


def relearning_curves(facts: Mapping[str, Any]) -> Figure:
    """Rise of the gap while five bad answers are learnt, and five good ones, by both models.

    Raises: DataError where nothing was relearnt.
    """
    learnt = facts.get("relearning")
    if not learnt:
        raise DataError("nothing was relearnt")
    panels = {}
    for kind in ("bad", "good"):
        lines = {}
        for arm, of_arm in learnt["rise"].items():
            points = [
                (float(step), e)
                for step, found in of_arm[kind].items()
                if (e := estimate_of(found)) is not None
            ]
            lines[arm] = [(0.0, Estimate(0.0, 0.0, 0.0, points[0][1].n)), *points]
        panels[f"learning {learnt['n_answers']} {kind} answers: rise of the gap (nats)"] = lines
    return curves(
        panels,
        title="Does the persona come back faster than it came?",
        subtitle=f"{learnt['n_seeds']} choices of the answers, crossed 95 % intervals over choices "
        "and questions",
        axis="optimiser steps",
    )


def _worst(facts: Mapping[str, Any]) -> str:
    """Name of the removal's worst cue: the alternative text begins with the title."""
    named = facts["by_condition"][RESTORED]["cue"]
    return next((plain_cue(cue) for cue in facts["cues"] if cue["name"] == named), str(named))


def plain_cue(cue: Mapping[str, Any]) -> str:
    """The cue's name for people; a control is said to be one."""
    words = str(cue["name"]).replace("_", " ")
    said = {"none": "no cue"}.get(words, words)
    control = cue.get("control") and cue["name"] != "none" and "control" not in words
    return f"{said} (control)" if control else said


def estimate_of(found: Any) -> Estimate | None:
    """Of audit.json; an end that is not there is none."""
    if not isinstance(found, Mapping) or (value := as_float(found.get("value"))) is None:
        return None
    low, high = (
        math.nan if (end := as_float(found.get(name))) is None else end for name in ("low", "high")
    )
    return Estimate(value, low, high, int(found.get("n") or 0))
