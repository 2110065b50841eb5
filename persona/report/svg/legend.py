"""The legend of a figure: one entry a named trace, and the scale of a heat map."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from persona.report.svg.layout import CHARACTER, LINE
from persona.report.svg.marks import element, line_style, marker, shade, text
from persona.report.theme import INK
from persona.report.wording import number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LEGEND_LINE = 20
SCALE_STEPS = 9
STEP = 10


@dataclass(frozen=True)
class Entry:
    """What one trace says of itself: its mark, and words in one line or more."""

    trace: Any
    words: list[str]

    @property
    def sample(self) -> float:
        """Pixels of the mark before the words."""
        return STEP * SCALE_STEPS + 6.0 if self.trace.type == "heatmap" else 30.0

    @property
    def room(self) -> float:
        return 16 + self.sample + CHARACTER * max(map(len, self.words))


@dataclass(frozen=True)
class Legend:
    """Entries line by line."""

    lines: list[list[Entry]]

    @classmethod
    def of(cls, figure: Figure, room: float) -> Legend:
        """The named traces, as lines of so many pixels; none where one is all there is."""
        scales = [t for t in figure.data if t.type == "heatmap" and t.text is None]
        named = [
            t for t in figure.data if t.name and t.showlegend is not False and t.type == "scatter"
        ]
        if len(named) < 2 and not scales:
            return cls([])
        lines: list[list[Entry]] = [[]]
        used = 0.0
        for trace in [*scales, *named]:
            words = trace.name if trace.type == "scatter" else _reach(trace)
            entry = Entry(trace, textwrap.wrap(words, max(8, int((room - 46) / CHARACTER))))
            if used + entry.room > room and lines[-1]:
                lines.append([])
                used = 0.0
            lines[-1].append(entry)
            used += entry.room
        return cls(lines)

    @property
    def height(self) -> float:
        return float(sum(map(_height, self.lines)))

    def drawn(self, left: float, y: float) -> Iterator[str]:
        """The elements of all entries, the first at this place."""
        for line in self.lines:
            x = left
            for entry in line:
                yield from _entry(entry, x, y)
                words = "<br>".join(entry.words)
                yield text(x + entry.sample, y + 4, words, fill=INK["light"])
                x += entry.room
            y += _height(line)


def _height(line: list[Entry]) -> float:
    return LEGEND_LINE + LINE * (max(len(entry.words) for entry in line) - 1)


def _entry(entry: Entry, x: float, y: float) -> Iterator[str]:
    trace = entry.trace
    if trace.type == "heatmap":  # its colours from the lowest to the highest value
        for step in range(SCALE_STEPS):
            fill = shade(step / (SCALE_STEPS - 1))
            yield element("rect", x=x + STEP * step, y=y - 5, width=STEP, height=10, fill=fill)
        return
    if "lines" in (trace.mode or "") and trace.fill != "toself":
        yield element("path", d=f"M{x:.1f} {y:.1f}h24", fill="none", **line_style(trace))
    if trace.fill == "toself":
        yield element("rect", x=x, y=y - 5, width=24, height=10, fill=trace.fillcolor)
    elif "markers" in (trace.mode or ""):
        yield marker(trace, x + 12, y)


def _reach(heat_map: Any) -> str:
    unit = heat_map.colorbar.title.text or ""
    ends = [number(end, signed=True) for end in (heat_map.zmin, heat_map.zmax)]
    return f"{ends[0]} to {ends[1]} {unit}".strip()
