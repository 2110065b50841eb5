"""Several runs on common axes: how far each fine-tune went, what was taken back, at what price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from persona.errors import DataError
from persona.intervals import Estimate
from persona.report.figures.shared_marks import dot_with_interval, vertical_level
from persona.report.random_choices import random_choices
from persona.report.tables import condition_entry
from persona.report.theme import look_of, new_figure, svg_text
from persona.report.wording import as_float
from persona.rows import ALIGNED, FINETUNED, RANDOM, RESTORED

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ROW_HEIGHT = 34
LEVELS = {1: {0.0: ALIGNED}, 2: {0.0: FINETUNED, 1.0: ALIGNED}, 3: {0.0: ALIGNED}}
"""Panel -> where the models themselves lie in it."""


def compare_runs(scorecards: Mapping[str, Mapping[str, Any]]) -> Figure:
    """One row a run: emergent shift, share of it taken back beside random choices, and damage.

    The share is the net restoration, of an older scorecard the raw one; the cross is what the
    strongest random choice takes back. Nats of runs on different questions are of different texts.

    scorecards: name of the run -> its scorecard.
    Raises: DataError without a run.
    """
    if not scorecards:
        raise DataError("there is no run to draw")
    figure = new_figure(
        title="The runs side by side",
        subtitle="95 % intervals over questions or texts; crosses: the strongest random choice",
        inner=ROW_HEIGHT * len(scorecards),
        top=44,
        rows=1,
        cols=3,
        shared_yaxes=True,
        horizontal_spacing=0.05,
        subplot_titles=["how far it went bad", "how much is taken back", "what that costs"],
    )
    places = {name: len(scorecards) - 1 - i for i, name in enumerate(scorecards)}
    for name, card in scorecards.items():
        readings = (
            (1, FINETUNED, card.get("emergent_shift")),
            (2, RESTORED, card.get("net_restoration") or card.get("restoration")),
            (3, RESTORED, card.get("damage") or card.get("damage_ce_nats")),
        )
        for col, condition, found in readings:
            if (e := _estimate(found, card)) is not None:
                shown = replace(look_of(condition), label=name)
                dot_with_interval(figure, e, places[name], shown, row=1, col=col)
        random = random_choices(card)
        if random is not None and random.largest is not None and card.get("restoration"):
            e = Estimate(random.largest, math.nan, math.nan, random.n)
            shown = replace(look_of(RANDOM), label=f"{name}, strongest random choice")
            dot_with_interval(figure, e, places[name], shown, size=8, row=1, col=2)
    for col, levels in LEVELS.items():
        for at, condition in levels.items():
            vertical_level(figure, at, look_of(condition).colour, row=1, col=col)
        figure.update_xaxes(range=_reach(figure, col, levels), row=1, col=col)
    for col, title in enumerate(("shift (nats per token)", "share of the shift", "nats per token")):
        figure.update_xaxes(title_text=title, nticks=5, row=1, col=col + 1)
        figure.update_yaxes(
            tickvals=list(places.values()),
            ticktext=[svg_text(name) for name in places],
            range=[-0.7, len(places) - 0.3],
            row=1,
            col=col + 1,
        )
    return figure


def _reach(figure: Figure, col: int, levels: Mapping[float, str]) -> list[float]:
    """The ends of a panel's axis: all that is drawn in it, the models too."""
    name = "x" if col == 1 else f"x{col}"
    ends = list(levels)
    for trace in figure.data:
        if (trace.xaxis or "x") == name:
            bars = trace.error_x
            ends += [trace.x[0], trace.x[0] + bars.array[0], trace.x[0] - bars.arrayminus[0]]
    known = [end for end in ends if math.isfinite(end)]
    room = 0.06 * (max(known) - min(known)) or 0.05
    return [min(known) - room, max(known) + room]


def _estimate(found: Any, card: Mapping[str, Any]) -> Estimate | None:
    """Of a scorecard; an interval without ends, or none at all, has none here."""
    if not isinstance(found, Mapping) or (value := as_float(found.get("value"))) is None:
        return None
    ends = [as_float(found.get(end)) for end in ("low", "high")]
    low, high = (math.nan if end is None else end for end in ends)
    gap = condition_entry(card, FINETUNED).get("gap_held_out") or {}
    n = as_float(found.get("n", gap.get("n")))
    return Estimate(value, low, high, int(n or 0))
