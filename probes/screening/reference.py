"""Labelled answers beside the samples: where 0 lies, what spread is ordinary, what bad is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persona.directions.direction import Direction
from persona.errors import DataError
from persona.intervals import Estimate
from probes.estimators.linear import LogisticProbe
from probes.evaluation import evaluate
from probes.fitting import FittedProbe
from probes.monitor.threshold import threshold_for
from probes.screening.compared_with import Baseline
from probes.screening.line import baseline_line, zero_error
from probes.screening.monitored import Monitored

N_RESAMPLES = 200
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReferenceAnswers:
    """Activations of the good and the bad answer of each question, in the aligned model.

    raw: what the baseline of the question's prompt starts from; see `read_answers_and_baselines`.
    layers: the blocks read, in the order of the tensors.
    """

    good: Float[Tensor, "question layer d_model"]
    bad: Float[Tensor, "question layer d_model"]
    raw: Float[Tensor, "question layer d_model"]
    layers: tuple[int, ...]
    baseline: Baseline

    def at(self, layer: int) -> tuple[Array, Array, Array]:
        """good, bad and raw at one block, [question d_model] float64."""
        place = self.layers.index(layer)
        good, bad, raw = (
            part[:, place].double().numpy() for part in (self.good, self.bad, self.raw)
        )
        return good, bad, raw

    def raw_norm(self, layer: int) -> float:
        """Root mean square length of the raw baselines at one block."""
        return float(np.sqrt(np.square(self.at(layer)[2]).sum(1).mean()))


@dataclass(frozen=True)
class ScoreScale:
    """How scores along one direction are read.

    baseline = intercept + slope * raw. mean, sd: of the projection differences of the reference's
    good answers. effect: mean difference of bad minus good answers of a question; its unit is that
    of the projection. auroc: bad above good answers, 0.5 is chance.
    threshold, probe_threshold: what a good answer exceeds with the false-alarm rate.
    probe_auroc: as auroc, of the probe; out of fold where the probe was fitted on them.
    reference_z: [question], projection differences of these good answers, in their SDs.
    """

    intercept: float
    slope: float
    mean: float
    sd: float
    effect: float
    auroc: Estimate
    probe_auroc: Estimate
    threshold: float
    probe_threshold: float
    n: int
    reference_z: Array = field(repr=False, compare=False)

    def difference(self, projection: Array, raw: Array) -> Array:
        """Projection difference of each sample; above 0 is toward the trait."""
        return projection - (self.intercept + self.slope * raw)


def choose_direction(candidates: dict[int, Direction], reference: ReferenceAnswers) -> Direction:
    """The direction at the block where it tells bad from good answers best.

    Best is the largest mean / standard deviation over questions of bad minus good projection.
    """

    def separation(layer: int) -> float:
        good, bad, _ = reference.at(layer)
        gaps = (bad - good) @ candidates[layer].unit.double().numpy()
        return float(gaps.mean() / (gaps.std() or np.inf))

    return candidates[max(sorted(candidates), key=separation)]


def with_probe(
    direction: Direction, probe: FittedProbe | None, reference: ReferenceAnswers
) -> tuple[Monitored, Array, Estimate]:
    """The direction beside a probe; scores of the reference's good answers, and its AUROC.

    probe: None fits a LogisticProbe on the reference at the direction's block; scores and AUROC
        are then those of questions that it was not fitted on.
    """
    layer = direction.space.layer if probe is None else probe.spaces[0].layer
    good, bad, _ = reference.at(layer)
    rows, labels = np.concatenate([good, bad]), np.repeat([0, 1], len(good))
    estimator = LogisticProbe() if probe is None else probe.probe
    if probe is None:
        questions = np.tile(np.arange(len(good)), 2)
        found = evaluate(estimator, rows, labels, questions, n_shuffles=0, n_resamples=N_RESAMPLES)
        scores, auroc, name = found.scores, found.auroc, "LogisticProbe, fitted on the reference"
        estimator = estimator.fit(rows, labels)
    else:
        scores, name = estimator.decision_function(rows), type(estimator).__name__
        auroc = _auroc(scores[: len(good)], scores[len(good) :])
    monitored = Monitored(
        direction, np.asarray(estimator.coef_), float(estimator.intercept_), layer, name
    )
    return monitored, scores[: len(good)], auroc


def scale_of(
    monitored: Monitored,
    reference: ReferenceAnswers,
    probe_scores: Array,
    probe_auroc: Estimate,
    false_alarm_rate: float,
) -> ScoreScale:
    """Raises: DataError for good answers that all project alike, or as `threshold_for`."""
    layer = monitored.direction.space.layer
    good, bad, raw = (part @ monitored.unit for part in reference.at(layer))
    intercept, slope = baseline_line(good, raw, reference.baseline, reference.raw_norm(layer))
    differences = good - (intercept + slope * raw)
    sd = float(differences.std(ddof=1))
    if not sd > 0:
        raise DataError("the reference's good answers all project alike: there is no scale")
    return ScoreScale(
        intercept=float(intercept),
        slope=float(slope),
        mean=float(differences.mean()),
        sd=sd,
        effect=float((bad - good).mean()),
        auroc=_auroc(good, bad),
        probe_auroc=probe_auroc,
        threshold=threshold_for(differences, false_alarm_rate),
        probe_threshold=threshold_for(probe_scores, false_alarm_rate),
        n=len(good),
        reference_z=(differences - differences.mean()) / sd,
    )


def error_of_zero(monitored: Monitored, reference: ReferenceAnswers, mean_raw: float) -> float:
    """Standard error of the baseline along the direction; see `zero_error`."""
    layer = monitored.direction.space.layer
    good, _, raw = (part @ monitored.unit for part in reference.at(layer))
    return zero_error(good, raw, reference.baseline, reference.raw_norm(layer), mean_raw)


def _auroc(good: Array, bad: Array) -> Estimate:
    from probes.evaluation import metrics

    n = len(good)
    weights = metrics.group_weights(np.tile(np.arange(n), 2), N_RESAMPLES, np.random.default_rng(0))
    positive = np.repeat([False, True], n)
    return metrics.estimate_of(metrics.auroc(np.concatenate([good, bad]), positive, weights), n)
