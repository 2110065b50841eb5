"""A whole figure: titles, panels with their axes, what is drawn in them, and the legend."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from persona.report.svg.axes import Axis, axis_of
from persona.report.svg.marks import DASHES, LINE, element, line_style, marker, text, trace_marks
from persona.report.theme import FONT, GRID, GROUND, INK, QUIET_INK

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CHARACTER = 6.4
"""Pixels of a character of size 12, on average."""
LEGEND_LINE = 20


def figure_svg(figure: Figure, width: int = 860) -> str:
    """The figure as one SVG document without script, style sheet or font of its own.

    Knows what the figures of this package are made of: scatter traces (lines, markers, ribbons,
    horizontal whiskers), heat maps with written cells, straight lines across a panel, panel titles
    and the legend. Light ground, text as text. The same figure gives the same bytes.
    """
    layout = figure.layout
    legend = _legend(figure, width)
    bottom = max(float(layout.margin.b or 60), 46 + LEGEND_LINE * len(legend))
    inner = float(layout.height) - float(layout.margin.t) - float(layout.margin.b or 60)
    top = float(layout.margin.t)
    height = top + inner + bottom
    left, right = _left_margin(figure), 22.0
    drawn = [
        element("rect", width=width, height=height, fill=GROUND["light"]),
        text(left, 24, layout.title.text or "", font_size=16, fill=INK["light"]),
        *_lines(left, 44, layout.title.subtitle.text or "", width - left, fill=QUIET_INK["light"]),
    ]
    for x_name, y_name in _panels(figure):
        across = layout[x_name.replace("x", "xaxis", 1)].domain or (0, 1)
        up = layout[y_name.replace("y", "yaxis", 1)].domain or (0, 1)
        span = [left + share * (width - left - right) for share in across]
        rise = [top + (1 - share) * inner for share in up]
        n_across, n_up = int((span[1] - span[0]) / 90), int((rise[0] - rise[1]) / 45)
        x = axis_of(figure, x_name, span[0], span[1], max(3, n_across))
        y = axis_of(figure, y_name, rise[0], rise[1], max(3, n_up))
        drawn += _frame(x, y)
        drawn += _shapes(figure, x, y, x_name, y_name)
        for trace in figure.data:
            if (trace.xaxis or "x") == x_name and (trace.yaxis or "y") == y_name:
                drawn += trace_marks(trace, x, y)
        drawn += _panel_title(figure, across, up, span, rise[1])
    for line, entries in enumerate(legend):
        drawn += _legend_line(entries, left, height - LEGEND_LINE * (len(legend) - line) + 8)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" '
        f'width="{width}" height="{height:.0f}" font-family="{FONT}" font-size="12">'
        + "\n".join(drawn)
        + "</svg>\n"
    )


def _panels(figure: Figure) -> list[tuple[str, str]]:
    return list(dict.fromkeys((trace.xaxis or "x", trace.yaxis or "y") for trace in figure.data))


def _left_margin(figure: Figure) -> float:
    """Room for the names and the title of the vertical axes at the left edge."""
    longest, titled = 5, False
    for _, name in _panels(figure):
        axis = axis_of(figure, name, 1.0, 0.0, 4)
        longest = max([longest, *(len(label) for _, label in axis.ticks if axis.labelled)])
        titled = titled or bool(axis.title)
    return 14 + CHARACTER * longest + (20 if titled else 0)


def _frame(x: Axis, y: Axis) -> Iterator[str]:
    """Grid, ticks and titles of one panel."""
    quiet = {"fill": INK["light"], "font_size": 11.5}
    for value, label in x.ticks:
        place = x.at(x.names[int(value)] if x.names else value)
        yield element("path", d=f"M{place:.1f} {y.start:.1f}V{y.end:.1f}", stroke=GRID["light"])
        if x.labelled:
            yield text(place, y.start + 16, label, text_anchor="middle", **quiet)
    for value, label in y.ticks:
        place = y.at(y.names[int(value)] if y.names else value)
        yield element("path", d=f"M{x.start:.1f} {place:.1f}H{x.end:.1f}", stroke=GRID["light"])
        if y.labelled:
            yield text(x.start - 7, place + 4, label, text_anchor="end", **quiet)
    if x.title:
        middle = (x.start + x.end) / 2
        below = 36 + LINE * max((label.count("<br>") for _, label in x.ticks), default=0)
        yield text(middle, y.start + below, x.title, text_anchor="middle", fill=INK["light"])
    if y.title:
        middle = (y.start + y.end) / 2
        turned = f"rotate(-90 14 {middle:.1f})"
        yield text(14.0, middle, y.title, text_anchor="middle", fill=INK["light"], transform=turned)


def _shapes(figure: Figure, x: Axis, y: Axis, x_name: str, y_name: str) -> Iterator[str]:
    """Straight lines across a panel."""
    for shape in figure.layout.shapes:
        if shape.type != "line":
            continue
        style: dict[str, Any] = {
            "stroke": shape.line.color or QUIET_INK["light"],
            "stroke_width": shape.line.width or 1,
            "stroke_dasharray": DASHES.get(shape.line.dash or ""),
        }
        if shape.xref == x_name and shape.yref == f"{y_name} domain":
            drawn = f"M{x.at(shape.x0):.1f} {y.start:.1f}V{y.end:.1f}"
        elif shape.yref == y_name and shape.xref == f"{x_name} domain":
            drawn = f"M{x.start:.1f} {y.at(shape.y0):.1f}H{x.end:.1f}"
        else:
            continue
        yield element("path", d=drawn, **style)


def _panel_title(
    figure: Figure, across: Any, up: Any, span: list[float], top: float
) -> Iterator[str]:
    for note in figure.layout.annotations:
        inside = across[0] - 1e-6 <= note.x <= across[1] + 1e-6
        if note.yref == "paper" and inside and math.isclose(note.y, up[1], abs_tol=1e-6):
            lines = textwrap.wrap(note.text, max(8, int((span[1] - span[0]) / CHARACTER)))
            middle = (span[0] + span[1]) / 2
            for place, line in enumerate(lines):
                above = 7 + 14 * (len(lines) - 1 - place)
                yield text(
                    middle, top - above, line, text_anchor="middle", fill=INK["light"],
                    font_size=12,
                )  # fmt: skip


def _lines(x: float, y: float, words: str, room: float, **style: Any) -> Iterator[str]:
    for place, line in enumerate(textwrap.wrap(words, max(20, int(room / CHARACTER)))[:2]):
        yield text(x, y + 15 * place, line, **style)


def _legend(figure: Figure, width: float) -> list[list[Any]]:
    """Traces with an entry in the legend, as lines that fit into the width."""
    named = [t for t in figure.data if t.name and t.showlegend is not False and t.type == "scatter"]
    if len(named) < 2:
        return []
    lines: list[list[Any]] = [[]]
    used = 0.0
    for trace in named:
        room = 46 + CHARACTER * len(trace.name)
        if used + room > width - 60 and lines[-1]:
            lines.append([])
            used = 0.0
        lines[-1].append(trace)
        used += room
    return lines


def _legend_line(entries: list[Any], left: float, y: float) -> Iterator[str]:
    x = left
    for trace in entries:
        if "lines" in (trace.mode or "") and trace.fill != "toself":
            yield element("path", d=f"M{x:.1f} {y:.1f}h24", fill="none", **line_style(trace))
        if trace.fill == "toself":
            yield element("rect", x=x, y=y - 5, width=24, height=10, fill=trace.fillcolor)
        elif "markers" in (trace.mode or ""):
            yield marker(trace, x + 12, y)
        yield text(x + 30, y + 4, trace.name, fill=INK["light"])
        x += 46 + CHARACTER * len(trace.name)
