"""A forest figure: what single runs say, and under them what all of them say together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from persona.errors import DataError
from persona.intervals import Estimate
from persona.report.figures.shared_marks import dot_with_interval, vertical_level
from persona.report.theme import Look, look_of, new_figure, svg_text
from persona.rows import ALIGNED, FINETUNED, RESTORED

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ROW_HEIGHT = 26
LEVELS = {0.0: FINETUNED, 1.0: ALIGNED}


@dataclass(frozen=True)
class ForestRow:
    """One line: its name, its value with an interval, and whether it is of all runs together."""

    label: str
    estimate: Estimate
    of_all: bool = False


def forest(
    groups: Mapping[str, Sequence[ForestRow]], *, title: str, subtitle: str, axis: str, share: bool
) -> Figure:
    """One row a run and an interval, group under group; an interval without ends is a dot.

    groups: name, written before its rows where there are several -> rows, from above.
    share: the number is a share of a shift; lines then mark the fine-tuned and the aligned model.
    Raises: DataError without a row whose value is finite.
    """
    rows = [
        replace(row, label=f"{name}: {row.label}" if len(groups) > 1 else row.label)
        for name, some in groups.items()
        for row in some
        if math.isfinite(row.estimate.value)
    ]
    if not rows:
        raise DataError("there is no number to draw")
    figure = new_figure(
        title=title,
        subtitle=subtitle,
        inner=ROW_HEIGHT * len(rows),
        rows=1,
        cols=1,
    )
    places = [len(rows) - 1 - i for i in range(len(rows))]
    for place, row in zip(places, rows, strict=True):
        look = look_of(RESTORED if share else FINETUNED)
        look = Look(row.label, look.colour, "diamond" if row.of_all else "circle")
        dot_with_interval(figure, _drawn(row.estimate), place, look, size=12 if row.of_all else 8)
    for at, condition in LEVELS.items() if share else ((0.0, ALIGNED),):
        vertical_level(figure, at, look_of(condition).colour)
    figure.update_xaxes(title_text=axis, nticks=7)
    figure.update_yaxes(
        tickvals=places,
        ticktext=[svg_text(row.label) for row in rows],
        range=[-0.7, len(rows) - 0.3],
    )
    return figure


def _drawn(e: Estimate) -> Estimate:
    if math.isfinite(e.low) and math.isfinite(e.high):
        return e
    return Estimate(e.value, math.nan, math.nan, e.n)
