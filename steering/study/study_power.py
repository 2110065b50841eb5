"""Where the scatter comes from, and how many seeds, domains or questions would be enough."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from steering.study.crossed_design import CrossedDesign, crossed_parts

POWER = 0.8
MOST = 1000
"""More of anything than this is told as never."""


@dataclass(frozen=True)
class VarianceParts:
    """Standard deviations of one reading's influence on the number, in its unit, by cause.

    seed: of the fine-tune. domain, question: of the mean over seeds; question is within its domain.
    seed_domain: what a seed does in one domain. rest: what it does to one question. An estimate
    below 0 is 0. Source: Searle, Casella and McCulloch 1992, ch. 4 (moments, balanced as far as the
    domains are).
    """

    seed: float
    domain: float
    question: float
    seed_domain: float
    rest: float

    @classmethod
    def of(cls, design: CrossedDesign) -> VarianceParts:
        linear = (design.values_SQV @ design.slope) / design.means[1]
        y_SQV = np.stack([linear, np.zeros_like(linear)], axis=-1)
        n_s, n_q, n_d = design.n_seeds, design.n_questions, design.n_domains
        squares = [n_s * n_q * float(p.covariance[0, 0]) for p in crossed_parts(y_SQV)]
        by_seed, by_question, rest = squares
        if n_d < 2 or n_q <= n_d:
            parts = ((by_seed - rest) / n_q, 0.0, (by_question - rest) / n_s, 0.0, rest)
            return cls(*(math.sqrt(max(part, 0.0)) for part in parts))
        _, by_domain, by_both = (
            n_s * n_q * float(p.covariance[0, 0]) for p in crossed_parts(y_SQV, design.domains)
        )
        # Sums of squares of questions less those of domains: what is within a domain.
        within = ((n_q - 1) * by_question - (n_d - 1) * by_domain) / (n_q - n_d)
        rest = ((n_q - 1) * rest - (n_d - 1) * by_both) / (n_q - n_d)
        of_a_domain = n_q / n_d
        parts = (
            (by_seed - by_both) / n_q,
            (by_domain - by_both - within + rest) / (of_a_domain * n_s),
            (within - rest) / n_s,
            (by_both - rest) / of_a_domain,
            rest,
        )
        return cls(*(math.sqrt(max(part, 0.0)) for part in parts))

    def error(self, n_seeds: int, n_domains: int, of_a_domain: float) -> float:
        """Standard error of the number, seeds and domains drawn anew."""
        n_q = n_domains * of_a_domain
        return math.sqrt(
            self.seed**2 / n_seeds
            + self.domain**2 / n_domains
            + self.question**2 / n_q
            + self.seed_domain**2 / (n_seeds * n_domains)
            + self.rest**2 / (n_seeds * n_q)
        )


@dataclass(frozen=True)
class Power:
    """What would tell the number from another one `difference` away, with 80 % power.

    detectable: the smallest difference that this study tells with that power. Counts are of one
    thing alone, the others as they are; None where no number of it is enough.
    """

    difference: float
    detectable: float
    n_seeds: int | None
    n_domains: int | None
    questions_per_domain: int | None
    parts: VarianceParts

    @classmethod
    def of(cls, design: CrossedDesign, difference: float) -> Power:
        parts = VarianceParts.of(design)
        n_s, n_d = design.n_seeds, design.n_domains
        each = design.n_questions / n_d

        def enough(n_seeds: int, n_domains: int, of_a_domain: float) -> bool:
            return _reach(parts, n_seeds, n_domains, of_a_domain) <= difference

        every = range(2, MOST + 1)
        return cls(
            difference,
            _reach(parts, n_s, n_d, each),
            next((n for n in every if enough(n, n_d, each)), None),
            next((n for n in every if enough(n_s, n, each)), None),
            next((n for n in every if enough(n_s, n_d, n)), None),
            parts,
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self, value: float) -> str:
        """How many of what would be needed, in words."""
        counts = (
            (self.n_seeds, "seeds"),
            (self.n_domains, "domains"),
            (self.questions_per_domain, "questions a domain"),
        )
        said = "; or ".join(
            f"{n} {what}" if n is not None else f"no number of {what}" for n, what in counts
        )
        return (
            f"To tell {value:.2f} from {value - self.difference:.2f} with {POWER:.0%} power needs, "
            f"all else as it is, {said}. This study tells {self.detectable:.2f} apart."
        )


def _reach(parts: VarianceParts, n_seeds: int, n_domains: int, of_a_domain: float) -> float:
    """The difference from a fixed number that is found with 80 % power, two-sided at 5 %."""
    # Normal quantiles, widened as Student's is at the fewest degrees of freedom that are drawn.
    freedom = max(min(n_seeds, max(n_domains, 2)) - 1, 1)
    return parts.error(n_seeds, n_domains, of_a_domain) * (_quantile(0.975, freedom) + 0.8416)


def _quantile(at: float, freedom: int) -> float:
    from scipy.stats import t as student_t  # takes a while to import

    return float(student_t.ppf(at, freedom))
