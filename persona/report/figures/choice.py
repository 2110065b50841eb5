"""How the direction was chosen: the map of layers and candidates, and the 2x2 by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from persona.intervals import Estimate
from persona.report.figures.shared_marks import ribbon
from persona.report.tables import checked, estimate, readings
from persona.report.theme import (
    CONDITIONS,
    EFFECTS,
    candidate_label,
    candidate_place,
    effect_look,
    new_figure,
    svg_text,
    translucent,
)
from persona.report.wording import as_float, n_is
from persona.rows import RANDOM, RESTORED

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CHOSEN = CONDITIONS[RESTORED].colour
NULL = CONDITIONS[RANDOM].colour
ROW_HEIGHT = 24


def layer_map(rows: pd.DataFrame, direction: Mapping[str, Any] | None = None) -> Figure:
    """Predicted change of the gap by block and candidate, mean over the selection questions.

    First order, nats per token; negative is toward the aligned model. Below it the candidate of
    `direction` (else the one that reaches lowest) with its 95 % interval over questions, and
    random candidates where some were screened.

    Args:
        direction: The scorecard's `direction`; its blocks are framed.

    Raises:
        DataError: no rows of the screen.
    """
    screened = readings(checked(rows), "screen", "predicted_gap_change")
    screened = screened.assign(rank=screened["rank"].fillna(1).astype(int))
    means = screened.groupby(["candidate", "rank", "layer"])["value"].mean()
    grid = means.unstack("layer").sort_index(axis=1)
    grid = grid.loc[sorted(grid.index, key=lambda key: (*candidate_place(key[0]), key[1]))]
    method, rank, chosen_layers = _chosen(direction)
    shown = (method, rank) if (method, rank) in grid.index else grid.min(axis=1).idxmin()
    layers = [int(layer) for layer in grid.columns]
    n = screened["question_id"].nunique()

    height_of_map = ROW_HEIGHT * len(grid)
    inner = height_of_map + 40 + 190
    figure = new_figure(
        title="Where restoring would move the gap: first-order prediction",
        subtitle=f"mean over {n_is(n)} selection questions; blue is toward the aligned model",
        inner=inner,
        bottom=108,
        rows=2,
        cols=1,
        shared_xaxes=True,
        row_heights=[height_of_map, 190],
        vertical_spacing=40 / inner,
    )
    labels = [_row_label(name, r) for name, r in grid.index]
    reach = float(np.nanmax(np.abs(grid.to_numpy()))) or 1.0
    figure.add_heatmap(
        x=layers,
        y=labels,
        z=grid.to_numpy(dtype=np.float64).tolist(),
        zmin=-reach,
        zmax=reach,
        xgap=1,
        ygap=1,
        autocolorscale=False,
        colorbar={
            "title": {"text": "nats per token", "side": "right"},
            "len": height_of_map / inner,
            "thickness": 12,
            "y": 1,
            "yanchor": "top",
            "ypad": 0,
            "tickformat": "+.2f",
            "nticks": 7,
        },
        hovertemplate="%{y}<br>block %{x}: %{z:+.3f} nats per token<extra></extra>",
        name="predicted change",
        row=1,
        col=1,
    )
    if (method, rank) in grid.index and chosen_layers:
        _frame_blocks(figure, chosen_layers, labels.index(_row_label(method, rank)))
    _line_of_one(figure, screened, shown)
    for label in _random_candidates(grid):
        _line_of_null(figure, screened, label)
    _shade_blocks(figure, chosen_layers, row=2)
    figure.add_hline(y=0, line={"width": 1}, layer="below", row=2, col=1)
    figure.update_yaxes(autorange="reversed", showgrid=False, row=1, col=1)
    figure.update_yaxes(
        title_text="predicted gap change<br>(nats per token)", tickformat="+.2f", row=2, col=1
    )
    figure.update_xaxes(showgrid=False, row=1, col=1)
    figure.update_xaxes(
        title_text="block (0-based)", range=[layers[0] - 0.5, layers[-1] + 0.5], row=2, col=1
    )
    return figure


def effects_by_block(
    rows: pd.DataFrame,
    direction: Mapping[str, Any] | None = None,
    *,
    d_model: int | None = None,
) -> Figure:
    """Size and split-half cosine of the effects of the 2x2, block by block.

    Norms are in units of the residual stream, on a log scale. The cosine is between the means of
    random halves of the questions; bands are the middle 95 % of the splits. The control is the
    cosine of two random vectors of `d_model`, 0 ± 1.96 / sqrt(d_model).

    Raises:
        DataError: no rows of the stage "direction".
    """
    checked(rows)
    norms = readings(rows, "direction", "norm")
    cosines = readings(rows, "direction", "split_half_cosine")
    figure = new_figure(
        title="The effects of the 2×2 of models and answers, by block",
        subtitle="left: size; right: agreement between halves of the training questions",
        inner=260,
        bottom=108,
        rows=1,
        cols=2,
        horizontal_spacing=0.12,
    )
    present = set(norms["candidate"]) | set(cosines["candidate"])
    for name in [e for e in EFFECTS if e in present] + sorted(present - set(EFFECTS)):
        look, group = effect_look(str(name)), str(name)
        band = _split_band(rows, group)
        if band is not None:
            ribbon(figure, *band, translucent(look.colour, 0.13), group, row=1, col=2)
        for col, table in ((1, norms), (2, cosines)):
            by_layer = table[table["candidate"] == name].groupby("layer")["value"].mean()
            figure.add_scatter(
                x=[int(layer) for layer in by_layer.index],
                y=by_layer.tolist(),
                mode="lines+markers",
                name=svg_text(look.label),
                legendgroup=svg_text(group),
                showlegend=col == 1,
                line={"color": look.colour, "width": 1.8, "dash": look.dash},
                marker={"symbol": look.symbol, "size": 6, "color": look.colour},
                hovertemplate="block %{x}: %{y:.3g}",
                row=1,
                col=col,
            )
    _, _, chosen_layers = _chosen(direction)
    for col in (1, 2):
        _shade_blocks(figure, chosen_layers, row=1, col=col, named=col == 1)
    first, last = int(cosines["layer"].min()), int(cosines["layer"].max())
    if d_model:
        chance = 1.96 / float(np.sqrt(d_model))
        ribbon(
            figure,
            [first, last],
            [-chance] * 2,
            [chance] * 2,
            translucent(NULL, 0.3),
            "chance",
            label=f"two random vectors of {d_model} dimensions, 95 %",
            row=1,
            col=2,
        )
    low = min(-0.15, float(cosines["value"].min()) - 0.05)
    figure.update_yaxes(title_text="norm (residual-stream units, log)", type="log", row=1, col=1)
    figure.update_yaxes(tickvals=_log_ticks(norms["value"]), row=1, col=1)
    figure.update_yaxes(title_text="split-half cosine (−1 to 1)", range=[low, 1.04], row=1, col=2)
    figure.update_xaxes(title_text="block (0-based)", range=[first - 0.7, last + 0.7])
    return figure


def _row_label(name: str, rank: Any) -> str:
    return svg_text(candidate_label(name)) + f" · r{rank}"


def _chosen(direction: Mapping[str, Any] | None) -> tuple[str, int, list[int]]:
    known = direction or {}
    layers = sorted(int(layer) for layer in known.get("layers") or [])
    return str(known.get("method") or ""), int(as_float(known.get("rank")) or 0), layers


def _random_candidates(grid: pd.DataFrame) -> list[tuple[str, int]]:
    return [key for key in grid.index if str(key[0]).startswith("random")]


def _runs(layers: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive blocks as (first, last)."""
    runs: list[tuple[int, int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], layer)
        else:
            runs.append((layer, layer))
    return runs


