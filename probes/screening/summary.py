"""summary.json: what a screening found, every number with what it was held against."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from persona.intervals import Estimate, beyond_draws
from probes.screening.chance import RandomDirections
from probes.screening.monitored import Monitored
from probes.screening.reference import ReferenceAnswers, ScoreScale, error_of_zero
from probes.screening.statistics import LEVEL, POWER
from probes.screening.stream import SampleReadings
from probes.screening.verdict import BLIND_SPOT, dataset_shift, in_words, power_in_words

SCHEMA_VERSION = 1
MAX_SKIPPED = 100
"""Lines left out that the summary names; it counts all."""


def summarise(
    readings: SampleReadings,
    table: pd.DataFrame,
    monitored: Monitored,
    reference: ReferenceAnswers,
    scale: ScoreScale,
    random: RandomDirections,
    *,
    effect: float | None,
    false_alarm_rate: float,
    seed: int,
) -> dict[str, Any]:
    """Verdict, power, flags, reference and direction, JSON-able; undefined numbers are null."""
    n, space = len(readings), monitored.direction.space
    means = readings.totals / n
    shift = dataset_shift(
        table["projection_difference"].to_numpy(),
        readings.clusters,
        zero_error=error_of_zero(monitored, reference, float(means[1] @ monitored.unit)),
        reference_sd=scale.sd,
        random_shifts=random.mean_shifts(means),
        effect=scale.effect if effect is None else effect,
        effect_source="bad minus good reference answers" if effect is None else "as given",
        seed=seed,
    )
    counts = table["flag"].value_counts()
    flags = {name: int(counts.get(name, 0)) for name in ("projection", "probe", "both")}
    by_projection = flags["projection"] + flags["both"]
    return {
        "schema_version": SCHEMA_VERSION,
        "n_samples": n,
        "n_prompts": shift.mean.n,
        "verdict": shift.verdict,
        "verdict_in_words": in_words(shift),
        "projection_difference": {
            **_plain(shift.mean),
            "standard_error": _known(shift.standard_error),
        },
        "mean_z": float(table["z"].mean()),
        "random_directions": {
            "p_value": shift.p_value,
            "p95": shift.hurdle,
            "n": shift.n_draws,
        },
        "power": {
            "smallest_share": shift.smallest_share,
            "effect": shift.effect,
            "effect_source": shift.effect_source,
            "level": LEVEL,
            "power": POWER,
        },
        "power_in_words": power_in_words(shift, n),
        "blind_spot": BLIND_SPOT,
        "false_alarm_rate": false_alarm_rate,
        "flagged": {
            **flags,
            "by_projection": by_projection,
            "by_probe": flags["probe"] + flags["both"],
            "expected": false_alarm_rate * n,
            "p_value": beyond_draws(by_projection, readings.counts),
        },
        "thresholds": {
            "projection_difference": scale.threshold,
            "probe_score": scale.probe_threshold,
        },
        "reference": {
            "n": scale.n,
            "baseline": reference.baseline,
            "intercept": scale.intercept,
            "slope": scale.slope,
            "mean": scale.mean,
            "sd": scale.sd,
            "auroc": _plain(scale.auroc),
            "probe_auroc": _plain(scale.probe_auroc),
        },
        "direction": {
            "method": monitored.direction.method,
            "hook_name": space.hook_name,
            "layer": space.layer,
        },
        "probe": {"name": monitored.probe_name, "layer": monitored.probe_layer},
        "n_skipped": len(readings.skipped),
        "skipped": [
            {"line": line, "reason": reason} for line, reason in readings.skipped[:MAX_SKIPPED]
        ],
    }


def _plain(estimate: Estimate) -> dict[str, float | int | None]:
    ends = {name: _known(getattr(estimate, name)) for name in ("value", "low", "high")}
    return {**ends, "n": estimate.n}


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
