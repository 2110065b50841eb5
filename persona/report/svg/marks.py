"""Marks of a plotly trace as SVG elements: ribbons, lines, markers, whiskers, cells."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape, unescape
from typing import Any

from persona.report.svg.axes import Axis
from persona.report.svg.layout import LINE
from persona.report.theme import ENDS, GROUND, INK, MIDDLE, Mode

DASHES = {"dash": "9 5", "dot": "2 4", "dashdot": "9 4 2 4"}
STAR = ((0, -1.5), (0.45, -0.45), (1.5, 0), (0.45, 0.45), (0, 1.5), (-0.45, 0.45), (-1.5, 0),
        (-0.45, -0.45))  # fmt: skip
OUTLINES = {
    "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "diamond": ((0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)),
    "triangle-up": ((0, -1.25), (1.2, 0.9), (-1.2, 0.9)),
    "triangle-down": ((0, 1.25), (1.2, -0.9), (-1.2, -0.9)),
    "pentagon": ((0, -1.15), (1.1, -0.35), (0.7, 0.95), (-0.7, 0.95), (-1.1, -0.35)),
    "hexagon2": ((1.15, 0), (0.58, 1), (-0.58, 1), (-1.15, 0), (-0.58, -1), (0.58, -1)),
    "star-diamond": STAR,
}
SHADES = 40
"""Steps of the diverging scale from end to end; so few that a page can name each of them."""
MARKS = 8
"""Marks on a line, at most about so many."""
WHOLE = re.compile(r"(?<=\d)\.0(?!\d)")
"""The end of a whole number, which `PLACES` can do without."""
PLACES = ("d", "points")
DOTS = 100
"""From more round marks than this on they are one path."""
RING = 7.5
"""Pixels: an open mark with more than this radius goes around another one."""
STROKES = {
    "x": (((-1, -1), (1, 1)), ((-1, 1), (1, -1))),
    "cross": (((-1.2, 0), (1.2, 0)), ((0, -1.2), (0, 1.2))),
}


def element(name: str, content: str = "", **attributes: Any) -> str:
    """One SVG element; numbers are written to a tenth of a pixel, `_` in names as `-`."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_shown(key, value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def text(x: float, y: float, words: str, **attributes: Any) -> str:
    """Words at a place, line below line where plotly's `<br>` parts them.

    Those that come escaped for plotly are escaped once, not twice.
    """
    first, *others = [escape(unescape(line), quote=False) for line in words.split("<br>")]
    below = "".join(element("tspan", line, x=x, dy=LINE) for line in others)
    return element("text", first + below, x=x, y=y, **attributes)


def trace_marks(trace: Any, x: Axis, y: Axis) -> Iterator[str]:
    """The elements of one scatter or heat map trace."""
    if trace.type == "heatmap":
        yield from _cells(trace, x, y)
        return
    places = [(x.at(a), y.at(b)) for a, b in zip(trace.x, trace.y, strict=True)]
    if trace.fill == "toself":
        yield element("polygon", points=_points(places), fill=trace.fillcolor)
        return
    mode = trace.mode or "lines+markers"
    if "lines" in mode:
        for run in _runs(places):
            yield element("polyline", points=_points(run), fill="none", **line_style(trace))
    yield from _whiskers(trace, places, x)
    if mode == "markers" and len(places) > DOTS:
        yield _dots(trace, places)
    elif "markers" in mode:
        # On a line of many points a few marks tell it from the others.
        step = 1 + len(places) // MARKS if "lines" in mode else 1
        for place in places[::step]:
            if all(map(math.isfinite, place)):
                yield marker(trace, *place)


def _dots(trace: Any, places: Iterable[tuple[float, float]]) -> str:
    """Hundreds of round marks as one path of points: a tenth of the bytes."""
    drawn = "".join(f"M{x:.1f} {y:.0f}h0" for x, y in places if math.isfinite(x + y))
    return element(
        "path", d=drawn, stroke=trace.marker.color, stroke_width=float(trace.marker.size or 7),
        stroke_linecap="round", stroke_opacity=trace.marker.opacity, fill="none",
    )  # fmt: skip


def line_style(trace: Any) -> dict[str, Any]:
    """Stroke of a trace's line."""
    return {
        "stroke": trace.line.color,
        "stroke_width": trace.line.width or 2,
        "stroke_dasharray": DASHES.get(trace.line.dash or ""),
    }


