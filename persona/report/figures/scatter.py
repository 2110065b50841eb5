"""Answers of several conditions on two axes, with the spread along each axis beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.errors import DataError
from persona.report.theme import in_order, look_of, new_figure, svg_text, translucent
from persona.report.wording import n_is

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

N_GRID = 120


def principal_components(answers: Mapping[str, NDArray[np.floating]]) -> pd.DataFrame:
    """Coordinates of every answer on the first two principal components of all of them together.

    answers: condition -> [answer d_model], one vector an answer (a mean over its tokens), all of
        one block.
    Columns: condition, answer, component_1, component_2 (units of the vectors), share_1, share_2
    (of the whole variance). The sign of a component is such that the last condition's mean lies
    above the first's: PCA itself leaves it open.
    Raises: DataError for fewer than three answers, or vectors of different widths or not finite.
    """
    tables = {name: np.asarray(rows, dtype=np.float64) for name, rows in answers.items()}
    shapes = {name: rows.shape for name, rows in tables.items()}
    widths = {shape[1:] for shape in shapes.values()}
    if len(widths) != 1 or any(len(shape) != 2 for shape in shapes.values()):
        raise DataError(f"principal components need [answer d_model] of one width; got {shapes}")
    everything = np.concatenate(list(tables.values()))
    if len(everything) < 3 or everything.shape[1] < 2 or not np.isfinite(everything).all():
        raise DataError("principal components need three answers or more, all finite")
    centred = everything - everything.mean(axis=0)
    _, sizes, rows = np.linalg.svd(centred, full_matrices=False)
    places = centred @ rows[:2].T
    names = np.repeat(list(tables), [len(rows) for rows in tables.values()])
    first, last = next(iter(tables)), list(tables)[-1]
    towards = places[names == last].mean(axis=0) - places[names == first].mean(axis=0)
    places *= np.where(towards < 0, -1.0, 1.0)
    total = float((sizes**2).sum()) or 1.0
    return pd.DataFrame(
        {
            "condition": names,
            "answer": np.concatenate([np.arange(len(rows)) for rows in tables.values()]),
            "component_1": places[:, 0],
            "component_2": places[:, 1],
            "share_1": float(sizes[0] ** 2) / total,
            "share_2": float(sizes[1] ** 2) / total,
        }
    )


def answer_scatter(
    table: pd.DataFrame, *, title: str = "Answers on their first two components"
) -> Figure:
    """One mark an answer; above and beside it the density of each condition along the axis.

    Densities are Gaussian kernel estimates (Scott's bandwidth), each of area 1, so that conditions
    of different n compare; both axes have one scale. Crosses mark the conditions' means.

    table: columns condition, component_1, component_2 and, where they are known, share_1, share_2,
        as `principal_components` gives it.
    Raises: DataError for an empty table, a missing column or a value that is not finite.
    """
    if missing := {"condition", "component_1", "component_2"} - set(table.columns):
        raise DataError(f"the table of answers lacks the column {sorted(missing)[0]!r}")
    places = table[["component_1", "component_2"]].to_numpy(dtype=np.float64)
    if not len(places) or not np.isfinite(places).all():
        raise DataError("the table of answers is empty or holds values that are not finite")
    counts = table["condition"].value_counts()
    figure = new_figure(
        title=title,
        subtitle=f"{n_is(len(table))} answers, one vector each; axes fitted to all of them",
        inner=430,
        bottom=92,
        rows=2,
        cols=2,
        column_widths=[0.82, 0.18],
        row_heights=[0.2, 0.8],
        horizontal_spacing=0.02,
        vertical_spacing=0.02,
        shared_xaxes=True,
        shared_yaxes=True,
    )
    grids = [_grid(places[:, axis]) for axis in (0, 1)]
    for condition in in_order(counts.index):
        look, mine = look_of(condition), places[(table["condition"] == condition).to_numpy()]
        label = svg_text(look.label)
        shown = {"legendgroup": label, "showlegend": False}
        figure.add_scatter(
            x=mine[:, 0].tolist(),
            y=mine[:, 1].tolist(),
            mode="markers",
            name=f"{label} ({n_is(counts[condition])})",
            legendgroup=label,
            marker={
                "symbol": look.symbol,
                "size": 8 if len(table) <= 400 else 5,
                "color": look.colour,
                "opacity": 0.75,
            },
            hovertemplate=f"{label}: %{{x:.3g}}, %{{y:.3g}}<extra></extra>",
            row=2,
            col=1,
        )
        figure.add_scatter(
            x=[float(mine[:, 0].mean())],
            y=[float(mine[:, 1].mean())],
            mode="markers",
            marker={
                "symbol": "cross-thin",
                "size": 22,
                "line": {"color": look.colour, "width": 3},
            },
            hovertemplate=f"mean of {label}: %{{x:.3g}}, %{{y:.3g}}<extra></extra>",
            **shown,
            row=2,
            col=1,
        )
        line = {"color": look.colour, "width": 1.8}
        fill = {"fillcolor": translucent(look.colour, 0.14), "mode": "lines", "line": line}
        along, beside = (_density(mine[:, axis], grid).tolist() for axis, grid in enumerate(grids))
        figure.add_scatter(
            x=grids[0].tolist(),
            y=along,
            fill="tozeroy",
            hoverinfo="skip",
            **fill,
            **shown,
            row=1,
            col=1,
        )
        figure.add_scatter(
            x=beside,
            y=grids[1].tolist(),
            fill="tozerox",
            hoverinfo="skip",
            **fill,
            **shown,
            row=2,
            col=2,
        )
    figure.update_xaxes(title_text=_axis_title(table, 1), row=2, col=1)
    figure.update_yaxes(title_text=_axis_title(table, 2), row=2, col=1)
    figure.update_yaxes(visible=False, rangemode="tozero", row=1, col=1)
    figure.update_xaxes(visible=False, rangemode="tozero", row=2, col=2)
    figure.update_xaxes(title_text="", showgrid=False, row=1, col=1)
    return figure


def _axis_title(table: pd.DataFrame, component: int) -> str:
    share = f"share_{component}"
    known = f", {table[share].iloc[0]:.0%} of the variance" if share in table.columns else ""
    return f"component {component} (residual-stream units{known})"


def _grid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    pad = 0.12 * (high - low) or 1.0
    return np.linspace(low - pad, high + pad, N_GRID)


def _density(values: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian kernel density, bandwidth n^(-1/5) times the standard deviation (Scott 1992)."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    width = (spread or float(np.ptp(grid)) / 20) * len(values) ** -0.2
    distances = (grid[:, None] - values[None]) / width
    return np.exp(-0.5 * distances**2).mean(axis=1) / (width * np.sqrt(2 * np.pi))
