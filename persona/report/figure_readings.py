"""What a figure shows, in words: the table under it, and a sentence for who cannot see it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from typing import TYPE_CHECKING, Any

import numpy as np

from persona.report.svg.layout import side_by_side
from persona.report.wording import n_is, number, with_interval

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WRITTEN_OUT = 6
"""So many points of a line are told one by one; of more the ends, the lowest and the highest."""
SPOKEN = 9
"""Readings in the sentence; the others are in the table."""
DIGITS = 2


@dataclass(frozen=True)
class Reading:
    """One line of the table: which panel, what is read there, and its value in words."""

    panel: str
    what: str
    value: str


def figure_readings(figure: Figure) -> list[Reading]:
    """Every mark, line and row of cells of a figure, panel by panel."""
    found = []
    for panel in side_by_side(figure, 860).panels:
        title = " ".join(panel.title) or (panel.y.title or "").replace("<br>", " ")
        for trace in figure.data:
            if (trace.xaxis or "x", trace.yaxis or "y") == (panel.x_name, panel.y_name):
                found += [Reading(unescape(title), *told) for told in _of_trace(trace, panel.x)]
    titles = {reading.panel for reading in found}
    if len(titles) == 1:
        return [Reading("", reading.what, reading.value) for reading in found]
    return found


def spoken(title: str, readings: Sequence[Reading]) -> str:
    """One sentence with the finding: the first readings, those of the first panel before others."""
    said = [f"{reading.what} {reading.value}" for reading in readings[:SPOKEN]]
    more = len(readings) - len(said)
    rest = f"; and {more} more in the table" if more > 0 else ""
    return f"{title}: {'; '.join(said)}{rest}."


def _of_trace(trace: Any, x: Any) -> Iterator[tuple[str, str]]:
    name = unescape(str(trace.name or "")).replace("<br>", " ")
    if trace.type == "heatmap":
        yield from _of_cells(trace)
    elif trace.fill or not name or trace.x is None or not _known(trace):
        return  # a band belongs to its line; a mark of the legend alone reads nothing
    elif trace.error_x.array is not None:
        for value, above, below in zip(
            trace.x, trace.error_x.array, trace.error_x.arrayminus, strict=True
        ):
            ends = {"value": value, "low": value - below, "high": value + above}
            n = f", {n_is(trace.meta)}" if trace.meta else ""
            yield name, with_interval(ends, DIGITS, signed=True) + n
    elif "lines" in (trace.mode or ""):
        if len(set(trace.x)) > 1:
            yield name, _of_line(trace, x.title or "x")
    elif len(trace.x) > 1:
        yield name, _of_draws(trace)


def _known(trace: Any) -> bool:
    return any(value is not None for value in trace.x)


def _of_line(trace: Any, axis: str) -> str:
    points = [(a, b) for a, b in zip(trace.x, trace.y, strict=True) if b is not None]
    where = axis.split(" (")[0]
    if len({b for _, b in points}) == 1:
        return f"{_signed(points[0][1])} throughout"
    if len(points) <= WRITTEN_OUT:
        return ", ".join(f"{_signed(b)} at {where} {a:g}" for a, b in points)
    low, high = min(points, key=lambda p: p[1]), max(points, key=lambda p: p[1])
    told = dict.fromkeys((points[0], low, high, points[-1]))
    return ", ".join(f"{_signed(b)} at {where} {a:g}" for a, b in sorted(told))


def _of_draws(trace: Any) -> str:
    values = np.array([float(v) for v in trace.x])
    n = f", {n_is(trace.meta)}" if trace.meta else ""
    return (
        f"{_signed(values.mean())} in the mean of {len(values)} draws, from "
        f"{_signed(values.min())} to {_signed(values.max())}{n}"
    )


def _of_cells(trace: Any) -> Iterator[tuple[str, str]]:
    """The lowest and the highest cell of each row."""
    for name, cells in zip(trace.y, trace.z, strict=True):
        points = [
            (float(v), x)
            for x, v in zip(trace.x, cells, strict=True)
            if v is not None and np.isfinite(float(v))
        ]
        if points:
            low, high = min(points), max(points)
            yield (
                unescape(str(name)),
                f"lowest {_signed(low[0])} at {low[1]}, highest {_signed(high[0])} at {high[1]}",
            )


def _signed(value: float) -> str:
    return number(value, DIGITS, signed=True)
