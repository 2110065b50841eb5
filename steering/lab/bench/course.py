"""The way from the aligned model to a fine-tuned one, as its watched training wrote it down."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from persona.errors import DataError
from persona.organisms import cusum_alarm, read_readings
from persona.organisms.monitoring import mean_projections

COURSE = "course"
TOO_SHORT = "too short"
"""In place of a step, where there are too few readings to calibrate an alarm on."""


def course_rows(adapter: Path, condition: str) -> pd.DataFrame:
    """The readings on the way, as rows of the stage "course" with the optimiser `step`."""
    found = read_readings(adapter)
    return found[found["measure"] != "alarm"].assign(
        stage=COURSE, split=COURSE, condition=condition, seed=0
    )


def alarm_step(watched: Path, harmless: Path) -> int | str | None:
    """The step at which an alarm calibrated on a harmless fine-tune rings; None where it does not.

    A chance of 5 % that it rings at all for another harmless one; see `cusum_alarm`.
    """
    rows = read_readings(watched)
    steps = sorted(rows["step"].unique().tolist())
    readings, reference = (
        mean_projections(read_readings(folder).to_dict("records")) for folder in (watched, harmless)
    )
    try:
        place = cusum_alarm(reference, len(readings)).rings_at(readings)
    except DataError:
        return TOO_SHORT
    return None if place is None else int(steps[place])


def readings_of(rows: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The way of one condition as `training_course` draws it, seeds averaged by question."""
    chosen = rows[(rows["stage"] == COURSE) & (rows["condition"] == condition)]
    return chosen.groupby(["step", "question_id", "measure"], as_index=False)["value"].mean()


def rung(steps: dict[int, int | str | None]) -> str:
    """When the alarm rang, seed by seed, in words."""
    words: dict[int | str | None, str] = {
        None: "never",
        TOO_SHORT: "not, with too few readings to calibrate it",
    }
    return "; ".join(
        f"seed {seed}: {words.get(step, f'at step {step}')}" for seed, step in steps.items()
    )
