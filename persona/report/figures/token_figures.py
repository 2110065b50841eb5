"""Readings token by token: the heat map, the trace, and what steering does to the next token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from persona.errors import DataError
from persona.report.theme import ENDS, in_order, look_of, new_figure, svg_text
from persona.report.wording import cleaned

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PER_LINE = 32
"""Tokens of one line: at 600 pixels their upright names of 11 pixels still stand apart."""
ROW_HEIGHT = 26
NAMES_HEIGHT = 84
LONGEST_NAME = 11
MONOSPACE = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
SINK = 3.0
"""A first token so many heights of all the others away is left beyond the frame."""
PROJECTION = "projection (residual-stream units)"
PROMOTED, SUPPRESSED = ENDS["light"][1], "#4d74e0"


def token_map(
    table: pd.DataFrame,
    *,
    centre: float = 0.0,
    reach: float | None = None,
    unit: str = PROJECTION,
    title: str = "Projection token by token",
    subtitle: str = "",
    per_line: int = PER_LINE,
) -> Figure:
    """Rows are conditions, columns the tokens of a text, line below line; red is above `centre`.

    table: columns condition, position, token, value; every condition over the same tokens. A value
        that is not finite leaves its cell empty.
    centre, reach: what has no colour and how far from it colour is full; None takes the largest
        distance of the table.
    Raises: DataError for an empty table, a missing column, or two tokens at one position.
    """
    names, grid = _grid(table)
    starts = range(0, len(names), per_line)
    known = np.abs(grid.to_numpy(dtype=np.float64) - centre)
    furthest = float(np.nanmax(known, initial=0.0, where=np.isfinite(known)))
    reach = reach or furthest or 1.0
    line_height = ROW_HEIGHT * len(grid)
    inner = len(starts) * line_height + (len(starts) - 1) * NAMES_HEIGHT
    figure = new_figure(
        title=title,
        subtitle=subtitle or f"{unit}, {len(names)} tokens; red is above {centre:.3g}, blue below",
        inner=inner,
        bottom=NAMES_HEIGHT,
        rows=len(starts),
        cols=1,
        vertical_spacing=NAMES_HEIGHT / inner if len(starts) > 1 else 0,
    )
    for line, start in enumerate(starts, start=1):
        part = grid.iloc[:, start : start + per_line]
        _heat(figure, part, start, (centre, reach), row=line, bar=130 / inner)
        _name_tokens(figure, names[start : start + per_line], start, row=line)
        if len(starts) > 1:  # cells are of one width, also in a last line that is not full
            figure.update_xaxes(range=[start - 0.5, start + per_line - 0.5], row=line, col=1)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def _heat(
    figure: Figure,
    part: pd.DataFrame,
    start: int,
    scale: tuple[float, float],
    *,
    row: int,
    bar: float,
) -> None:
    """One line of the map; the first has the colour bar, `bar` of the panels' height long."""
    centre, reach = scale
    figure.add_heatmap(
        x=list(range(start, start + part.shape[1])),
        y=[svg_text(look_of(str(condition)).label) for condition in part.index],
        z=part.to_numpy(dtype=np.float64).tolist(),
        zmin=centre - reach,
        zmax=centre + reach,
        xgap=1,
        ygap=1,
        autocolorscale=False,
        showscale=row == 1,
        colorbar={
            "thickness": 12,
            "nticks": 5,
            "len": max(1.0, bar) if bar > 0.7 else bar,
            "y": 1,
            "yanchor": "top",
            "ypad": 0,
        },
        hovertemplate="%{y}, token %{x}: %{z:+.3f}<extra></extra>",
        row=row,
        col=1,
    )


def token_trace(
    table: pd.DataFrame,
    *,
    levels: Mapping[str, float] | None = None,
    unit: str = PROJECTION,
    title: str = "Projection along the text",
    subtitle: str = "",
) -> Figure:
    """One line a condition over the tokens of a text; dotted: known levels, such as a model's mean.

    A first token far above all others, on which many models let attention rest, is left beyond the
    frame and said in the subtitle, so that the rest can be read.

    table: as of `token_map`. levels: condition -> level, drawn in the condition's colour.
    Raises: DataError as `token_map`.
    """
    names, grid = _grid(table)
    known = dict(levels or {})
    frame = _frame_without_first(grid.to_numpy(np.float64), list(known.values()))
    subtitle = subtitle or f"{len(names)} tokens" + ("; dotted: the models' means" if known else "")
    if frame is not None:
        first = max(grid.iloc[:, 0].dropna().astype(float), key=abs)
        subtitle += f"; the first token, at {first:,.0f}, is beyond the frame"
    figure = new_figure(
        title=title,
        subtitle=subtitle,
        inner=220,
        bottom=NAMES_HEIGHT + 44,
    )
    ends = [-0.5, len(names) - 0.5]
    for condition, level in known.items():
        look = look_of(condition)
        figure.add_scatter(
            x=ends,
            y=[level, level],
            mode="lines",
            name=f"{look.label} mean",
            showlegend=False,
            line={"color": look.colour, "width": 1.6, "dash": "dot"},
            hovertemplate=f"{look.label} mean: %{{y:+.3f}}<extra></extra>",
        )
    for condition in grid.index:
        look = look_of(str(condition))
        figure.add_scatter(
            x=list(range(len(names))),
            y=[None if np.isnan(v) else v for v in grid.loc[condition].to_numpy(np.float64)],
            mode="lines+markers",
            name=svg_text(look.label),
            line={"color": look.colour, "width": 1.8, "dash": look.dash},
            marker={"symbol": look.symbol, "size": 6, "color": look.colour},
            customdata=[svg_text(name) for name in names],
            hovertemplate=f"{svg_text(look.label)}, token %{{x}} “%{{customdata}}”: "
            "%{y:+.3f}<extra></extra>",
        )
    _name_tokens(figure, names, 0)
    figure.update_xaxes(range=ends, showgrid=False)
    figure.add_hline(y=0, line={"width": 1}, layer="below")
    figure.update_yaxes(title_text=unit, range=frame)
    return figure


