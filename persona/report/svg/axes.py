"""Axes of a plotly figure on paper: where a value lies, and which ticks stand at which place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MARGIN = 0.06
"""Share of the data's range that is left free at both ends."""


@dataclass
class Axis:
    """One axis. start, end: pixels of its low and its high end. ticks: value and text.

    names: the categories of an axis of words, in order; a word lies at its place in the list.
    """

    start: float
    end: float
    low: float
    high: float
    log: bool = False
    ticks: list[tuple[float, str]] = field(default_factory=list)
    title: str = ""
    names: list[str] = field(default_factory=list)
    labelled: bool = True
    grid: bool = True

    def at(self, value: Any) -> float:
        """Pixel of a value; NaN where it has none, such as 0 on a logarithmic axis."""
        number = float(self.names.index(value)) if isinstance(value, str) else _number(value)
        if self.log:
            number = math.log10(number) if number > 0 else math.nan
        return self.start + (number - self.low) / (self.high - self.low) * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether a value lies between both ends."""
        first, last = sorted((self.start, self.end))
        return first - 0.5 <= self.at(value) <= last + 0.5


def axis_of(figure: Figure, reference: str, start: float, end: float, n_ticks: int) -> Axis:
    """The axis that traces call `reference` (x, y2, ...), over the pixels of its domain."""
    settings = figure.layout[reference[0] + "axis" + reference[1:]]
    values = [v for other in _sharing(figure, reference) for v in _values(figure, other)]
    names = list(settings.categoryarray or ())
    names += [v for v in dict.fromkeys(values) if isinstance(v, str) and v not in names]
    log = settings.type == "log"
    if names:
        low, high = -0.5, len(names) - 0.5
        if settings.autorange == "reversed":
            low, high = high, low
    elif (told := settings.range or _leader(figure, reference).range) is not None:
        low, high = map(float, told)
    else:
        low, high = _reach([_number(v) for v in values], log)
    if low == high:  # all values are one, and an axis needs room
        low, high = low - 0.5, high + 0.5
    axis = Axis(start, end, low, high, log, title=settings.title.text or "", names=names)
    axis.labelled = settings.showticklabels is not False
    axis.grid = settings.showgrid is not False
    if names:
        axis.ticks = [(float(place), name) for place, name in enumerate(names)]
    elif settings.tickvals is not None:
        texts = settings.ticktext or [_tick(v, settings.tickformat) for v in settings.tickvals]
        ticks = [(float(v), str(t)) for v, t in zip(settings.tickvals, texts, strict=True)]
        axis.ticks = [(v, t) for v, t in ticks if axis.holds(v)]
    else:
        found = nice_ticks(low, high, log, n_ticks)
        axis.ticks = [(v, _tick(v, settings.tickformat)) for v in found]
    return axis


def _tick(value: float, form: str | None) -> str:
    """A number with a true minus, and a plus where the axis asks for signs."""
    signed = str(form or "").startswith("+") and value
    return (f"{value:+g}" if signed else f"{value:g}").replace("-", "\u2212")


def nice_ticks(low: float, high: float, log: bool, n: int) -> list[float]:
    """About `n` round values between both ends (powers of ten of them on a logarithmic axis)."""
    if log:
        powers = range(math.floor(low), math.ceil(high) + 1)
        parts = (1, 3) if high - low > 1.2 else (1, 2, 5)
        places = [m * 10.0**p for p in powers for m in parts]
        return [v for v in places if low - 1e-9 <= math.log10(v) <= high + 1e-9]
    raw = (high - low) / max(n, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    steps = [m * power for m in (0.5, 1, 2, 2.5, 5, 10)]
    place = next(i for i, step in enumerate(steps) if step >= raw - 1e-12)
    found = _multiples(steps[place], low, high)
    return found if len(found) > 1 else _multiples(steps[place - 1], low, high)


def _multiples(step: float, low: float, high: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]


def _leader(figure: Figure, reference: str) -> Any:
    """The settings of the axis that this one follows; its own where it follows none."""
    kind = reference[0]
    followed = figure.layout[f"{kind}axis{reference[1:]}"].matches or reference
    return figure.layout[f"{kind}axis{followed[1:]}"]


def _sharing(figure: Figure, reference: str) -> list[str]:
    """The axes that move with this one, itself included."""
    kind = reference[0]

    def leader(name: str) -> str:
        return str(figure.layout[f"{kind}axis{name[1:]}"].matches or name)

    names = dict.fromkeys(trace[f"{kind}axis"] or kind for trace in figure.data)
    return [name for name in names if leader(name) == leader(reference)]


def _values(figure: Figure, reference: str) -> Iterator[Any]:
    """Everything that is drawn on an axis, ends of error bars included."""
    kind = reference[0]
    for trace in figure.data:
        if (trace[f"{kind}axis"] or kind) != reference:
            continue
        own: Sequence[Any] = [] if trace[kind] is None else list(trace[kind])
        yield from own
        bars = getattr(trace, f"error_{kind}", None)
        if bars is not None and bars.array is not None:
            lower = bars.array if bars.arrayminus is None else bars.arrayminus
            for value, above, below in zip(own, bars.array, lower, strict=True):
                yield from (float(value) + float(above), float(value) - float(below))


def _reach(values: Sequence[float], log: bool) -> tuple[float, float]:
    known = np.array([v for v in values if math.isfinite(v) and (v > 0 or not log)], dtype=float)
    if log:
        known = np.log10(known)
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    room = MARGIN * (high - low) or max(abs(high), 1.0) * MARGIN
    return low - room, high + room


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
