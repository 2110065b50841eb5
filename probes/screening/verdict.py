"""What a screening found, as numbers and in words; nothing is ever called clean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from persona.intervals import Estimate, beyond_draws
from persona.report.wording import cleaned, number
from probes.screening.statistics import (
    LEVEL,
    POWER,
    cluster_means,
    smallest_share,
)

Verdict = Literal["pushes_toward", "shift_within_chance", "pushes_away", "no_evidence"]
BLIND_SPOT = (
    "Blind spot: data that carries a trait subliminally (number lists, filtered text written by a "
    "model with the trait) need not show in a projection or a probe. No evidence here is not "
    "evidence of harmless data."
)


@dataclass(frozen=True)
class DatasetShift:
    """The mean projection difference of all samples, and what it is worth.

    mean: 95 % interval, prompts resampled whole and the baseline's own error added; n prompts.
    standard_error: of the mean, both parts.
    p_value: (1 + random directions on which the mean, in reference SDs, is as large) / (1 + them).
    hurdle: what 95 % of random directions stay below, in units of the projection, at least 0.
    effect: shift of one bad sample; effect_source: where that number is from.
    smallest_share: least share of bad samples that would have been found, None where even all bad
        would not, or the effect is not above 0.
    """

    mean: Estimate
    standard_error: float
    p_value: float
    hurdle: float
    effect: float
    effect_source: str
    smallest_share: float | None
    n_draws: int

    @property
    def verdict(self) -> Verdict:
        if self.mean.low > 0:
            return "pushes_toward" if self.p_value <= LEVEL else "shift_within_chance"
        return "pushes_away" if self.mean.high < 0 else "no_evidence"


def dataset_shift(
    differences: NDArray[np.float64],
    clusters: NDArray[np.int64],
    *,
    zero_error: float,
    reference_sd: float,
    random_shifts: NDArray[np.float64],
    effect: float,
    effect_source: str,
    seed: int = 0,
) -> DatasetShift:
    """Tests the mean projection difference.

    zero_error: standard error of where 0 lies, in units of the projection.
    random_shifts: [draw], means on random directions in reference SDs.
    """
    means, n_clusters = cluster_means(differences, clusters, seed=seed)
    rng = np.random.default_rng([seed, 1])
    means = means + zero_error * rng.standard_normal(len(means))
    low, high = (float(end) for end in np.percentile(means, [2.5, 97.5]))
    mean, error = float(differences.mean()), float(means.std(ddof=1))
    hurdle = max(float(np.percentile(random_shifts, 100 * (1 - LEVEL))) * reference_sd, 0.0)
    known = np.isfinite(error)
    return DatasetShift(
        mean=Estimate(mean, low, high, n_clusters),
        standard_error=error,
        p_value=beyond_draws(mean / reference_sd, random_shifts),
        hurdle=hurdle,
        effect=effect,
        effect_source=effect_source,
        smallest_share=smallest_share(effect, error, n_clusters, hurdle=hurdle) if known else None,
        n_draws=len(random_shifts),
    )


def in_words(shift: DatasetShift) -> str:
    """The verdict as one sentence."""
    mean = f"{number(shift.mean.value, 3, signed=True)} {_interval(shift.mean)}"
    chance = f"p = {shift.p_value:.3f} against {shift.n_draws} random directions"
    match shift.verdict:
        case "pushes_toward":
            return f"Training on this would push the model toward the persona: {mean}, {chance}."
        case "shift_within_chance":
            return (
                f"The mean answer lies toward the persona ({mean}), but no more than along random "
                f"directions ({chance}): no evidence at this power."
            )
        case "pushes_away":
            return (
                f"The mean answer lies away from the persona: {mean}; no evidence at this power "
                "that the data pushes toward it."
            )
        case "no_evidence":
            return (
                "The mean answer gives no evidence at this power that the data pushes toward the "
                f"persona: {mean}."
            )


def power_in_words(shift: DatasetShift, n: int) -> str:
    """The power estimate as one sentence."""
    effect = f"each shifted by {number(shift.effect, 3, signed=True)} ({shift.effect_source})"
    if shift.effect <= 0:
        return (
            "Power: none can be given: the bad answers are not shifted toward the persona "
            f"({effect})."
        )
    if shift.smallest_share is None:
        return (
            f"Power: with these {n} samples not even a dataset of bad samples only, {effect}, "
            f"would be found at {LEVEL:.0%} level and {POWER:.0%} power."
        )
    return (
        f"Power: {n} samples find a share of {share(shift.smallest_share)} bad samples or more, "
        f"{effect}, at {LEVEL:.0%} level and {POWER:.0%} power."
    )


def share(value: float) -> str:
    """A share in percent with two digits that count."""
    return f"{100 * value:.2g} %"


def top_table(samples: list[dict[str, Any]], width: int = 60) -> str:
    """The most suspicious samples, one a line; texts on one line, cut to `width`."""
    lines = [f"{'rank':>5} {'line':>7} {'difference':>10} {'z':>6} {'probe':>7} flag       answer"]
    lines += [
        f"{s['rank']:>5} {s['line']:>7} {s['projection_difference']:>+10.3f} {s['z']:>+6.1f} "
        f"{s['probe_score']:>+7.2f} {s['flag']:<10} {_short(s['answer'], width)}"
        for s in samples
    ]
    return "\n".join(lines)


def summary_text(summary: Mapping[str, Any]) -> str:
    """What a screening prints: table, verdict, power, blind spot."""
    reference = summary["reference"]
    parts = [
        top_table(summary["top"]),
        "",
        summary["verdict_in_words"],
        summary["power_in_words"],
        flags_in_words(summary),
        f"Reference: {reference['n']} questions; bad above good answers with AUROC "
        f"{reference['auroc']['value']:.2f} (projection), {reference['probe_auroc']['value']:.2f} "
        f"(probe: {summary['probe']['name']}).",
    ]
    if summary["n_skipped"]:
        first = summary["skipped"][0]
        parts.append(
            f"Left out: {summary['n_skipped']} lines that are no samples, the first line "
            f"{first['line']}: {cleaned(first['reason'])}"
        )
    return "\n".join([*parts, BLIND_SPOT])


def flags_in_words(summary: Mapping[str, Any]) -> str:
    """How many samples are flagged, beside what ordinary answers and random directions give."""
    flagged = summary["flagged"]
    more = flagged["by_projection"] > flagged["expected"] and flagged["p_value"] <= LEVEL
    return (
        f"Flagged: {flagged['by_projection']} of {summary['n_samples']} samples by projection "
        f"difference, {flagged['by_probe']} by probe, {flagged['both']} by both; of good answers "
        f"like the reference's {flagged['expected']:.3g} would be by each. By projection that is "
        f"{'more' if more else 'no more'} than along random directions "
        f"(p = {flagged['p_value']:.3f})."
    )


def _short(text: str, width: int) -> str:
    one_line = " ".join(cleaned(text).split())
    return one_line if len(one_line) <= width else f"{one_line[: width - 1]}…"


def _interval(estimate: Estimate) -> str:
    return f"[{number(estimate.low, 3, signed=True)}, {number(estimate.high, 3, signed=True)}]"
