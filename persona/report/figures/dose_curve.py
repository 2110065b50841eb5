"""How much of the direction does how much: gap against coefficient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from persona.errors import DataError
from persona.intervals import Estimate
from persona.report.figures.shared_marks import ribbon
from persona.report.tables import checked, estimate, readings
from persona.report.theme import CONDITIONS, look_of, new_figure, translucent
from persona.report.wording import n_is
from persona.rows import ALIGNED, FINETUNED, RANDOM_MATCHED, RESTORED

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DIRECTION = CONDITIONS[RESTORED]
RESTORING = "coefficient (0 = no edit, 1 = onto the aligned model's mean)"
RANDOM = CONDITIONS[RANDOM_MATCHED]


def dose_response_curve(
    rows: pd.DataFrame,
    *,
    chosen_coefficient: float | None = None,
    steered: str = FINETUNED,
    axis_title: str = RESTORING,
    seed: int = 0,
) -> Figure:
    """Gap of the selection questions against the coefficient of the edit, a restoration or other.

    The ribbon of the direction is the 95 % bootstrap interval over questions; the band of the
    random directions runs from the 2.5 to the 97.5 percentile of the draws' mean gaps. Dotted:
    the gaps of both models on the same questions, and dash-dotted that of a system prompt that
    asks for the same, where rows have the condition "system_prompt".

    steered: the model that is edited, "aligned" or "finetuned"; coefficient 0 leaves it as it is.

    Raises:
        DataError: no rows of the stage "dose" for the direction.
    """
    dose = readings(checked(rows), "dose", "gap")
    mine = dose[dose["condition"] == "direction"].dropna(subset=["coefficient"])
    if mine.empty:
        raise DataError("there are no rows of stage 'dose' for the condition 'direction'")
    effect = {
        float(coefficient): estimate(group.groupby("question_id")["value"].mean(), seed)
        for coefficient, group in mine.groupby("coefficient")
    }
    n = mine["question_id"].nunique()
    figure = new_figure(
        title="Dose and response on the selection questions",
        subtitle=f"{n_is(n)} selection questions; gap = log p(bad answer) − log p(good answer)",
        inner=300,
        bottom=108,
    )
    _random_band(figure, dose[dose["condition"] == "random"])
    _levels(figure, rows, effect, set(mine["question_id"]), steered)
    _prompted(figure, dose[dose["condition"] == "system_prompt"], effect)
    x = sorted(effect)
    fill = translucent(DIRECTION.colour, 0.22)
    ribbon(figure, x, [effect[c].low for c in x], [effect[c].high for c in x], fill, "direction")
    figure.add_scatter(
        x=x,
        y=[effect[c].value for c in x],
        mode="lines+markers",
        name=f"chosen direction, 95 % interval over {n} questions",
        legendgroup="direction",
        line={"color": DIRECTION.colour, "width": 2.4},
        marker={"symbol": DIRECTION.symbol, "size": 8, "color": DIRECTION.colour},
        hovertemplate="coefficient %{x:g}: %{y:+.3f} nats per token<extra></extra>",
    )
    if chosen_coefficient is not None and chosen_coefficient in effect:
        figure.add_scatter(
            x=[chosen_coefficient],
            y=[effect[chosen_coefficient].value],
            mode="markers",
            name=f"coefficient used: {chosen_coefficient:g}",
            marker={
                "symbol": "circle-open",
                "size": 17,
                "color": DIRECTION.colour,
                "line": {"width": 2},
            },
            hoverinfo="skip",
        )
    figure.update_xaxes(title_text=axis_title, tickvals=x)
    figure.update_yaxes(title_text="gap, bad − good (nats per token)", tickformat="+.2f")
    return figure


def _random_band(figure: Figure, random: pd.DataFrame) -> None:
    """Percentiles over the draws; below 40 draws that is nearly the whole range, so n is said."""
    if random.empty:
        return
    draws = random.groupby(["coefficient", "seed"])["value"].mean().unstack("coefficient")
    x = [float(c) for c in draws.columns]
    low, high = np.nanpercentile(draws.to_numpy(dtype=np.float64), [2.5, 97.5], axis=0).tolist()
    ribbon(figure, x, low, high, translucent(RANDOM.colour, 0.35), "random")
    figure.add_scatter(
        x=x,
        y=draws.mean().tolist(),
        mode="lines+markers",
        name=f"random directions, 2.5–97.5 % of n = {len(draws)} draws",
        legendgroup="random",
        line={"color": RANDOM.colour, "width": 1.8},
        marker={"symbol": RANDOM.symbol, "size": 7, "color": RANDOM.colour},
        hovertemplate="coefficient %{x:g}: %{y:+.3f} nats per token<extra></extra>",
    )


def _prompted(figure: Figure, prompted: pd.DataFrame, effect: dict[float, Estimate]) -> None:
    """A level line: the gap of the unedited model under the system prompt."""
    if prompted.empty:
        return
    level = float(prompted.groupby("question_id")["value"].mean().mean())
    look = look_of("system_prompt")
    figure.add_scatter(
        x=[min(effect), max(effect)],
        y=[level, level],
        mode="lines",
        name="system prompt that asks for it",
        line={"color": look.colour, "width": 2.4, "dash": "dashdot"},
        hovertemplate="system prompt: %{y:+.3f} nats per token<extra></extra>",
    )


def _levels(
    figure: Figure,
    rows: pd.DataFrame,
    effect: dict[float, Estimate],
    questions: set[str],
    steered: str,
) -> None:
    """Dotted lines at the gaps of both models on these questions."""
    ends = [min(effect), max(effect)]
    for name in (FINETUNED, ALIGNED):
        level = _level(rows, name, questions)
        if level is None and name == steered and 0.0 in effect:
            level = effect[0.0].value  # coefficient 0 is the steered model, bit for bit
        if level is None:
            continue
        look = CONDITIONS[name]
        figure.add_scatter(
            x=ends,
            y=[level, level],
            mode="lines",
            name=f"{look.label.lower()} model",
            line={"color": look.colour, "width": 2.4, "dash": "dot"},
            hovertemplate=f"{look.label}: %{{y:+.3f}} nats per token<extra></extra>",
        )


def _level(rows: pd.DataFrame, condition: str, questions: set[str]) -> float | None:
    """Mean gap of one model on exactly these questions, from whichever stage measured them all."""
    for stage in ("verify", "score"):
        chosen = rows[
            (rows["stage"] == stage)
            & (rows["condition"] == condition)
            & (rows["measure"] == "gap")
            & rows["question_id"].isin(questions)
        ].dropna(subset=["value"])
        if set(chosen["question_id"]) == questions:
            return float(chosen.groupby("question_id")["value"].mean().mean())
    return None
