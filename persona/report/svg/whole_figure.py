"""A whole figure: titles, panels with their axes, what is drawn in them, and the legend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from persona.report.svg.layout import (
    CHARACTER,
    LINE,
    RIGHT,
    TITLE_LINE,
    Panel,
    rows_of,
    side_by_side,
    stacked,
    wrapped,
)
from persona.report.svg.legend import Legend
from persona.report.svg.marks import DASHES, element, text, trace_marks
from persona.report.theme import FONT, GRID, GROUND, INK, QUIET_INK

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def figure_svg(figure: Figure, width: int = 860, *, narrow: bool = False) -> str:
    """The figure as one SVG document without script, style sheet or font of its own.

    Knows what the figures of this package are made of: scatter traces (lines, markers, ribbons,
    horizontal whiskers), heat maps, straight lines and shaded blocks, notes at a value, panel
    titles and the legend. Light ground, text as text; `page_colours` makes a page's drawings
    follow its dark mode. The same figure gives the same bytes.

    narrow: panels under one another, for a page no wider than a phone.
    """
    layout = figure.layout
    placed = (stacked if narrow else side_by_side)(figure, width)
    left = 10.0 if narrow else placed.left
    legend = Legend.of(figure, width - left)
    titled = 46 + TITLE_LINE * (len(placed.panels[-1].x_title) - 1)
    bottom = max(0.0 if narrow else float(layout.margin.b or 60), titled + legend.height)
    height = placed.bottom + bottom
    drawn = [element("rect", width=width, height=height, fill=GROUND["light"])]
    if title := layout.title.text:
        drawn.append(text(placed.left, 24, title, font_size=16, fill=INK["light"]))
    for place, line in enumerate(wrapped(layout.title.subtitle.text or "", width - placed.left)):
        drawn.append(text(placed.left, 44 + LINE * place, line, fill=QUIET_INK["light"]))
    for panel in placed.panels:
        drawn += _shaded(figure, panel)
        drawn += _frame(panel)
        drawn += _straight_lines(figure, panel)
        for trace in figure.data:
            if (trace.xaxis or "x", trace.yaxis or "y") == (panel.x_name, panel.y_name):
                drawn += trace_marks(trace, panel.x, panel.y)
        drawn += _outlines(figure, panel)
        drawn += _notes(figure, panel)
        drawn += _panel_title(panel)
    drawn += legend.drawn(left, height - legend.height + 8)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" '
        f'width="{width}" height="{height:.0f}" font-family="{FONT}" font-size="12">'
        + "\n".join(drawn)
        + "</svg>\n"
    )


def _frame(panel: Panel) -> Iterator[str]:
    """Grid, ticks and titles of one panel."""
    x, y = panel.x, panel.y
    quiet = {"fill": INK["light"], "font_size": 11.5}
    lines = ""
    for value, label in x.ticks:
        place = x.at(x.names[int(value)] if x.names else value)
        lines += f"M{place:.1f} {y.start:.1f}V{y.end:.1f}" if x.grid else ""
        if x.labelled:
            yield text(place, y.start + 16, label, text_anchor="middle", **quiet)
    for value, label in y.ticks:
        place = y.at(y.names[int(value)] if y.names else value)
        lines += f"M{x.start:.1f} {place:.1f}H{x.end:.1f}" if y.grid else ""
        if y.labelled:
            first = place + 4 - LINE / 2 * (rows_of(label) - 1)
            yield text(x.start - 7, first, label, text_anchor="end", **quiet)
    if lines:
        yield element("path", d=lines, stroke=GRID["light"])
    if x.title:
        middle = (x.start + x.end) / 2
        below = 36 + LINE * max((rows_of(label) - 1 for _, label in x.ticks), default=0)
        for place, line in enumerate(panel.x_title):
            centre = min(middle, x.end + RIGHT - CHARACTER / 2 * len(line))
            yield text(
                centre, y.start + below + TITLE_LINE * place, line, text_anchor="middle",
                fill=INK["light"],
            )  # fmt: skip
    if y.title:
        middle = (y.start + y.end) / 2
        left = panel.beside_labels - LINE * (rows_of(y.title) - 1)
        turned = f"rotate(-90 {left:.1f} {middle:.1f})"
        yield text(left, middle, y.title, text_anchor="middle", fill=INK["light"], transform=turned)


def _of_panel(figure: Figure, panel: Panel, kind: str) -> Iterator[Any]:
    """Shapes of one kind that lie on the panel's axes, or across all of one."""
    for shape in figure.layout.shapes:
        across = shape.xref in (panel.x_name, f"{panel.x_name} domain")
        up = shape.yref in (panel.y_name, f"{panel.y_name} domain")
        if shape.type == kind and across and up:
            yield shape


