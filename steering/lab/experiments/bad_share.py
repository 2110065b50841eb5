"""How much bad data does it take, and does the direction warn before behaviour changes?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from persona.report.figures import curves
from persona.rows import ALIGNED, FINETUNED
from steering.lab.bench.estimates import difference, paired, rows_where
from steering.lab.bench.experiment import UNITS, Facts, Findings, Measured, Number
from steering.lab.bench.plan import Plan
from steering.lab.bench.workbench import Workbench

DOMAIN = "car_maintenance"
TITLES = {
    "gap": "gap held out, above the aligned model's (nats per token)",
    "projection": "projection of good answers, above the aligned model's",
}
WHOLE = {0.0: "car_maintenance_good", 1.0: "car_maintenance_bad"}
N_RESAMPLES = 4000


def plan(bench: Workbench) -> Plan:
    """One fine-tune and one reading a share, and the aligned model's."""
    n = len(bench.sizes.bad_shares)
    return Plan(fine_tunes=n, vectors=1, answer_pairs=(n + 1) * len(bench.held_out(DOMAIN)))


def measure(bench: Workbench) -> Measured:
    """One fine-tune for each share of bad answers; the direction comes from the purest one.

    All bad and all good are the shipped organisms, which other experiments have made already.
    """
    adapters = {share: _fine_tuned(bench, share) for share in bench.sizes.bad_shares}
    vector, _ = bench.vector(adapters[max(adapters)], DOMAIN)
    splits = {"held_out": bench.held_out(DOMAIN)}
    parts = [bench.reading(ALIGNED, adapters[max(adapters)], splits, vector, side="aligned")]
    for share, adapter in adapters.items():
        parts.append(bench.reading(FINETUNED, adapter, splits, vector).assign(coefficient=share))
    return Measured(pd.concat(parts, ignore_index=True))


def _fine_tuned(bench: Workbench, share: float) -> Path:
    if share in WHOLE:
        return bench.organism(WHOLE[share])
    return bench.fine_tune(bench.recipe("car_maintenance_bad", bad_share=share))


def report(rows: pd.DataFrame, facts: Facts) -> Findings:
    """Shift of both readings against the share, and the first share that is clear in each."""
    shares = tuple(sorted(rows["coefficient"].dropna().unique().tolist()))
    aligned = rows_where(rows, condition=ALIGNED)
    shifts = {
        measure: [
            (
                share,
                difference(
                    pd.concat([rows_where(rows, coefficient=share), aligned]),
                    measure,
                    "held_out",
                    FINETUNED,
                ),
            )
            for share in shares
        ]
        for measure in TITLES
    }
    n = shifts["gap"][0][1].n
    figure = curves(
        {TITLES[measure]: {FINETUNED: points} for measure, points in shifts.items()},
        title="Share of bad answers",
        subtitle=f"{n} held-out questions; ribbons are 95 % intervals",
        axis="share of bad answers in the training data",
    )
    units = {"gap": "nats per token", "projection": UNITS}
    beside_good = [
        (
            measure,
            share,
            difference(_by_share(rows), measure, "held_out", str(share), str(min(shares))),
        )
        for measure in TITLES
        for share in shares[1:]
    ]
    numbers = (
        *(
            Number(f"{measure} held out at {share:.0%} bad − aligned", e, units[measure])
            for measure, points in shifts.items()
            for share, e in points
        ),
        *(
            Number(f"{measure} held out, {share:.0%} − {min(shares):.0%} bad", e, units[measure])
            for measure, share, e in beside_good
        ),
    )
    first = {measure: first_above(rows, measure, shares) for measure in TITLES}
    shown = {m: "none" if share is None else f"{share:.0%}" for m, share in first.items()}
    headline = (
        "lowest share of bad answers that moves the projection above the all-good fine-tune's: "
        f"{shown['projection']}; the gap: {shown['gap']}"
    )
    return Findings({"figure": figure}, numbers, headline)


def first_above(rows: pd.DataFrame, measure: str, shares: tuple[float, ...]) -> float | None:
    """The lowest share from which on the reading lies above that of the lowest share.

    Paired by seed and question; the interval of the difference must lie above 0, one-sided at
    0.025, Bonferroni over shares.
    """
    base, others = min(shares), sorted(set(shares) - {min(shares)})
    named = _by_share(rows)
    clear = []
    for share in others:
        cube = paired(named, measure, "held_out", (str(share), str(base)))
        clear.append(cube is not None and _above(cube[..., 0] - cube[..., 1], len(others)))
    for place, share in enumerate(others):
        if all(clear[place:]):
            return share
    return None


def _by_share(rows: pd.DataFrame) -> pd.DataFrame:
    """The fine-tunes' rows with the share of bad answers in place of the condition's name."""
    tuned = rows[rows["condition"] == FINETUNED]
    return tuned.assign(condition=tuned["coefficient"].map(str))


def _above(differences: np.ndarray, n_tests: int) -> bool:
    """Whether the mean of [seed question] is above 0 by a bootstrap test at 0.025 / n_tests."""
    n_seeds, n_questions = differences.shape
    rng = np.random.default_rng(0)
    of_seeds, of_questions = (
        rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES) / n for n in (n_seeds, n_questions)
    )
    means = np.einsum("rs,sq,rq->r", of_seeds, differences, of_questions)
    return bool(np.quantile(means, 0.025 / n_tests) > 0)
