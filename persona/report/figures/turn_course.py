"""A conversation turn by turn, along one direction or several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona.intervals import Estimate
from persona.report.figures.plain_forms import curves

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def turn_course(found: Mapping[str, Any]) -> Figure:
    """Mean projection of each turn of the assistant's, one panel a direction; no intervals.

    found: what `persona drift` writes as drift.json.
    Raises: DataError where the assistant has no turn.
    """
    panels = {}
    for name, about in found["directions"].items():
        points = [
            (float(turn["turn"]), _bare(turn["projection"][name], turn["n_tokens"]))
            for turn in found["turns"]
            if turn["role"] == "assistant" and turn["projection"][name] is not None
        ]
        test = about["drift"]
        p = "" if test is None else f", p = {test['p_value']:.3f}"
        if points:
            panels[f"{name}, block {about['layer']}{p}"] = {"assistant": points}
    return curves(
        panels,
        title="The conversation, turn by turn",
        subtitle="mean projection of the tokens of each turn of the assistant's; p of a change",
        axis="turn",
    )


def _bare(value: float, n: int) -> Estimate:
    return Estimate(value, value, value, n)
