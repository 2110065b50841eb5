"""Every condition on one axis: what each does to the gap, beside the aligned model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.errors import DataError
from persona.intervals import Estimate
from persona.report.figures.shared_marks import dot_with_interval, spread_of_draws, vertical_level
from persona.report.tables import checked, estimate, readings, seed_of
from persona.report.theme import Look, look_of, new_figure, plain, svg_text
from persona.report.wording import n_is, number
from persona.rows import (
    ALIGNED,
    FINETUNED,
    GOOD_TWIN,
    INDUCED,
    INDUCED_RANDOM,
    INDUCED_TWIN,
    NOOP,
    NULL_COVARIANCE,
    NULL_ISOTROPIC,
    NULL_SCREEN,
    PLACEBO,
    RANDOM,
    RANDOM_MATCHED,
    RESTORED,
    ZERO_ABLATED,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ROW_HEIGHT = 27
GROUPS = (
    (ALIGNED, FINETUNED, GOOD_TWIN),
    (RESTORED, RANDOM, RANDOM_MATCHED, NULL_ISOTROPIC, NULL_COVARIANCE, PLACEBO, ZERO_ABLATED),
    (NOOP, INDUCED, INDUCED_TWIN, INDUCED_RANDOM),
)
"""The models; edits of the fine-tuned one; edits of the aligned one."""
DRAWN = (RANDOM, RANDOM_MATCHED, NULL_ISOTROPIC, NULL_COVARIANCE, INDUCED_RANDOM)
STRONGEST = {
    NULL_ISOTROPIC: "{m} strongest of {n:,} random",
    NULL_COVARIANCE: "{m} strongest of {n:,} shaped random",
}
AXIS = "bad answers likelier than in the aligned model (gap above it, nats per token)"


@dataclass(frozen=True)
class Placed:
    """One row of the figure: where a condition lies, or where each of its draws does.

    n: questions it was read on. value: of draws their mean.
    """

    label: str
    look: Look
    n: int
    estimate: Estimate | None
    draws: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @property
    def value(self) -> float:
        return float(self.draws.mean()) if self.estimate is None else self.estimate.value


def all_conditions(rows: pd.DataFrame, scorecard: Mapping[str, Any] | None = None) -> Figure:
    """The gap of every condition above the aligned model's, question by question, on one axis.

    Random draws are one mark each. Those that were run on some of the questions only are placed by
    what they do there to the model they edit, and the restored model stands beside them once more,
    read on the very same questions.

    Raises:
        DataError: no held-out gaps of both models at the stage "score".
    """
    groups = placed_conditions(rows, scorecard)
    everything = [one for group in groups for one in group]
    height = len(everything) + 0.6 * (len(groups) - 1)
    n = max(one.n for one in everything)
    figure = new_figure(
        title="All conditions on one axis",
        subtitle=f"{n_is(n)} held-out questions, none of which chose anything; right is worse; "
        "95 % intervals",
        inner=int(ROW_HEIGHT * height),
        top=24,
        bottom=56,
    )
    for at, name in ((0.0, ALIGNED), (everything[1].value, FINETUNED)):
        vertical_level(figure, at, look_of(name).colour)
    place, ticks = height, {}
    for group in groups:
        for one in group:
            place -= 1
            ticks[place] = f"{svg_text(one.label)}\u2002{number(one.value, signed=True)}"
            _draw(figure, one, place)
        place -= 0.6
    figure.update_yaxes(
        tickvals=list(ticks), ticktext=list(ticks.values()), range=[-0.7, height - 0.3]
    )
    figure.update_xaxes(title_text=AXIS, tickformat="+.2~f")
    return figure


def placed_conditions(
    rows: pd.DataFrame, scorecard: Mapping[str, Any] | None = None
) -> list[list[Placed]]:
    """The rows of the figure, group by group; the first group begins with the two models.

    Raises: as `all_conditions`.
    """
    gaps = checked(rows)
    gaps = gaps[
        gaps["stage"].eq("score") & gaps["measure"].eq("gap") & gaps["split"].eq("held_out")
    ]
    gaps = gaps[gaps["value"].notna()]
    if not {ALIGNED, FINETUNED} <= set(gaps["condition"]):
        readings(rows, "score", "gap", split="held_out")
        raise DataError("there are no held-out gaps of both models at the stage 'score'")
    reader = _Reader(gaps, rows, seed_of(scorecard or {}))
    groups = [[one for name in group for one in reader.placed(name)] for group in GROUPS]
    return [group for group in groups if group]


@dataclass(frozen=True)
class _Reader:
    """gaps: held-out gaps at the stage "score"; rows: of the run."""

    gaps: pd.DataFrame
    rows: pd.DataFrame
    seed: int

    def placed(self, condition: str) -> Iterator[Placed]:
        mine = self.gaps[self.gaps["condition"] == condition]
        if mine.empty:
            return
        look = look_of(condition)
        if condition == PLACEBO:
            for name, its_own in mine.groupby("candidate"):
                yield self._one(f"Placebo: {plain(str(name))}", look, its_own, condition)
        elif condition in DRAWN:
            yield self._several(condition, look, mine)
        else:
            yield self._one(look.label, look, mine, condition)
        if condition == RESTORED and (asked := self._asked_less()):
            again = mine[mine["question_id"].isin(asked)]
            hollow = replace(look, symbol=f"{look.symbol}-open")
            yield self._one(f"Restored, on {len(asked)} of them", hollow, again, condition)

    def _asked_less(self) -> set[str]:
        """The questions that the random subspaces were run on, where those are not all."""
        asked = set(self.gaps.loc[self.gaps["condition"] == RANDOM, "question_id"])
        return asked if len(asked) < len(self._means(FINETUNED)) else set()

    def _means(self, condition: str) -> pd.Series:
        mine = self.gaps[self.gaps["condition"] == condition]
        return mine.groupby("question_id")["value"].mean()

    def _changes(self, mine: pd.DataFrame, condition: str) -> tuple[pd.Series, float]:
        """What it does to the model it edits, by question; and where that model lies."""
        edited = FINETUNED if condition.startswith(FINETUNED) else ALIGNED
        base, aligned = self._means(edited), self._means(ALIGNED)
        mean = mine.groupby("question_id")["value"].mean()
        if len(mean) == len(aligned):
            return mean - aligned, 0.0
        return (mean - base).dropna(), float((base - aligned).mean())

    def _one(self, label: str, look: Look, mine: pd.DataFrame, condition: str) -> Placed:
        changes, start = self._changes(mine, condition)
        e = estimate(changes, self.seed)
        shifted = Estimate(start + e.value, start + e.low, start + e.high, e.n)
        return Placed(label, look, e.n, shifted)

    def _several(self, condition: str, look: Look, mine: pd.DataFrame) -> Placed:
        by_draw = [self._changes(one, condition) for _, one in mine.groupby("seed")]
        draws = np.array([start + changes.mean() for changes, start in by_draw])
        label = look.label
        if condition in STRONGEST:
            screened = self.rows[
                (self.rows["stage"] == NULL_SCREEN) & (self.rows["condition"] == condition)
            ]
            label = STRONGEST[condition].format(m=len(draws), n=max(len(screened), len(draws)))
            look = replace(look, colour=look_of(RANDOM).colour)
        return Placed(label, look, mine["question_id"].nunique(), None, draws)


def _draw(figure: Figure, one: Placed, place: float) -> None:
    if one.estimate is not None:
        shown = replace(one.look, label=one.label)
        dot_with_interval(figure, one.estimate, place, shown, size=11)
        return
    figure.add_scatter(
        x=one.draws.tolist(),
        y=(place + spread_of_draws(one.draws)).tolist(),
        mode="markers",
        name=svg_text(one.label),
        showlegend=False,
        meta=one.n,
        marker={"color": one.look.colour, "symbol": "circle", "size": 5.5, "opacity": 0.85},
        hovertemplate="draw: %{x:+.3f}<extra></extra>",
    )
