"""Marks that several figures draw in one way: ribbons, levels, dots with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from persona.intervals import Estimate
from persona.report.theme import Look, svg_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def ribbon(
    figure: Figure,
    x: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    fill: str,
    group: str,
    *,
    label: str = "",
    **where: Any,
) -> None:
    """Fill the area between two curves; it comes and goes with the legend group."""
    figure.add_scatter(
        x=[*x, *reversed(x)],
        y=[*high, *reversed(low)],
        fill="toself",
        fillcolor=fill,
        line={"width": 0, "color": fill},
        mode="lines",
        hoverinfo="skip",
        name=label,
        showlegend=bool(label),
        legendgroup=svg_text(group),
        **where,
    )


def vertical_level(figure: Figure, x: float, colour: str, **where: Any) -> None:
    """A thin dotted line across a panel, behind the data."""
    figure.add_vline(
        x=x,
        line={"color": colour, "width": 1.5, "dash": "dot"},
        layer="below",
        exclude_empty_subplots=False,
        **where,
    )


def dot_with_interval(
    figure: Figure,
    e: Estimate,
    y: str | float,
    look: Look,
    *,
    size: float = 10,
    name: str | None = None,
    **where: Any,
) -> None:
    """A marker at the value with whiskers to both ends of its interval; in the legend if named."""
    label = svg_text(look.label)
    n = f", n = {e.n}" if e.n else ""
    figure.add_scatter(
        x=[e.value],
        y=[y],
        mode="markers",
        name=name or label,
        meta=e.n,
        showlegend=name is not None,
        marker={"color": look.colour, "symbol": look.symbol, "size": size},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [e.high - e.value],
            "arrayminus": [e.value - e.low],
            "color": look.colour,
            "thickness": 1.8,
            "width": 0.6 * size,
        },
        hovertemplate=f"{label}: %{{x:+.3f}} [{e.low:+.3f}, {e.high:+.3f}]{n}<extra></extra>",
        **where,
    )


def spread_of_draws(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heights in ±0.28, by rank, in steps of the golden ratio: neighbours in x are apart in y."""
    heights = np.empty(len(found))
    golden = (np.sqrt(5) - 1) / 2
    heights[np.argsort(found, kind="stable")] = np.arange(len(found)) * golden % 1
    return (heights - 0.5) * 0.56
