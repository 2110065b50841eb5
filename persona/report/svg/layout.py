"""Where the panels of a figure lie on paper: side by side as drawn, or under one another."""

from __future__ import annotations

import math
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from persona.report.svg.axes import Axis, axis_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CHARACTER = 6.9
"""Pixels of a character of size 12, on average, in a wide font; few are wider."""
LINE = 15
"""Pixels from one line of a text to the next."""
RIGHT = 22.0
TITLE_LINE = 13
"""The same for the title of an axis."""
TIGHT_ROW = 16.0
"""Pixels of a row of a narrow page for each line of its name."""
FOLDED_FROM = 15
"""Characters of the name of a row that still fits into one line of a narrow page."""
STACKED_ROOM = 48.0
"""Below a panel that others follow: its ticks and the title of its axis."""


@dataclass(frozen=True)
class Panel:
    """One panel: its axes, and the words above it, line by line."""

    x_name: str
    y_name: str
    x: Axis
    y: Axis
    title: list[str]

    @property
    def x_title(self) -> list[str]:
        """The title of the horizontal axis, line by line."""
        return wrapped(self.x.title, self.x.end - 10)

    @property
    def beside_labels(self) -> float:
        """Where the title of the vertical axis stands: left of the names of its ticks."""
        labels = [line for _, label in self.y.ticks for line in label.split("<br>")]
        longest = max(map(len, labels), default=0) if self.y.labelled else 0
        return max(14.0, self.x.start - 18 - CHARACTER * longest)


@dataclass(frozen=True)
class Layout:
    """All panels; left: where the plots begin. bottom: where the lowest one ends."""

    panels: list[Panel]
    left: float
    bottom: float


def side_by_side(figure: Figure, width: float) -> Layout:
    """Panels where the figure has them."""
    layout = figure.layout
    top, inner = float(layout.margin.t), _inner(figure)
    left = _left_margin(figure, width, narrow=False)
    panels = []
    for x_name, y_name in panel_names(figure):
        across, up = _domain(figure, x_name), _domain(figure, y_name)
        span = [left + share * (width - left - RIGHT) for share in across]
        rise = [top + (1 - share) * inner for share in up]
        panels.append(_panel(figure, x_name, y_name, span, rise))
    return Layout(panels, left, top + inner)


def stacked(figure: Figure, width: float) -> Layout:
    """Panels under one another, each as wide as the page; names of rows in two lines if long."""
    inner = _inner(figure)
    left = _left_margin(figure, width, narrow=True)
    panels: list[Panel] = []
    y = 10.0
    for x_name, y_name in panel_names(figure):
        up = _domain(figure, y_name)
        title = _title(figure, x_name, y_name, width - left - RIGHT)
        top = y + 6 + 14 * len(title)
        bottom = top + max((up[1] - up[0]) * inner, 60.0, _room_for_names(figure, y_name))
        panel = _panel(figure, x_name, y_name, [left, width - RIGHT], [bottom, top])
        panel.x.labelled = panel.y.labelled = True
        panel.y.ticks = [(v, _folded(label)) for v, label in panel.y.ticks]
        panels.append(panel)
        y = bottom + STACKED_ROOM + TITLE_LINE * (len(panel.x_title) - 1)
    return Layout(panels, left, y - STACKED_ROOM)


def _room_for_names(figure: Figure, y_name: str) -> float:
    """Pixels that the rows of a narrow page need for names of two lines or more; 0 without any."""
    axis = axis_of(figure, y_name, 1.0, 0.0, 4)
    lines = max((rows_of(_folded(label)) for _, label in axis.ticks), default=1)
    return TIGHT_ROW * lines * abs(axis.high - axis.low) if lines > 1 else 0.0


def panel_names(figure: Figure) -> list[tuple[str, str]]:
    """The pairs of axes that traces are drawn on, in order."""
    return list(dict.fromkeys((trace.xaxis or "x", trace.yaxis or "y") for trace in figure.data))


def _panel(figure: Figure, x_name: str, y_name: str, span: list[float], rise: list[float]) -> Panel:
    n_across, n_up = int((span[1] - span[0]) / 90), int((rise[0] - rise[1]) / 45)
    return Panel(
        x_name,
        y_name,
        axis_of(figure, x_name, span[0], span[1], max(3, n_across)),
        axis_of(figure, y_name, rise[0], rise[1], max(3, n_up)),
        _title(figure, x_name, y_name, span[1] - span[0]),
    )


def _inner(figure: Figure) -> float:
    """Height of what lies between the margins."""
    margin = figure.layout.margin
    return float(figure.layout.height) - float(margin.t) - float(margin.b or 60)


def _domain(figure: Figure, name: str) -> tuple[float, float]:
    low, high = figure.layout[name[0] + "axis" + name[1:]].domain or (0, 1)
    return float(low), float(high)


def _title(figure: Figure, x_name: str, y_name: str, room: float) -> list[str]:
    """The words that plotly's subplots have put above a panel."""
    across, up = _domain(figure, x_name), _domain(figure, y_name)
    lines: list[str] = []
    for note in figure.layout.annotations:
        if note.xref != "paper" or note.yref != "paper":
            continue
        inside = across[0] - 1e-6 <= note.x <= across[1] + 1e-6
        if inside and math.isclose(note.y, up[1], abs_tol=1e-6):
            for part in note.text.split("<br>"):
                lines += textwrap.wrap(part, max(8, int(room / CHARACTER)))
    return lines


def _left_margin(figure: Figure, width: float, *, narrow: bool) -> float:
    """Room for the names and the title of the vertical axes at the left edge: at most half of all.

    narrow: names may be folded.
    """
    longest, titled = 5, 0
    for _, name in panel_names(figure):
        axis = axis_of(figure, name, 1.0, 0.0, 4)
        for _, label in axis.ticks if axis.labelled or narrow else []:
            shown = _folded(label) if narrow else label
            longest = max([longest, *(len(line) for line in shown.split("<br>"))])
        titled = max(titled, rows_of(axis.title) if axis.title else 0)
    needed = 14 + CHARACTER * longest + (5 + LINE * titled if titled else 0)
    return min(needed, width / 2)


def _folded(label: str) -> str:
    """The name of a row of a narrow page: a long one in two lines, broken at any kind of space."""
    label = re.sub(r"[^\S\u00a0]", " ", label)
    if "<br>" in label or len(label) <= FOLDED_FROM:
        return label
    half = math.ceil(len(label) / 2) + 6
    return "<br>".join(textwrap.wrap(label, half, break_on_hyphens=False))


def wrapped(words: str, room: float, most: int = 2) -> list[str]:
    """Lines that fit into so many pixels."""
    return textwrap.wrap(words, max(20, int(room / CHARACTER)))[:most]


def rows_of(label: Any) -> int:
    """How many lines a label has."""
    return str(label).count("<br>") + 1
