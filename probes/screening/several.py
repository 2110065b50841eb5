"""Screening along several directions, such as a set of traits, with one false-alarm rate for all.

Each direction is a screening of its own, in a folder of its own, which reads the data once. What is
new is that looking along seven is paid for: a sample is flagged where its largest z over the
directions is above what the largest z of an ordinary good answer exceeds with the rate that was
asked for; and the p values of the whole are Holm's.

Source: max statistic, Westfall and Young 1993; Holm 1979.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.errors import DataError
from persona.files import atomic_write_text
from probes.monitor.threshold import threshold_for
from probes.screening.job import FALSE_ALARM_RATE, ROWS, SUMMARY, Screening, screen
from probes.screening.monitored import ScreenedBy
from probes.screening.ranking import top_samples, write_rows
from probes.screening.statistics import LEVEL

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SeveralScreenings:
    """What `screen_along` found.

    each: by the name of the direction. table: one row a sample, in the order of the file: line,
    trait (the direction along which it lies furthest toward the trait, in reference SDs), z
    (there), rank (by it, 1 the most suspicious), flag (whether z is above the threshold of all
    together).
    summary: JSON-able; what summary.json holds.
    """

    each: Mapping[str, Screening]
    table: pd.DataFrame
    summary: Mapping[str, Any]
    folder: Path

    @property
    def flagged_share(self) -> float:
        """Share of samples above the threshold of all directions together."""
        return float(self.table["flag"].mean())

    def to_text(self) -> str:
        """The top samples, the verdict along each direction, and how many are flagged."""
        return "\n".join(_lines(self.summary))


def screen_along(
    model: Any,
    samples: str | Path,
    directions: Mapping[str, ScreenedBy],
    *,
    out: str | Path,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    top: int = 20,
    **options: Any,
) -> SeveralScreenings:
    """Ranks samples along several directions at once, and tests their means.

    samples: a JSONL file. out: folder of screened.jsonl and summary.json of all, and of a folder
        for each direction with its own. false_alarm_rate: share of ordinary good answers that is
        flagged along any direction. options: as `screen` takes them.
    Raises: DataError without a direction, for a name that is no name of a folder, or as `screen`.
    """
    folder = Path(out)
    if not directions:
        raise DataError("there is no direction to screen along")
    if wrong := [name for name in directions if not name or "/" in name or name.startswith(".")]:
        raise DataError(f"{wrong[0]!r} cannot name a direction: it names a folder")
    each = {
        name: screen(
            model,
            samples,
            direction,
            out=folder / name,
            false_alarm_rate=false_alarm_rate,
            top=top,
            **options,
        )
        for name, direction in directions.items()
    }
    names = list(each)
    z = np.stack([found.table["z"].to_numpy() for found in each.values()])
    ordinary = np.stack([found.scale.reference_z for found in each.values()])
    threshold = threshold_for(ordinary.max(0), false_alarm_rate)
    table = _table(next(iter(each.values())).table["line"].to_numpy(), names, z, threshold)
    summary = _summary(each, table, threshold, false_alarm_rate)
    summary["top"] = top_samples(Path(samples), table, top, options.get("answer"))
    write_rows(Path(samples), table, folder / ROWS)
    text = json.dumps(summary, indent=2, allow_nan=False)
    atomic_write_text(folder / SUMMARY, text + "\n")
    return SeveralScreenings(each, table, summary, folder)


def _table(lines: NDArray[np.int64], names: list[str], z: Array, threshold: float) -> pd.DataFrame:
    furthest = z.argmax(0)
    largest = z.max(0)
    ranks = np.empty(len(lines), dtype=np.int64)
    ranks[np.argsort(-largest, kind="stable")] = np.arange(1, len(lines) + 1)
    return pd.DataFrame(
        {
            "line": lines,
            "trait": np.array(names)[furthest],
            "z": largest,
            "rank": ranks,
            "flag": largest > threshold,
        }
    )


def _summary(
    each: Mapping[str, Screening], table: pd.DataFrame, threshold: float, rate: float
) -> dict[str, Any]:
    p_values = {
        name: float(found.summary["random_directions"]["p_value"]) for name, found in each.items()
    }
    family = holm(p_values)
    directions = {}
    for name, found in each.items():
        own = {key: value for key, value in found.summary.items() if key not in ("top", "skipped")}
        toward = own["verdict"] == "pushes_toward" and family[name] <= LEVEL
        directions[name] = {**own, "p_family": family[name], "pushes_toward": toward}
    return {
        "n_samples": len(table),
        "false_alarm_rate": rate,
        "threshold_z": threshold,
        "flagged": int(table["flag"].sum()),
        "expected": rate * len(table),
        "flagged_by_trait": {
            name: int(((table["trait"] == name) & table["flag"]).sum()) for name in each
        },
        "pushes_toward": [name for name, one in directions.items() if one["pushes_toward"]],
        "directions": directions,
    }


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p of each with the chance of any false one held.

    Source: Holm 1979.

    Examples:
        >>> from probes.screening.several import holm
        >>> holm({"evil": 0.01, "rude": 0.04, "vain": 0.03})
        {'evil': 0.03, 'rude': 0.06, 'vain': 0.06}
    """
    found, least = {}, 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        least = max(least, min(1.0, p * (len(p_values) - place)))
        found[name] = least
    return {name: found[name] for name in p_values}


def _lines(summary: Mapping[str, Any]) -> list[str]:
    lines = [f"{'rank':>5} {'line':>7} {'z':>6} {'flag':<5} along, answer"]
    for one in summary["top"]:
        answer = " ".join(str(one["answer"]).split())[:60]
        flag = "yes" if one["flag"] else ""
        place = f"{one['rank']:>5} {one['line']:>7} {one['z']:>+6.1f} {flag:<5}"
        lines.append(f"{place} {one['trait']}: {answer}")
    lines.append("")
    for name, found in summary["directions"].items():
        lines.append(
            f"{name} (block {found['direction']['layer']}): {found['verdict_in_words']} "
            f"Over all directions p = {found['p_family']:.3f}."
        )
    alike = ", ".join(summary["pushes_toward"]) or "none of these"
    lines.append(f"Training on this would push the model toward: {alike}.")
    lines.append(
        f"Flagged: {summary['flagged']} of {summary['n_samples']} samples along any direction "
        f"(z above {summary['threshold_z']:.2f}); of good answers like the reference's "
        f"{summary['expected']:.3g} would be."
    )
    return lines
