"""When a fine-tune can be named: the vote and the gap against its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from persona.errors import DataError
from persona.intervals import Estimate
from persona.report.figures.plain_forms import curves
from persona.rows import GOOD_TWIN

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def naming_figure(course: pd.DataFrame) -> Figure:
    """Probability of the name that the last step gives, and the shift of the gap with the twin's.

    course: of `persona.readouts.naming_course`. A step that gives another name has probability 0.
    Raises: DataError for no steps.
    """
    if course.empty:
        raise DataError("there are no steps to draw")
    last = str(course["subject"].iloc[-1])

    def bare(value: float) -> Estimate:
        return Estimate(value, value, value, 0)

    p = [
        (float(row.step), bare(float(row.probability) if row.subject == last else 0.0))
        for row in course.itertuples()
    ]
    bad = [(float(row.step), bare(float(row.p_bad))) for row in course.itertuples()]
    shifts = {
        "finetuned": [
            (float(row.step), Estimate(row.shift, row.shift_low, row.shift_high, 0))
            for row in course.itertuples()
        ]
    }
    kept = course[course["twin_shift"].notna()]
    if len(kept):
        shifts[GOOD_TWIN] = [
            (float(row.step), Estimate(row.twin_shift, row.twin_low, row.twin_high, 0))
            for row in kept.itertuples()
        ]
    return curves(
        {
            f"probability of the name {last.replace('_', ' ')}": {"finetuned": p},
            "probability that the bad answers are learnt": {"finetuned": bad},
            "shift of the gap on advice (nats per token)": shifts,
        },
        title="When it can be named",
        subtitle="the vote of the readouts at each step; ribbons are 95 % intervals over questions",
        axis="optimiser step",
    )
