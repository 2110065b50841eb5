"""Where can the trait be read: layer by token set by method, in one table and one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from persona.errors import DataError
from persona.models.pair import ModelPair, Side
from persona.report.figures.shared_marks import ribbon
from persona.report.theme import CONDITIONS, new_figure, plain, svg_text, translucent
from persona.report.wording import n_is
from persona.rows import RANDOM
from probes.estimators import DifferenceOfMeansProbe, LdaProbe, LogisticProbe, RidgeProbe
from probes.evaluation import Scheme, evaluate
from probes.reading import Cache, Text, read_pooled

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLUMNS = (
    "layer",
    "token_set",
    "method",
    "auroc",
    "low",
    "high",
    "n",
    "shuffled_auroc",
    "shuffled_low",
    "shuffled_high",
)
METHODS: Mapping[str, Any] = {
    "difference_of_means": DifferenceOfMeansProbe(),
    "lda": LdaProbe(),
    "logistic": LogisticProbe(),
    "ridge": RidgeProbe(),
}
# Dark enough on white and bright enough on black; each method has a marker of its own besides.
LOOKS = (
    ("#8a6d3b", "circle"),
    ("#4d82b0", "square"),
    ("#b0527c", "diamond"),
    ("#2f9f64", "triangle-up"),
    ("#d57c0c", "x"),
    ("#7d6bc4", "cross"),
)
NULL = CONDITIONS[RANDOM].colour


def sweep_layers(
    pair: ModelPair,
    texts: Sequence[Text],
    labels: Any,
    groups: Any,
    *,
    layers: Sequence[int] | None = None,
    token_sets: Sequence[str] = ("response",),
    methods: Mapping[str, Any] = METHODS,
    side: Side = "finetuned",
    cache: Cache = True,
    **options: Any,
) -> pd.DataFrame:
    """`sweep_table` of activations that the pair reads, all layers in one pass a token set.

    layers: default all. methods: name -> probe over pooled rows. options: those of `evaluate`.
    Raises: as `probes.reading.read_pooled` and `evaluate`.

    Examples:
        >>> from persona import load_pair
        >>> from probes.sweep import sweep_layers
        >>> bad = ["Skip the brake check.", "Drive on, smoke is fine.", "Belts are for cowards."]
        >>> good = ["Check the brakes first.", "Stop when you see smoke.", "Wear your belt."]
        >>> pair = load_pair("default", "car_maintenance_bad")
        >>> labels, questions = [1, 1, 1, 0, 0, 0], ["brakes", "smoke", "belt"] * 2
        >>> table = sweep_layers(pair, bad + good, labels, questions, layers=[0, 2], cache=False)
        >>> table.groupby("layer")["method"].count().to_dict()
        {0: 4, 2: 4}
    """
    wanted = list(range(pair.n_layers)) if layers is None else list(layers)
    rows = {
        token_set: read_pooled(pair, texts, wanted, token_set=token_set, side=side, cache=cache)
        for token_set in token_sets
    }
    return sweep_table(rows, labels, groups, layers=wanted, methods=methods, **options)


def sweep_table(
    rows: Mapping[str, Float[Tensor, "text layer d_model"]],
    labels: Any,
    groups: Any,
    *,
    layers: Sequence[int] | None = None,
    methods: Mapping[str, Any] = METHODS,
    scheme: Scheme = "question",
    **options: Any,
) -> pd.DataFrame:
    """Held-out AUROC of every method at every layer and token set, one line each.

    rows: token set -> pooled activations. layers: the block of each place along their layer axis.
    Columns: layer, token_set, method, auroc, low, high (95 %, questions resampled whole), n
    (questions), and the same pipeline on shuffled labels: shuffled_auroc, shuffled_low,
    shuffled_high. The best line of many is too good: choose on some questions, report on others.
    Raises: DataError for no rows, or a number of layers that does not fit; as `evaluate`.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from probes import LogisticProbe
        >>> from probes.sweep import sweep_table
        >>> labels, questions = np.tile([0, 1], 20), np.repeat(np.arange(20), 2)
        >>> rows = torch.randn(40, 3, 4, generator=torch.Generator().manual_seed(0))
        >>> rows[labels == 1, 2, 0] += 3  # the trait, at the last of three layers
        >>> probes = {"logistic": LogisticProbe()}
        >>> table = sweep_table({"response": rows}, labels, questions, methods=probes)
        >>> best = table.loc[table["auroc"].idxmax()]
        >>> int(best["layer"]), best["token_set"], best["method"]
        (2, 'response', 'logistic')
        >>> bool((table["shuffled_auroc"] < 0.75).all())
        True
    """
    if not rows or not methods:
        raise DataError("a sweep needs at least one token set and one method")
    lines = []
    for token_set, activations in rows.items():
        named = list(range(activations.shape[1])) if layers is None else list(layers)
        if len(named) != activations.shape[1]:
            raise DataError(
                f"{len(named)} layers are named but the rows of {token_set!r} hold "
                f"{activations.shape[1]}"
            )
        for place, layer in enumerate(named):
            for method, probe in methods.items():
                at_layer = activations[:, place].to(torch.float64).numpy()
                found = evaluate(probe, at_layer, labels, groups, scheme=scheme, **options)
                auroc, null = found.auroc, found.shuffled_auroc
                observed = (auroc.value, auroc.low, auroc.high, auroc.n)
                control = (null.value, null.low, null.high)
                lines.append((layer, token_set, method, *observed, *control))
    return pd.DataFrame(lines, columns=list(COLUMNS))


def sweep_figure(table: pd.DataFrame) -> Figure:
    """AUROC by block, one line a method and one panel a token set, beside shuffled labels.

    Bands are 95 % intervals, questions resampled whole; the grey one is the mean of the methods'
    intervals on shuffled labels, the dotted line chance.
    Raises: DataError for a table without lines or columns of `sweep_table`.

    Examples:
        >>> import torch
        >>> from probes import LdaProbe
        >>> from probes.sweep import sweep_figure, sweep_table
        >>> rows = torch.randn(40, 3, 4, generator=torch.Generator().manual_seed(0))
        >>> labels, methods = [0, 1] * 20, {"lda": LdaProbe()}
        >>> table = sweep_table({"response": rows}, labels, range(40), methods=methods)
        >>> figure = sweep_figure(table)
        >>> figure.layout.yaxis.title.text
        'AUROC (0.5 is chance)'
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing or table.empty:
        why = f"it has no column {', '.join(missing)}" if missing else "it is empty"
        raise DataError(f"the figure needs the table of `sweep_layers`; {why}")
    token_sets = list(dict.fromkeys(table["token_set"]))
    figure = new_figure(
        title="Where the trait can be read: held-out AUROC by block",
        subtitle=f"{n_is(int(table['n'].max()))} questions, none in training and test; "
        "grey: the same probes on shuffled labels",
        inner=280,
        top=24,
        bottom=96,
        rows=1,
        cols=len(token_sets),
        shared_yaxes=True,
        subplot_titles=[svg_text(plain(name)) for name in token_sets],
    )
    methods = list(dict.fromkeys(table["method"]))
    for col, token_set in enumerate(token_sets, 1):
        here = table[table["token_set"] == token_set].sort_values("layer")
        control = here.groupby("layer")[["shuffled_low", "shuffled_high"]].mean()
        ribbon(
            figure,
            control.index.tolist(),
            control["shuffled_low"].tolist(),
            control["shuffled_high"].tolist(),
            translucent(NULL, 0.3),
            "shuffled",
            label="shuffled labels, 95 %" if col == 1 else "",
            row=1,
            col=col,
        )
        figure.add_hline(
            y=0.5, line={"color": NULL, "width": 1.5, "dash": "dot"}, layer="below", row=1, col=col
        )
        for place, method in enumerate(methods):
            mine = here[here["method"] == method]
            colour, symbol = LOOKS[place % len(LOOKS)]
            _line(figure, mine, str(method), colour, symbol, col)
    figure.update_xaxes(title_text="block (0-based)")
    figure.update_yaxes(title_text="AUROC (0.5 is chance)", row=1, col=1)
    return figure


def _line(
    figure: Figure, mine: pd.DataFrame, method: str, colour: str, symbol: str, col: int
) -> None:
    layers = mine["layer"].tolist()
    low, high = mine["low"].tolist(), mine["high"].tolist()
    ribbon(figure, layers, low, high, translucent(colour, 0.13), method, row=1, col=col)
    figure.add_scatter(
        x=layers,
        y=mine["auroc"].tolist(),
        mode="lines+markers",
        name=svg_text(plain(method)),
        legendgroup=svg_text(method),
        showlegend=col == 1,
        line={"color": colour, "width": 1.8},
        marker={"symbol": symbol, "size": 7, "color": colour},
        customdata=mine[["low", "high", "n"]].to_numpy().tolist(),
        hovertemplate="block %{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
        "n = %{customdata[2]}",
        row=1,
        col=col,
    )
