"""Does the direction of one fine-tune restore another: the matrix of `steering.transfer_matrix`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from persona.errors import DataError
from persona.report.theme import new_figure, plain, svg_text
from persona.report.wording import n_is, number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ROW_HEIGHT = 54
COLUMNS = ("vector", "fine_tune", "restoration", "low", "high", "n")


def transfer_map(
    table: pd.DataFrame,
    *,
    order: Sequence[str] | None = None,
    title: str = "Transfer: whose direction restores whom",
) -> Figure:
    """Restoration of every fine-tune (column) by every vector (row), with its 95 % interval.

    Red is a share of the shift taken back, blue worse than before; full colour is the whole shift
    (1), or further where a cell goes further. "–": no shift, so nothing to restore.

    table: that of `steering.transfer_matrix`. order: of the names; None keeps the table's.
    Raises: DataError for an empty table or a missing column.
    """
    if missing := [column for column in COLUMNS if column not in table.columns]:
        raise DataError(f"the transfer table lacks the column {missing[0]!r}")
    if table.empty:
        raise DataError("there is no transfer to draw")
    vectors = _ordered(table["vector"], order)
    fine_tunes = _ordered(table["fine_tune"], order)
    cells = {(row.vector, row.fine_tune): row for row in table.itertuples(index=False)}
    grid = [[_value(cells.get((v, f))) for f in fine_tunes] for v in vectors]
    reach = float(np.nanmax(np.abs(grid), initial=1.0, where=np.isfinite(grid)))
    counts = sorted({int(n) for n in table["n"]})
    n = n_is(counts[0]) + (f" to {counts[-1]}" if len(counts) > 1 else "")
    figure = new_figure(
        title=title,
        subtitle=f"share of the held-out shift taken back [95 % over questions], {n}; – no shift",
        inner=ROW_HEIGHT * len(vectors),
        bottom=76,
    )
    names = [[svg_text(plain(str(name))) for name in axis] for axis in (vectors, fine_tunes)]
    figure.add_heatmap(
        x=[name.replace(" ", "<br>") for name in names[1]],
        y=names[0],
        z=[[None if np.isnan(v) else v for v in row] for row in grid],
        zmin=-reach,
        zmax=reach,
        xgap=2,
        ygap=2,
        autocolorscale=False,
        text=[[_words(cells.get((v, f))) for f in fine_tunes] for v in vectors],
        texttemplate="%{text}",
        textfont={"size": 12},
        hovertemplate="direction of %{y}, restored in %{x}:<br>%{text}<extra></extra>",
        hoverongaps=False,
        colorbar={"title": {"text": "restoration (share)", "side": "right"}, "thickness": 12},
    )
    figure.update_xaxes(title_text="restored in the fine-tune", showgrid=False, tickangle=0)
    figure.update_yaxes(title_text="direction of", autorange="reversed", showgrid=False)
    return figure


def _ordered(names: pd.Series[str], order: Sequence[str] | None) -> list[str]:
    present = list(dict.fromkeys(names))
    first = [name for name in order or [] if name in present]
    return first + [name for name in present if name not in first]


def _value(cell: Any) -> float:
    return float("nan") if cell is None else float(cell.restoration)


def _words(cell: Any) -> str:
    if cell is None or np.isnan(cell.restoration):
        return "–"
    low, high = number(cell.low), number(cell.high)
    return f"{number(cell.restoration, signed=True)}<br>[{low}, {high}]"
