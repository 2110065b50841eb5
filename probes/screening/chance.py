"""Random directions beside the one screened by: what any direction would show of these samples.

They have the covariance of the reference's answers and length 1, and each is read as the screened
one is: with its own baseline, its own standard deviation and its own threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from probes.monitor.threshold import threshold_for
from probes.nulls import covariance_matched
from probes.screening.line import baseline_line
from probes.screening.reference import ReferenceAnswers

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RandomDirections:
    """units: [draw d_model]; intercept, slope, sd, threshold: [draw], see `ScoreScale`."""

    units: Array
    intercept: Array
    slope: Array
    sd: Array
    threshold: Array

    def __len__(self) -> int:
        return len(self.units)

    def count_above(self, answers: Array, raw: Array) -> NDArray[np.int64]:
        """[draw]: how many of the [sample d_model] activations lie above each threshold."""
        differences = answers @ self.units.T - (self.intercept + self.slope * (raw @ self.units.T))
        return np.asarray((differences > self.threshold).sum(0), dtype=np.int64)

    def mean_shifts(self, means: Array) -> Array:
        """[draw]: mean projection difference in SDs of the reference's good answers.

        means: [2 d_model], of the samples' answers and of their raw baselines.
        """
        answer, raw = means @ self.units.T
        return np.asarray((answer - self.intercept - self.slope * raw) / self.sd)


def draw_directions(
    reference: ReferenceAnswers, layer: int, false_alarm_rate: float, *, n_draws: int, seed: int
) -> RandomDirections:
    """Draws directions at one block. Raises: DataError as `threshold_for`."""
    good, bad, raw = reference.at(layer)
    pairs = torch.from_numpy(np.stack([good, bad]))[:, :, None].float()
    generator = torch.Generator().manual_seed(seed)
    drawn = covariance_matched(pairs, n_draws, generator)[:, 0].double().numpy()
    units = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    on_good, on_raw = units @ good.T, units @ raw.T
    intercept, slope = baseline_line(on_good, on_raw, reference.baseline, reference.raw_norm(layer))
    differences = on_good - intercept[:, None] - slope[:, None] * on_raw
    thresholds = [threshold_for(row, false_alarm_rate) for row in differences]
    return RandomDirections(
        units, intercept, slope, differences.std(axis=1, ddof=1), np.array(thresholds)
    )
