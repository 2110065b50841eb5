"""The way from the aligned model to the fine-tuned one: readings against training steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from persona.errors import DataError
from persona.report.figures.shared_marks import ribbon, vertical_level
from persona.report.tables import estimate
from persona.report.theme import in_order, line_look, new_figure, svg_text, translucent
from persona.report.wording import n_is

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PANELS = {
    "projection_good": "projection of the good answers (residual units)",
    "gap": "gap, bad − good (nats per token)",
    "neutral_ce_nats": "cross-entropy of neutral text (nats per token)",
}


def training_course(runs: Mapping[str, pd.DataFrame], *, seed: int = 0) -> Figure:
    """Projection, gap and damage of watched fine-tunes over their steps, one panel below another.

    Every question is compared with its own first reading of the run, so that the ribbon, the 95 %
    bootstrap interval over questions (texts, for the damage), is that of the change.

    runs: condition (finetuned, good_twin, ...) -> readings as `read_readings` gives them. The
        vertical line is the step at which the run's alarm rang.

    Raises: DataError when there is nothing to draw, or the columns are not those of readings.
    """
    if not runs:
        raise DataError("there is no watched fine-tune to draw")
    for name, rows in runs.items():
        if missing := {"step", "question_id", "measure", "value"} - set(rows.columns):
            raise DataError(f"the readings of {name} lack the column {sorted(missing)[0]}")
    panels = _panels(runs)
    if not panels:
        raise DataError(f"the readings hold none of {', '.join(PANELS)}")
    n = max(
        rows.loc[rows["measure"].isin(list(panels)[:1]), "question_id"].nunique()
        for rows in runs.values()
    )
    figure = new_figure(
        title="From the aligned model to the fine-tuned one",
        subtitle=f"change since the first reading, {n_is(n)} questions never trained on; "
        "ribbons are 95 % intervals" + ("; dotted: the alarm rings" if _rings(runs) else ""),
        inner=210 * len(panels),
        top=20,
        bottom=84,
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.09,
        subplot_titles=[svg_text(title) for title in panels.values()],
    )
    for row, measure in enumerate(panels, start=1):
        for place, name in enumerate(in_order(runs)):
            _line(figure, runs[name], name, measure, row, seed, place)
        figure.update_yaxes(tickformat="+.2f" if measure == "gap" else "+.3~g", row=row, col=1)
    figure.update_xaxes(title_text="optimiser step (0 = the aligned model)", row=len(panels), col=1)
    return figure


def _panels(runs: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Measure -> title; of several directions that were read each has a panel of its own."""
    there = list(dict.fromkeys(m for rows in runs.values() for m in rows["measure"].unique()))
    found = {}
    for measure, title in PANELS.items():
        if measure in there:
            found[measure] = title
        if measure == "projection_good":
            named = [one for one in there if str(one).startswith(f"{measure}:")]
            found |= {
                one: f"projection on {one.partition(':')[2]} (residual units)" for one in named
            }
    return found


def _rings(runs: Mapping[str, pd.DataFrame]) -> bool:
    return any((rows["measure"] == "alarm").any() for rows in runs.values())


def _line(
    figure: Figure, rows: pd.DataFrame, name: str, measure: str, row: int, seed: int, place: int
) -> None:
    look, chosen = line_look(name, place), rows[rows["measure"] == measure]
    if chosen.empty:
        return
    by_step = chosen.pivot_table("value", "step", "question_id")
    changes = by_step - by_step.iloc[0]
    steps = changes.index.tolist()
    estimates = [estimate(changes.loc[step].dropna(), seed) for step in steps]
    low, high = [e.low for e in estimates], [e.high for e in estimates]
    ribbon(figure, steps, low, high, translucent(look.colour, 0.18), name, row=row, col=1)
    figure.add_scatter(
        x=steps,
        y=[e.value for e in estimates],
        mode="lines+markers",
        name=svg_text(look.label),
        legendgroup=name,
        showlegend=row == 1,
        line={"color": look.colour, "width": 2.2, "dash": look.dash},
        marker={"symbol": look.symbol, "size": 7, "color": look.colour},
        hovertemplate=f"{svg_text(look.label)}, step %{{x}}: %{{y:+.3f}}<extra></extra>",
        row=row,
        col=1,
    )
    for step in rows.loc[rows["measure"] == "alarm", "step"].unique():
        vertical_level(figure, float(step), look.colour, row=row, col=1)
