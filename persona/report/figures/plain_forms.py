"""Readings with intervals in three plain forms: dots by condition, curves, a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from persona.errors import DataError
from persona.intervals import Estimate
from persona.report.figures.shared_marks import dot_with_interval, ribbon
from persona.report.theme import in_order, line_look, look_of, new_figure, svg_text, translucent
from persona.report.wording import number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ROW_HEIGHT = 30


def dots(
    panels: Mapping[str, Mapping[str, Estimate]], *, title: str, subtitle: str, axis: str
) -> Figure:
    """One row a condition, one panel a reading; whiskers are the given intervals.

    panels: what is read (with its unit) -> condition -> estimate.
    Raises: DataError without any estimate.
    """
    conditions = in_order(c for panel in panels.values() for c in panel)
    if not conditions:
        raise DataError("there is no reading to draw")
    figure = new_figure(
        title=title,
        subtitle=subtitle,
        inner=max(90, ROW_HEIGHT * len(conditions)),
        top=28,
        rows=1,
        cols=len(panels),
        shared_yaxes=True,
        horizontal_spacing=0.05,
        subplot_titles=[svg_text(name) for name in panels],
    )
    places = {condition: len(conditions) - i for i, condition in enumerate(conditions)}
    for col, panel in enumerate(panels.values(), start=1):
        for condition, e in panel.items():
            if np.isfinite(e.value):
                dot_with_interval(figure, e, places[condition], look_of(condition), row=1, col=col)
        figure.update_xaxes(title_text=axis, nticks=7, row=1, col=col)
        figure.update_yaxes(
            tickvals=list(places.values()),
            ticktext=[svg_text(look_of(condition).label) for condition in places],
            range=[0.4, len(conditions) + 0.6],
            row=1,
            col=col,
        )
    return figure


def curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, Estimate]]]],
    *,
    title: str,
    subtitle: str,
    axis: str,
    log: bool = False,
) -> Figure:
    """Lines over a number (a dose, a count, a generation), one panel a reading.

    panels: what is read (with its unit) -> condition -> (x, estimate) in order of x.
    log: a logarithmic x axis, for x above 0.
    Raises: DataError without any point.
    """
    names = in_order(c for panel in panels.values() for c in panel)
    if not names:
        raise DataError("there is no reading to draw")
    figure = new_figure(
        title=title,
        subtitle=subtitle,
        inner=210 * len(panels),
        top=20,
        bottom=84,
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.1,
        subplot_titles=[svg_text(name) for name in panels],
    )
    for row, panel in enumerate(panels.values(), start=1):
        for name in (n for n in names if n in panel):
            look, points = line_look(name, names.index(name)), panel[name]
            x = [point for point, _ in points]
            estimates = [e for _, e in points]
            fill = translucent(look.colour, 0.16)
            ribbon(
                figure,
                x,
                [e.low for e in estimates],
                [e.high for e in estimates],
                fill,
                name,
                row=row,
                col=1,
            )
            figure.add_scatter(
                x=x,
                y=[e.value for e in estimates],
                mode="lines+markers",
                name=svg_text(look.label),
                legendgroup=svg_text(name),
                showlegend=not any(name in earlier for earlier in list(panels.values())[: row - 1]),
                line={
                    "color": look.colour,
                    "width": 2.2,
                    "dash": look.dash,
                },
                marker={"symbol": look.symbol, "size": 7, "color": look.colour},
                hovertemplate=f"{svg_text(look.label)}, %{{x:g}}: %{{y:+.3f}}<extra></extra>",
                row=row,
                col=1,
            )
        figure.update_yaxes(tickformat=".3~g", row=row, col=1)
        places = sorted({x for line in panel.values() for x, _ in line})
        if log:
            # On its own plotly writes a 2, 3, ... 9 for each power of ten.
            ticks = {"tickvals": places} if len(places) <= 8 else {"dtick": 1}
            figure.update_xaxes(type="log", **ticks, row=row, col=1)
        elif len(places) <= 8 and all(x == int(x) for x in places):  # counts have no halves
            figure.update_xaxes(tickvals=places, row=row, col=1)
    figure.update_xaxes(title_text=axis, row=len(panels), col=1)
    return figure


def matrix(table: pd.DataFrame, *, title: str, subtitle: str, rows: str, columns: str) -> Figure:
    """A heat map of numbers on a scale centred on 0, with each number written in its cell.

    rows, columns: what the index and the columns of the table are.
    Raises: DataError for an empty table.
    """
    if table.empty:
        raise DataError("there is no reading to draw")
    values = table.to_numpy(dtype=np.float64)
    limit = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    figure = new_figure(
        title=title, subtitle=subtitle, inner=max(140, 44 * len(table)), top=8, bottom=60
    )
    figure.add_heatmap(
        z=values,
        x=[svg_text(str(name)) for name in table.columns],
        y=[svg_text(str(name)) for name in table.index],
        zmin=-limit,
        zmax=limit,
        text=[["–" if np.isnan(v) else number(v, signed=True) for v in row] for row in values],
        texttemplate="%{text}",
        hovertemplate="%{y}, %{x}: %{z:+.3f}<extra></extra>",
    )
    figure.update_xaxes(title_text=columns, showgrid=False)
    figure.update_yaxes(title_text=rows, autorange="reversed", showgrid=False)
    return figure
