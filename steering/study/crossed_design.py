"""Seeds crossed with questions in domains: what an interval is over decides how wide it is.

A number of a study is a ratio of two means over fine-tunes (seeds) and questions; a plain mean has
the denominator 1. Three questions have three answers: how far would it move with other questions,
with another seed of the fine-tune, in other domains? The standard errors are those of the analysis
of variance of a crossed design, the quantiles Student's at Satterthwaite's degrees of freedom, the
ratio Fieller's, since five seeds and eight domains are too few for a percentile. The percentiles of
the crossed bootstrap stand beside them.

Source: Satterthwaite 1946; Searle, Casella and McCulloch 1992, ch. 4; Owen 2007.
Suffixes: S seed, Q question, K cluster of questions (a question, or a domain), V numerator and
denominator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from persona.errors import DataError
from persona.intervals import Estimate, crossed_bootstrap, ratio_of_means

Array = NDArray[np.float64]
Scope = Literal["questions", "seeds", "seeds and questions", "seeds and domains"]
SCOPES: tuple[Scope, ...] = ("questions", "seeds", "seeds and questions", "seeds and domains")
"""What is drawn anew: questions for these fine-tunes; fine-tunes for these questions; both; and
fine-tunes with whole domains."""


@dataclass(frozen=True)
class Spread:
    """Covariance of the two means when something is drawn anew, and its degrees of freedom."""

    covariance: Array
    freedom: float

    def quantile(self) -> float:
        from scipy.stats import t as student_t  # takes a while to import

        return float(student_t.ppf(0.975, self.freedom))


@dataclass(frozen=True)
class CrossedDesign:
    """One number of one recipe, read on every seed and question.

    values_SQV: [seed question 2], numerator and denominator. domains: of each question.
    """

    values_SQV: Array
    domains: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = self.values_SQV.shape
        if len(shape) != 3 or shape[2] != 2 or shape[1] != len(self.domains):
            raise DataError(f"seeds x questions x 2 are needed; got {shape}")
        if shape[0] < 2 or shape[1] < 2:
            raise DataError("an interval between seeds needs two seeds and two questions at least")
        if not np.isfinite(self.values_SQV).all():
            raise DataError("an interval over missing readings is undefined")

    @property
    def n_seeds(self) -> int:
        return len(self.values_SQV)

    @property
    def n_questions(self) -> int:
        return self.values_SQV.shape[1]

    @cached_property
    def n_domains(self) -> int:
        return len(set(self.domains))

    @cached_property
    def means(self) -> Array:
        """[2]: numerator and denominator over all seeds and questions."""
        return np.asarray(self.values_SQV.mean((0, 1)))

    @property
    def value(self) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.divide(*self.means))

    def of_seeds(self) -> list[float]:
        """The number of each fine-tune alone."""
        means_SV = self.values_SQV.mean(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return [float(top / bottom) for top, bottom in means_SV]

    def scopes(self) -> list[Scope]:
        """Those that the design can speak of: one domain says nothing of others."""
        return [one for one in SCOPES if self.n_domains > 1 or one != "seeds and domains"]

    def interval(self, scope: Scope) -> Estimate:
        """95 %, without ends where the denominator may be 0; n is the number of questions."""
        spread = self.spread(scope)
        return ratio_of_means(self.means, spread.covariance, spread.quantile(), self.n_questions)

    def spread(self, scope: Scope) -> Spread:
        """See `Scope`."""
        by_domain = scope == "seeds and domains"
        seeds, clusters, both = self._parts(self.domains if by_domain else None)
        if scope == "questions":
            return clusters
        if scope == "seeds":
            return seeds
        return combined([seeds], [both], clusters, self.slope)

    @property
    def slope(self) -> Array:
        """[2]: numerator - value x denominator, whose mean is 0 and whose spread the ratio's is."""
        return np.array([1.0, -self.value])

    def _parts(self, clusters: Sequence[str] | None) -> tuple[Spread, Spread, Spread]:
        """Of seeds, of clusters of questions (None: each its own), and of both together."""
        return crossed_parts(self.values_SQV - self.means, clusters)

    def bootstrap(self, scope: Scope, *, seed: int = 0) -> Estimate:
        """95 % percentile interval of the crossed bootstrap, too narrow for few seeds or domains.

        Domains are resampled whole: which of its questions a domain has shows in how far domains
        scatter, so that resampling those too would count them twice.
        """
        values = self.values_SQV
        if scope == "questions":
            values = values.mean(0, keepdims=True)
        if scope == "seeds and domains":
            values = np.stack(
                [self.values_SQV[:, where].sum(1) for where in _places(self.domains)], axis=1
            )
        if scope == "seeds":  # of which one question stands for all
            values = values.mean(1, keepdims=True)
            values = np.moveaxis(values, 0, 1)
        return crossed_bootstrap(values, lambda m: m[..., 0] / m[..., 1], seed=seed)