def _ends(panel: Panel, shape: Any) -> tuple[float, float, float, float]:
    """Left, right, upper and lower pixel of a shape."""
    x0, x1 = panel.x.start, panel.x.end
    if shape.xref == panel.x_name:
        x0, x1 = sorted((panel.x.at(shape.x0), panel.x.at(shape.x1)))
    y0, y1 = panel.y.end, panel.y.start
    if shape.yref == panel.y_name:
        y0, y1 = sorted((panel.y.at(shape.y0), panel.y.at(shape.y1)))
    return x0, x1, y0, y1


def _shaded(figure: Figure, panel: Panel) -> Iterator[str]:
    """Filled blocks, behind everything."""
    for shape in _of_panel(figure, panel, "rect"):
        if shape.fillcolor:
            x0, x1, y0, y1 = _ends(panel, shape)
            yield element("rect", x=x0, y=y0, width=x1 - x0, height=y1 - y0, fill=shape.fillcolor)


def _outlines(figure: Figure, panel: Panel) -> Iterator[str]:
    """Frames, in front of what they frame."""
    for shape in _of_panel(figure, panel, "rect"):
        if not shape.fillcolor:
            x0, x1, y0, y1 = _ends(panel, shape)
            yield element(
                "rect", x=x0, y=y0, width=x1 - x0, height=y1 - y0, fill="none",
                stroke=shape.line.color, stroke_width=shape.line.width or 1,
            )  # fmt: skip


def _straight_lines(figure: Figure, panel: Panel) -> Iterator[str]:
    """Straight lines across a panel."""
    for shape in _of_panel(figure, panel, "line"):
        if shape.xref == panel.x_name and not panel.x.holds(shape.x0):
            continue
        if shape.yref == panel.y_name and not panel.y.holds(shape.y0):
            continue
        x0, x1, y0, y1 = _ends(panel, shape)
        drawn = f"M{x0:.1f} {y1:.1f}V{y0:.1f}" if x0 == x1 else f"M{x0:.1f} {y0:.1f}H{x1:.1f}"
        yield element(
            "path", d=drawn, stroke=shape.line.color or QUIET_INK["light"],
            stroke_width=shape.line.width or 1, stroke_dasharray=DASHES.get(shape.line.dash or ""),
        )  # fmt: skip


def _notes(figure: Figure, panel: Panel) -> Iterator[str]:
    """Words at a value, above the panel."""
    for note in figure.layout.annotations:
        if (note.xref or "x") == panel.x_name and note.yref == "paper":
            place = panel.x.at(note.x)
            yield text(
                place, panel.y.end - 6, note.text, text_anchor="middle", fill=INK["light"],
                font_size=float(note.font.size or 12),
            )  # fmt: skip


def _panel_title(panel: Panel) -> Iterator[str]:
    middle = (panel.x.start + panel.x.end) / 2
    for place, line in enumerate(panel.title):
        above = 7 + 14 * (len(panel.title) - 1 - place)
        yield text(
            middle, panel.y.end - above, line, text_anchor="middle", fill=INK["light"], font_size=12
        )