def marker(trace: Any, x: float, y: float) -> str:
    """The symbol of a trace at a place; an open one is filled with the ground."""
    named, colour = str(trace.marker.symbol or "circle"), trace.marker.color or trace.line.color
    half, symbol = float(trace.marker.size or 7) / 2, named.removesuffix("-open")
    if symbol in STROKES:
        drawn = "".join(
            f"M{x + half * a:.1f} {y + half * b:.1f}L{x + half * c:.1f} {y + half * d:.1f}"
            for (a, b), (c, d) in STROKES[symbol]
        )
        return element("path", d=drawn, stroke=colour, stroke_width=2.4)
    hollow = named.endswith("-open")
    filled = {"fill": GROUND["light"], "stroke": colour, "stroke_width": 1.6}
    if half > RING:  # a ring around another mark
        filled["fill"] = "none"
    if symbol in OUTLINES:
        corners = [(x + half * a, y + half * b) for a, b in OUTLINES[symbol]]
        return element(
            "polygon", points=_points(corners), **(filled if hollow else {"fill": colour})
        )
    style = filled if hollow else {"fill": colour, "fill_opacity": trace.marker.opacity}
    return element("circle", cx=x, cy=y, r=half, **style)


def _whiskers(trace: Any, places: Sequence[tuple[float, float]], x: Axis) -> Iterator[str]:
    bars = trace.error_x
    if bars.array is None:
        return
    cap = float(bars.width or 5)
    for value, above, below, (_, y) in zip(
        trace.x, bars.array, bars.arrayminus, places, strict=True
    ):
        low, high = x.at(value - below), x.at(value + above)
        if not math.isfinite(low) or not math.isfinite(high):
            continue  # an interval without ends
        drawn = f"M{low:.1f} {y:.1f}H{high:.1f}"
        drawn += "".join(f"M{end:.1f} {y - cap:.1f}V{y + cap:.1f}" for end in (low, high))
        yield element("path", d=drawn, stroke=bars.color, stroke_width=bars.thickness, fill="none")


def _cells(trace: Any, x: Axis, y: Axis) -> Iterator[str]:
    """Cells with their words one by one; without words, all of one shade in one path."""
    wide = abs(x.end - x.start) / len(trace.x)
    high = abs(y.end - y.start) / len(trace.y)
    written, of_shade = [], dict[str, list[str]]()
    for row, name in enumerate(trace.y):
        for column, other in enumerate(trace.x):
            value = math.nan if trace.z[row][column] is None else float(trace.z[row][column])
            share = (value - trace.zmin) / (trace.zmax - trace.zmin)
            fill = shade(share) if math.isfinite(share) else GROUND["light"]
            # A stroke as wide as the row is high: half the bytes of an outline.
            drawn = f"M{x.at(other) - wide / 2 + 0.5:.1f} {y.at(name):.1f}h{wide - 1:.1f}"
            of_shade.setdefault(fill, []).append(drawn)
            if trace.text is not None:
                ink = GROUND["light"] if abs(share - 0.5) > 0.3 else INK["light"]
                words = trace.text[row][column]
                start = y.at(name) + 4 - LINE / 2 * words.count("<br>")
                written.append(text(x.at(other), start, words, fill=ink, text_anchor="middle"))
    for fill, drawn_ones in of_shade.items():
        yield element("path", d="".join(drawn_ones), stroke=fill, stroke_width=high - 1)
    yield from written


def shade(share: float, mode: Mode = "light") -> str:
    """The colour of the diverging scale at 0 .. 1, in steps; 0.5 is its middle."""
    share = round(min(1.0, max(0.0, share)) * SHADES) / SHADES
    below, above = ENDS[mode]
    end, far = (below, 1 - 2 * share) if share < 0.5 else (above, 2 * share - 1)
    parts = [
        round((1 - far) * int(MIDDLE[mode][i : i + 2], 16) + far * int(end[i : i + 2], 16))
        for i in (1, 3, 5)
    ]
    return "#" + "".join(f"{part:02x}" for part in parts)


def _runs(places: Sequence[tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
    """Unbroken pieces of a line: a value that is not there interrupts it."""
    run: list[tuple[float, float]] = []
    for place in [*places, (math.nan, math.nan)]:
        if all(map(math.isfinite, place)):
            run.append(place)
        elif run:
            yield run
            run = []


def _points(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places if math.isfinite(x) and math.isfinite(y))


def _shown(key: str, value: Any) -> str:
    if isinstance(value, float):
        return WHOLE.sub("", f"{value:.1f}")
    return WHOLE.sub("", value) if key in PLACES else escape(str(value))
