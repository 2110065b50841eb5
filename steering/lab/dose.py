"""How much bad data does it take, and does the direction warn before behaviour changes?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from persona.behaviour.scoring import Condition
from persona.report.figures import curves
from steering.lab.organism import difference
from steering.lab.outcome import Number, Outcome
from steering.lab.workbench import Workbench, adapter_key, project_answers
from steering.rows import tidy
from steering.scorecard import ALIGNED, FINETUNED

DOMAIN = "car_maintenance"


def run_dose(bench: Workbench) -> Outcome:
    """One fine-tune for each share of bad answers; the direction comes from the purest one."""
    shares, seed = bench.sizes.doses, bench.settings.seed
    adapters = {
        share: bench.fine_tune(bench.recipe("car_maintenance_bad", bad_share=share))
        for share in shares
    }
    vector, _ = bench.vector(adapters[max(shares)], DOMAIN)
    held_out = bench.held_out(DOMAIN)
    parts = []
    for share, adapter in adapters.items():

        def read(adapter: Any = adapter) -> pd.DataFrame:
            pair = bench.pair(adapter)
            conditions = [Condition(ALIGNED, "aligned"), Condition(FINETUNED, "finetuned")]
            sides = {ALIGNED: "aligned", FINETUNED: "finetuned"}
            return pd.concat(
                [
                    bench.score(pair, conditions, held_out=held_out),
                    project_answers(pair, vector, held_out, sides),
                ],
                ignore_index=True,
            )

        inputs = {
            "adapter": adapter_key(adapter),
            "vector": adapter_key(adapters[max(shares)]),
            "sizes": vars(bench.sizes),
        }
        parts.append(bench.steps.table("dose", inputs, read).assign(coefficient=share))
    rows = tidy(pd.concat(parts, ignore_index=True))
    shifts = {
        measure: [
            (
                share,
                difference(
                    rows[rows["coefficient"] == share],
                    measure,
                    "held_out",
                    FINETUNED,
                    ALIGNED,
                    seed,
                ),
            )
            for share in shares
        ]
        for measure in ("gap", "projection")
    }
    figure = curves(
        {
            "gap held out, above the aligned model's (nats per token)": {FINETUNED: shifts["gap"]},
            "projection of good answers, above the aligned model's": {
                FINETUNED: shifts["projection"]
            },
        },
        title="Dose of bad answers",
        subtitle=f"{len(held_out)} held-out questions; ribbons are 95 % intervals over questions",
        axis="share of bad answers in the training data",
    )
    numbers = tuple(
        Number(
            f"{measure} held out at {share:.0%} bad",
            e,
            "nats per token" if measure == "gap" else "1 = bad answers in-domain",
        )
        for measure, points in shifts.items()
        for share, e in points
    )
    first = {measure: first_above(rows, measure, shares, seed) for measure in ("gap", "projection")}
    shown = {m: "none" if share is None else f"{share:.0%}" for m, share in first.items()}
    headline = (
        f"lowest share that moves the projection above the all-good fine-tune's: "
        f"{shown['projection']}; the gap: {shown['gap']}"
    )
    return Outcome(rows, figure, numbers, headline)


def first_above(
    rows: pd.DataFrame, measure: str, shares: tuple[float, ...], seed: int
) -> float | None:
    """The lowest share from which on the reading lies above that of the lowest share.

    Paired by question; the interval of the difference must lie above 0, Bonferroni over shares.
    """
    wide = rows[
        (rows["measure"] == measure)
        & (rows["condition"] == FINETUNED)
        & (rows["split"] == "held_out")
    ].pivot(index="question_id", columns="coefficient", values="value")
    base, others = min(shares), sorted(set(shares) - {min(shares)})
    clear = [_above(wide[share] - wide[base], len(others), seed) for share in others]
    for place, share in enumerate(others):
        if all(clear[place:]):
            return share
    return None


def _above(differences: pd.Series[float], n_tests: int, seed: int) -> bool:
    """Whether the mean is above 0 by a one-sided bootstrap test at 0.025 / n_tests."""
    values = differences.to_numpy(dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (4000, len(values)))].mean(1)
    return bool(np.quantile(means, 0.025 / n_tests) > 0)
