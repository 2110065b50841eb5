"""How often 95 % intervals of a restoration hold the truth, by the number of questions.

Data sets are made from the gaps of a finished run: questions drawn with replacement from its rows,
or from a normal distribution with their means and covariance. The truth is the run's own share.

    python benchmarks/bench_coverage.py persona-demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from record import record

from persona.intervals import Estimate, bootstrap, fieller, net_taken_back, share_of
from steering.evidence.net_effect import NET
from steering.evidence.question_table import question_table

COUNTS = (6, 8, 12, 16, 32, 64)
N_SETS, SEED = 1_000, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run, with its rows.parquet")
    parser.add_argument("--sets", type=int, default=N_SETS, help="data sets of each kind and count")
    options = parser.parse_args()
    gaps = question_table(pd.read_parquet(options.run / "rows.parquet"), "gap", "held_out")[NET]
    found = coverage(gaps.to_numpy(), options.sets)
    print(found.pivot_table("coverage", "n", ["drawn", "interval"]).round(3).to_string())
    for row in found.itertuples():
        if row.interval == "share_of":
            record(
                f"coverage.restoration_interval.{row.drawn}.{row.n}",
                row.coverage,
                "share of data sets",
                n=options.sets,
                note=f"net restoration of {row.n} questions; the truth {row.truth:.3f}; without "
                f"ends in {row.unbounded:.3f}",
            )


def coverage(gaps: NDArray[np.float64], n_sets: int) -> pd.DataFrame:
    """Columns: drawn, n, interval, coverage, unbounded, truth; gaps: [question 4], as `NET`."""
    truth, rng, rows = float(net_taken_back(gaps.mean(0))), np.random.default_rng(SEED), []
    for drawn in ("resampled", "normal"):
        for n in COUNTS:
            intervals: dict[str, list[Estimate]] = {"share_of": [], "percentile": [], "Fieller": []}
            for place in range(n_sets):
                table = (
                    gaps[rng.integers(0, len(gaps), n)]
                    if drawn == "resampled"
                    else rng.multivariate_normal(gaps.mean(0), np.cov(gaps.T), n)
                )
                seed = place % 20  # resamples are kept by seed
                intervals["share_of"].append(share_of(table, seed=seed))
                intervals["percentile"].append(bootstrap(table, net_taken_back, seed=seed))
                start, reached, goal, edited = table.T
                intervals["Fieller"].append(
                    fieller((start - reached) - (goal - edited), start - goal)
                )
            rows += [
                {
                    "drawn": drawn,
                    "n": n,
                    "interval": name,
                    "coverage": float(np.mean([e.low <= truth <= e.high for e in some])),
                    "unbounded": float(np.mean([np.isinf(e.low) for e in some])),
                    "truth": truth,
                }
                for name, some in intervals.items()
            ]
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
