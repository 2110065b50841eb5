"""How often 95 % intervals of a study hold the truth, by what they are over.

Studies are simulated: a share of a shift whose deviations by seed, domain, question, seed in one
domain and the rest are known. The truth is the planted share.

    python benchmarks/bench_study_coverage.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from record import record

from persona.intervals import Estimate, fieller
from steering.study import CrossedDesign

TRUTH, N_STUDIES, SEED = 0.8, 1_000, 0
CAUSES = ("seed", "domain", "question", "seed_domain", "rest")
SITUATIONS: Mapping[str, tuple[float, ...]] = {
    "everything_scatters": (0.1, 0.15, 0.3, 0.05, 0.2),
    "seeds_alike": (0.0, 0.15, 0.3, 0.0, 0.2),
    "domains_alike": (0.1, 0.0, 0.3, 0.0, 0.2),
}
"""Name -> standard deviation of each of `CAUSES`."""
DESIGNS = ((3, 8, 4), (5, 8, 4), (5, 8, 8), (10, 8, 4))
"""Seeds, domains, questions of a domain."""
INTERVALS: Mapping[str, Callable[[CrossedDesign], Estimate]] = {
    "seeds_and_domains": lambda d: d.interval("seeds and domains"),
    "seeds_and_questions": lambda d: d.interval("seeds and questions"),
    "questions_alone": lambda d: d.interval("questions"),
    "bootstrap_seeds_and_domains": lambda d: d.bootstrap("seeds and domains"),
    "pooled_seeds": lambda d: fieller(*d.values_SQV.reshape(-1, 2).T),
}


def planted_study(
    rng: np.random.Generator,
    deviations: tuple[float, ...],
    n_seeds: int,
    n_domains: int,
    of_a_domain: int,
) -> CrossedDesign:
    """A study whose number is `TRUTH`, of a shift of half a nat that scatters itself."""
    domain = np.repeat(np.arange(n_domains), of_a_domain)
    n = len(domain)
    by_seed, by_domain, by_question, by_both, rest = deviations
    moved = by_seed * rng.normal(size=(n_seeds, 1)) + by_question * rng.normal(size=n)
    moved = moved + by_domain * rng.normal(size=n_domains)[domain]
    moved = moved + by_both * rng.normal(size=(n_seeds, n_domains))[:, domain]
    moved = moved + rest * rng.normal(size=(n_seeds, n))
    shift = 0.5 + 0.1 * rng.normal(size=n_domains)[domain] + 0.3 * rng.normal(size=n)
    shift = shift + 0.05 * rng.normal(size=(n_seeds, n))
    values = np.stack([TRUTH * shift + 0.5 * moved, shift], axis=-1)
    return CrossedDesign(values, tuple(map(str, domain)))


def coverage(n_studies: int) -> pd.DataFrame:
    """Columns: situation, n_seeds, n_domains, of_a_domain, interval, coverage."""
    rng, rows = np.random.default_rng(SEED), []
    for situation, deviations in SITUATIONS.items():
        for design in DESIGNS:
            held: dict[str, list[bool]] = {name: [] for name in INTERVALS}
            for _ in range(n_studies):
                one = planted_study(rng, deviations, *design)
                for name, interval in INTERVALS.items():
                    e = interval(one)
                    held[name].append(e.low <= TRUTH <= e.high)
            rows += [
                {
                    "situation": situation,
                    "n_seeds": design[0],
                    "n_domains": design[1],
                    "of_a_domain": design[2],
                    "interval": name,
                    "coverage": float(np.mean(some)),
                }
                for name, some in held.items()
            ]
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=N_STUDIES, help="of each kind and size")
    n_studies = parser.parse_args().studies
    found = coverage(n_studies)
    by = ["situation", "n_seeds", "n_domains", "of_a_domain"]
    print(found.pivot_table("coverage", by, "interval").round(3).to_string())
    for name, some in found.groupby("interval"):
        record(
            f"coverage.study_interval.{name}",
            float(some["coverage"].mean()),
            "share of studies",
            n=n_studies * len(some),
            spread=[float(some["coverage"].min()), float(some["coverage"].max())],
            note=f"{len(SITUATIONS)} kinds of scatter x {len(DESIGNS)} sizes (3 to 10 seeds, 8 "
            "domains, 4 or 8 questions each); spread over them",
        )


if __name__ == "__main__":
    main()
