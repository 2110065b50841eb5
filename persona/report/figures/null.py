"""Is it more than chance: restoration by random subspaces beside that of the direction."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.errors import DataError
from persona.intervals import Estimate, bootstrap, taken_back
from persona.report.figures.shared_marks import dot_with_interval, spread_of_draws, vertical_level
from persona.report.tables import (
    checked,
    estimate_from,
    question_means,
    readings,
    seed_of,
)
from persona.report.theme import look_of, new_figure, svg_text
from persona.report.wording import n_is
from persona.rows import (
    ALIGNED,
    FINETUNED,
    NULL_COVARIANCE,
    NULL_ISOTROPIC,
    NULLS,
    RESTORED,
    drawn_questions,
    random_restorations,
    screened_restorations,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ROW_HEIGHT = 82


def random_null(rows: pd.DataFrame, scorecard: Mapping[str, Any] | None = None) -> Figure:
    """Restoration of every random draw, and of the chosen direction with its 95 % interval.

    Restoration is the share of the emergent shift taken back on held-out questions: 0 is the
    fine-tuned model, 1 the aligned one. All is over the questions that the draws were run on. Where
    no plain draws were run, those that were screened are shown: the strongest as measured, the
    others as predicted to first order. A bar marks the strongest draw.

    Raises:
        DataError: no draws, or a restoration that is undefined because nothing shifted.
    """
    checked(rows)
    known = scorecard or {}
    if known.get("verdict") == "no_emergent_shift":
        raise DataError("restoration is undefined: the emergent shift does not differ from 0")
    nulls = {}
    for name in NULLS:
        if len(found := random_restorations(rows, name)):
            nulls[name] = found
    for name in () if nulls else (NULL_ISOTROPIC, NULL_COVARIANCE):
        if len(found := screened_restorations(rows, name)):
            nulls[name] = found
    if not nulls:
        raise DataError("there are no rows of random subspaces at the stage 'score'")
    if not np.isfinite(np.concatenate(list(nulls.values()))).all():
        raise DataError("restoration is undefined: the two models have the same gap")
    asked = {name: drawn_questions(rows, name) for name in nulls}
    of_the_edit = (known.get("random_restoration") or {}).get("of_the_edit")
    compared = asked[next(iter(nulls))]
    observed = estimate_from(of_the_edit) or _observed(rows, compared, seed_of(known))
    n = len(compared)
    names = [RESTORED, *nulls]
    figure = new_figure(
        title="Restoration: the chosen direction beside random ones",
        subtitle=f"share of the emergent shift taken back, {n_is(n)} held-out questions",
        inner=ROW_HEIGHT * len(names),
        top=24,
        bottom=84,
    )
    place_of = {name: -i for i, name in enumerate(names)}
    for at, condition in ((0.0, FINETUNED), (1.0, ALIGNED)):
        vertical_level(figure, at, look_of(condition).colour)
        figure.add_annotation(
            x=at,
            yref="paper",
            y=1,
            yanchor="bottom",
            yshift=2,
            text=look_of(condition).label,
            showarrow=False,
            font={"size": 12},
        )
    for name, found in nulls.items():
        _strip(figure, name, found, place_of[name])
    dot_with_interval(
        figure,
        observed,
        place_of[RESTORED],
        look_of(RESTORED),
        size=13,
        name=f"chosen direction, 95 % interval over {n} questions",
    )
    figure.update_yaxes(
        tickvals=list(place_of.values()),
        ticktext=[
            svg_text(look_of(name).label)
            + (
                f"<br>({len(nulls[name]):,} draws on<br>n = {len(asked[name])})"
                if name in nulls
                else ""
            )
            for name in names
        ],
        range=[place_of[names[-1]] - 0.5, 0.5],
        showgrid=False,
    )
    everything = np.concatenate([*nulls.values(), [observed.low, observed.high, 0.0, 1.0]])
    pad = 0.06 * float(np.ptp(everything))
    figure.update_xaxes(
        title_text="restoration (share of the emergent shift taken back)",
        range=[float(everything.min()) - pad, float(everything.max()) + pad],
    )
    return figure


def _observed(rows: pd.DataFrame, asked: Set[str], seed: int) -> Estimate:
    table = question_means(readings(rows, "score", "gap", split="held_out"))
    table = table[table.index.isin(asked)]
    if not {FINETUNED, RESTORED, ALIGNED} <= set(table.columns):
        raise DataError("restoration needs the gaps of both models and of the restored one")
    columns = table[[FINETUNED, RESTORED, ALIGNED]].dropna().to_numpy(dtype=np.float64)
    return bootstrap(columns, taken_back, seed=seed)


def _strip(figure: Figure, name: str, found: NDArray[np.float64], place: float) -> None:
    look = look_of(name)
    limit = float(found.max())
    figure.add_scatter(
        x=found.tolist(),
        y=(place + spread_of_draws(found)).tolist(),
        mode="markers",
        name=f"{look.label.lower()}, one mark a draw",
        showlegend=False,
        marker={
            "color": look.colour,
            "symbol": "circle",
            "size": 7 if len(found) <= 60 else 5 if len(found) <= 300 else 3,
            "opacity": 0.9,
        },
        hovertemplate="draw: %{x:.3f}<extra></extra>",
    )
    figure.add_scatter(
        x=[limit, limit],
        y=[place - 0.38, place + 0.38],
        mode="lines",
        name="the strongest draw",
        legendgroup="limit",
        showlegend=name in (NULLS[0], NULL_ISOTROPIC),
        line={"color": look.colour, "width": 2.5},
        hovertemplate=f"the strongest of {len(found):,} draws: {limit:.3f}<extra></extra>",
    )