def _frame_blocks(figure: Figure, layers: Sequence[int], place: int) -> None:
    for first, last in _runs(layers):
        figure.add_shape(
            type="rect",
            x0=first - 0.5,
            x1=last + 0.5,
            y0=place - 0.5,
            y1=place + 0.5,
            line={"color": CHOSEN, "width": 2.5},
            row=1,
            col=1,
        )


def _shade_blocks(
    figure: Figure, layers: Sequence[int], *, row: int, col: int = 1, named: bool = True
) -> None:
    """Shade the chosen blocks, with an entry in the legend."""
    for first, last in _runs(layers):
        figure.add_vrect(
            x0=first - 0.5,
            x1=last + 0.5,
            fillcolor=translucent(CHOSEN, 0.14),
            line_width=0,
            layer="below",
            row=row,
            col=col,
        )
    if layers and named:
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name="chosen blocks",
            marker={"symbol": "square", "size": 12, "color": translucent(CHOSEN, 0.4)},
            row=row,
            col=col,
        )


def _by_layer(screened: pd.DataFrame, key: Any) -> tuple[list[int], list[Estimate]]:
    mine = screened[(screened["candidate"] == key[0]) & (screened["rank"] == key[1])]
    found = {
        int(layer): estimate(group.groupby("question_id")["value"].mean())
        for layer, group in mine.groupby("layer")
    }
    return sorted(found), [found[layer] for layer in sorted(found)]


def _line_of_one(figure: Any, screened: pd.DataFrame, key: Any) -> None:
    layers, estimates = _by_layer(screened, key)
    n = estimates[0].n
    low, high = [e.low for e in estimates], [e.high for e in estimates]
    ribbon(figure, layers, low, high, translucent(CHOSEN, 0.25), "chosen", row=2, col=1)
    figure.add_scatter(
        x=layers,
        y=[e.value for e in estimates],
        mode="lines+markers",
        name=f"{_row_label(*key)}, 95 % interval over {n} questions",
        legendgroup="chosen",
        line={"color": CHOSEN, "width": 2},
        marker={"size": 5, "color": CHOSEN, "symbol": "diamond"},
        hovertemplate="block %{x}: %{y:+.3f}<extra></extra>",
        row=2,
        col=1,
    )


def _line_of_null(figure: Figure, screened: pd.DataFrame, key: Any) -> None:
    layers, estimates = _by_layer(screened, key)
    figure.add_scatter(
        x=layers,
        y=[e.value for e in estimates],
        mode="lines",
        name=_row_label(*key),
        line={"color": NULL, "width": 1.6, "dash": "dash"},
        hovertemplate="block %{x}: %{y:+.3f}<extra></extra>",
        row=2,
        col=1,
    )


def _log_ticks(values: pd.Series[float]) -> list[float]:
    """1, 2, 5, 10, 20, ... over the range of the values."""
    known = values[values > 0]
    if known.empty:
        return []
    low, high = float(known.min()) / 2, float(known.max()) * 2
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    ticks = [m * 10.0**power for power in range(first, last + 1) for m in (1, 2, 5)]
    return [tick for tick in ticks if low <= tick <= high]


def _split_band(
    rows: pd.DataFrame, candidate: str
) -> tuple[list[int], list[float], list[float]] | None:
    """Blocks, low and high of the split-half cosine, where the rows have them."""
    chosen = rows[(rows["stage"] == "direction") & (rows["candidate"] == candidate)]
    table = chosen.pivot_table("value", "layer", "measure", aggfunc="mean")
    if not {"split_half_low", "split_half_high"} <= set(table.columns):
        return None
    table = table[["split_half_low", "split_half_high"]].dropna()
    low, high = table["split_half_low"].tolist(), table["split_half_high"].tolist()
    return [int(layer) for layer in table.index], low, high