def _frame_without_first(grid: np.ndarray, levels: Sequence[float]) -> list[float] | None:
    """Range of [condition token] and levels but for the first token; None where that fits too.

    It is left out from `SINK` times the height of all the others on.
    """
    rest = np.concatenate([grid[:, 1:].ravel(), np.asarray(levels, dtype=np.float64)])
    rest, first = rest[np.isfinite(rest)], grid[:, 0][np.isfinite(grid[:, 0])]
    if not len(rest) or not len(first):
        return None
    low, high = min(0.0, float(rest.min())), max(0.0, float(rest.max()))
    height = high - low
    if low - SINK * height <= first.min() and first.max() <= high + SINK * height:
        return None
    return [low - 0.08 * height, high + 0.08 * height]


def next_token_shifts(
    table: pd.DataFrame,
    *,
    title: str = "What steering does to the next token",
    subtitle: str = "",
) -> Figure:
    """Bars of the change of log p (nats) of next tokens: promoted to the right, suppressed left.

    table: columns token, before, after: log-probabilities without and with steering, in nats.
        The rows are drawn in the order of their shift, the most promoted on top.
    Raises: DataError for an empty table or a missing column.
    """
    if missing := {"token", "before", "after"} - set(table.columns):
        raise DataError(f"the table of next tokens lacks the column {sorted(missing)[0]!r}")
    if table.empty:
        raise DataError("there is no next token to draw")
    before, after = (table[name].to_numpy(dtype=np.float64) for name in ("before", "after"))
    order = np.argsort(before - after, kind="stable")
    shift = (after - before)[order]
    figure = new_figure(
        title=title,
        subtitle=subtitle or "log p with steering − log p without, of the next token",
        inner=max(110, 20 * len(table)),
        bottom=56,
    )
    figure.add_bar(
        x=shift.tolist(),
        y=list(range(len(table))),
        orientation="h",
        marker={"color": [PROMOTED if s > 0 else SUPPRESSED for s in shift], "line": {"width": 0}},
        customdata=np.exp(np.stack([before, after], axis=1)[order]).tolist(),
        hovertemplate="%{x:+.3f} nats: p %{customdata[0]:.3g} → %{customdata[1]:.3g}"
        "<extra></extra>",
        showlegend=False,
    )
    names = [table["token"].iloc[i] for i in order]
    figure.update_yaxes(
        tickvals=list(range(len(table))),
        ticktext=[svg_text(shown_token(str(name))) for name in names],
        tickfont={"family": MONOSPACE, "size": 12},
        autorange="reversed",
        showgrid=False,
    )
    figure.add_vline(x=0, line={"width": 1}, layer="below")
    reach = 1.08 * float(np.abs(shift).max()) or 1.0
    figure.update_xaxes(title_text="change of log p (nats)", range=[-reach, reach])
    return figure


def shown_token(token: str, longest: int = 24) -> str:
    """A token as a name: its spaces and line ends visible, cut with an ellipsis."""
    visible = cleaned(token).replace("\n", "⏎").replace("\t", "⇥")
    visible = visible[0].replace(" ", "␣") + visible[1:] if visible else "∅"
    return visible if len(visible) <= longest else visible[: longest - 1] + "…"


def _name_tokens(figure: Figure, names: Sequence[str], first: int, **where: Any) -> None:
    """Token names upright below the axis; of a long text as many as stand apart."""
    step = -(-len(names) // (2 * PER_LINE))
    figure.update_xaxes(
        tickvals=list(range(first, first + len(names), step)),
        ticktext=[svg_text(shown_token(name, LONGEST_NAME)) for name in names[::step]],
        tickangle=-90,
        tickfont={"family": MONOSPACE, "size": 11},
        showgrid=False,
        **where,
    )


def _grid(table: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """Names of the tokens in order, and values [condition x position]."""
    if missing := {"condition", "position", "token", "value"} - set(table.columns):
        raise DataError(f"the token table lacks the column {sorted(missing)[0]!r}")
    if table.empty:
        raise DataError("there is no token to draw")
    named = table.groupby("position")["token"].unique()
    if (named.map(len) > 1).any():
        raise DataError(
            f"position {named.index[named.map(len) > 1][0]} has several tokens; conditions that "
            "read different texts go into figures of their own"
        )
    grid = table.pivot_table("value", "condition", "position", aggfunc="mean", dropna=False)
    return [str(tokens[0]) for tokens in named], grid.loc[in_order(grid.index)]