def crossed_parts(
    deviations_SQV: Array, clusters: Sequence[str] | None = None
) -> tuple[Spread, Spread, Spread]:
    """The variance of the grand mean that seeds, clusters, and both together account for.

    Each is a mean square over the number of readings; a cluster weighs as many as it has. Drawn
    anew together, seeds and clusters give seeds + clusters - both.
    deviations_SQV: of every reading from the mean.
    """
    n_seeds, n_questions, _ = deviations_SQV.shape
    places = [[i] for i in range(n_questions)] if clusters is None else _places(clusters)
    n_clusters = len(places)
    summed_SKV = np.stack([deviations_SQV[:, where].sum(1) for where in places], axis=1)
    summed_SKV = summed_SKV / (n_seeds * n_questions)
    weight_K = np.array([len(where) for where in places]) / n_questions
    of_seed_SV, of_cluster_KV = summed_SKV.sum(1), summed_SKV.sum(0)
    rest_SKV = (
        summed_SKV - of_seed_SV[:, None] * weight_K[None, :, None] - of_cluster_KV[None] / n_seeds
    )
    between_seeds, between = n_seeds - 1, max(n_clusters - 1, 1)
    return (
        Spread(n_seeds / between_seeds * of_seed_SV.T @ of_seed_SV, between_seeds),
        Spread(n_clusters / between * of_cluster_KV.T @ of_cluster_KV, between),
        Spread(
            n_seeds * n_clusters / (between_seeds * between)
            * np.einsum("skv,skw->vw", rest_SKV, rest_SKV),
            between_seeds * between,
        ),
    )  # fmt: skip


def combined(
    seeds: Sequence[Spread], both: Sequence[Spread], clusters: Spread, slope: Array
) -> Spread:
    """Seeds (of one recipe, or of two) and clusters drawn anew: their sum less what both share.

    Never less than the larger of the two, as the difference may be by chance.
    slope: the combination of the means that is asked for, which decides the degrees of freedom.
    """
    signed = [(1.0, part) for part in (*seeds, clusters)] + [(-1.0, part) for part in both]
    total = sum(
        (sign * part.covariance for sign, part in signed), np.zeros_like(clusters.covariance)
    )
    seeds_alone = sum((one.covariance for one in seeds), np.zeros_like(clusters.covariance))
    least = max(seeds_alone, clusters.covariance, key=lambda c: float(slope @ c @ slope))
    if slope @ total @ slope < slope @ least @ slope:
        total = least
    squares = sum(float(slope @ p.covariance @ slope) ** 2 / p.freedom for _, p in signed)
    variance = float(slope @ total @ slope)
    least_freedom = min(part.freedom for part in (*seeds, clusters))
    freedom = variance**2 / squares if squares else least_freedom
    return Spread(total, max(freedom, least_freedom))


def _places(labels: Sequence[str]) -> list[list[int]]:
    """Places of each label, in the order of the labels."""
    return [[i for i, one in enumerate(labels) if one == name] for name in sorted(set(labels))]
