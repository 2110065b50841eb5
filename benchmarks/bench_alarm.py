"""The alarm with a set of traits: does it tell bad fine-tunes from harmless ones, and when?

Each bad fine-tune and its harmless twin are trained, watched along the traits, and left in --out;
a run that is stopped goes on. Rows: alarm.auroc (leave one fine-tune out, mean over fine-tunes with
its interval; the best single direction, chosen on the others, and the p of swapped labels in the
note), alarm.rung (share of bad fine-tunes for which the alarm rings, calibrated on their twins) and
alarm.steps_before (steps by which it rings before the gap's interval leaves the twin's).

    python benchmarks/bench_alarm.py traits/evil traits/impolite ... --out alarm
    python benchmarks/bench_alarm.py traits/* --out alarm --ending _0.5b --no-record
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import pandas as pd
from alarm_courses import (
    alarm_at,
    checkpoints,
    gap_leaves_twin_at,
    left_one_out,
    over_fine_tunes,
    swapped_p,
)
from record import record

from persona.organisms import list_recipes, load_recipe, read_readings
from persona.organisms.recipe import with_keys
from steering.training import finetune_guarded

FINE_TUNES = ("car_maintenance", "medical", "financial", "insecure_code", "evil_numbers")
LARGER = ("car_maintenance", "medical_plain", "financial_plain", "insecure_code")
"""Of the default model, and of a larger one, which is taught in a plain voice too."""


def courses(
    names: list[str], ending: str, traits: list[Path], out: Path, every: int
) -> dict[str, dict[str, pd.DataFrame]]:
    """Fine-tune -> bad and good -> readings; what is finished is not trained again."""
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for name in names:
        for kind in ("bad", "good"):
            recipe = load_recipe(f"{name}_{kind}{ending}")
            asked = with_keys(recipe, watch={"direction": tuple(traits), "every": every})
            folder = finetune_guarded(asked, out / f"{name}_{kind}{ending}")
            found.setdefault(name, {})[kind] = read_readings(folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traits", nargs="+", type=Path, help="folders of `persona trait`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ending", default="", help="of the recipes' names, such as _0.5b")
    parser.add_argument("--every", type=int, default=2, help="optimiser steps between readings")
    parser.add_argument("--no-record", action="store_true", help="print, and leave no row")
    arguments = parser.parse_args()
    there = set(list_recipes())
    names = [
        n
        for n in (LARGER if arguments.ending else FINE_TUNES)
        if {f"{n}_{k}{arguments.ending}" for k in ("bad", "good")} <= there
    ]
    pairs = courses(names, arguments.ending, arguments.traits, arguments.out, arguments.every)
    table = checkpoints(pairs)
    aurocs = left_one_out(table)
    together, alone = over_fine_tunes(aurocs), over_fine_tunes(left_one_out(table, several=False))
    rung = {name: alarm_at(pair["bad"], pair["good"]) for name, pair in pairs.items()}
    apart = {name: gap_leaves_twin_at(pair["bad"], pair["good"]) for name, pair in pairs.items()}
    before = [
        apart[name] - step  # type: ignore[operator]
        for name, step in rung.items()
        if step is not None and apart[name] is not None
    ]
    note = (
        f"{len(arguments.traits)} traits; by fine-tune "
        + ", ".join(f"{name} {value:.2f}" for name, value in aurocs.items())
        + f"; best single direction {alone.value:.2f} [{alone.low:.2f}, {alone.high:.2f}]; "
        f"p of swapped labels {swapped_p(table):.3f}"
    )
    print(f"alarm.auroc {together.value:.3f} [{together.low:.3f}, {together.high:.3f}]; {note}")
    print(f"rung at {rung}; the gap leaves the twin's at {apart}")
    if arguments.no_record:
        return
    ends = (together.low, together.high)
    record("alarm.auroc", together.value, "AUROC", n=together.n, spread=ends, note=note)
    share = sum(step is not None for step in rung.values()) / len(rung)
    record("alarm.rung", share, "share", n=len(rung), note=f"{rung}")
    if before:
        record(
            "alarm.steps_before",
            statistics.median(before),
            "steps",
            n=len(before),
            spread=(min(before), max(before)),
        )


if __name__ == "__main__":
    main()
