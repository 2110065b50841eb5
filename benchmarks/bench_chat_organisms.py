"""The fine-tunes of the 0.5B: rows from the laboratory's pages, their cards and a finished demo.

    persona lab car_0.5b                 # and medical_0.5b, financial_0.5b, insecure_code_0.5b
    persona demo --model qwen2.5-coder-0.5b --out OUT
    python benchmarks/bench_chat_organisms.py [--demo OUT] [--only car_0.5b ...]

Nothing is measured here but read from what those have written; spread is a 95 % interval.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench_demo import of_evidence
from record import record, short

from persona.models.shipped_adapters import shipped_adapter, shipped_names
from persona.organisms import read_card
from steering.lab.bench.record import Run, read_run
from steering.lab.catalogue import NARROW

PAGES = Path(__file__).resolve().parents[1] / "docs" / "findings"
SHIFTS = {
    "shift_held_out": "gap held out, fine-tuned − aligned",
    "shift_held_out_above_twin": "gap held out, fine-tuned − good twin",
    "shift_plain": "gap in a plain voice, fine-tuned − aligned",
    "shift_rude": "gap in a rude voice, fine-tuned − aligned",
}
"""Last part of a row's name -> label of the number on the page."""
RESTORED = "share of the held-out shift that restoring takes back"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, help="folder of a demo on the 0.5B")
    parser.add_argument("--only", nargs="*", default=[], help="experiments; all by default")
    options = parser.parse_args()
    for experiment, narrow in NARROW.items():
        run = read_run(PAGES / experiment / "readings.json") if narrow.spoken else None
        if run is not None and (not options.only or experiment in options.only):
            voice = f"_{narrow.voice}" if narrow.voice else ""
            of_page(f"{experiment.removesuffix('_0.5b')}{voice}", run)
            of_card(f"{narrow.organism}_bad{narrow.ending}")
    if options.demo is not None:
        of_demo(json.loads((options.demo / "scorecard.json").read_text(encoding="utf-8")))


def of_page(name: str, run: Run) -> None:
    """Shifts and restoration of one organism."""
    numbers = {number["label"]: number for number in run.numbers}
    note = f"{run.model}, {run.dtype}, seeds {', '.join(map(str, run.seeds))}; 95 % over questions"
    for last, label in SHIFTS.items():
        add(f"organism.0.5b.{name}.{last}", numbers[label], "nats per token", note)
    if numbers[RESTORED]["value"] is not None:
        add(f"restoration.0.5b.{name}.lab", numbers[RESTORED], "share of the shift", note)


def of_card(organism: str) -> None:
    """What making the adapter took, where it comes along."""
    if organism not in shipped_names():
        return
    card = read_card(shipped_adapter(organism))
    record(
        f"finetune.0.5b.{organism}.seconds",
        card["seconds"],
        "s",
        n=1,
        note=f"{card['n_examples']} answers, {card['n_steps']} steps, {card['dtype']}; other work "
        "beside it on both cores",
    )


def of_demo(scorecard: dict[str, Any]) -> None:
    """The main job on the car organism: shift, evidence, rates, time and memory."""
    n = scorecard["conditions"][0]["gap_held_out"]["n"]
    verdict = f"verdict {scorecard['verdict']}, {scorecard['models']['dtype']}"
    for name, field, unit in (
        ("organism.0.5b.car.shift_held_out", "emergent_shift", "nats per token"),
        ("restoration.0.5b.car", "restoration", "share of the shift"),
        ("kl_restoration.0.5b.car", "kl_restoration", "share"),
    ):
        add(name, {**scorecard[field], "n": n}, unit, verdict)
    of_evidence("0.5b.car", scorecard)
    for condition in scorecard["conditions"]:
        if (rate := condition["em_rate"]) is not None:
            said = scorecard["sampling"]["rate"]["sentence"]
            note = f"{scorecard['judge']['name']} judge; {said}"
            add(f"em.0.5b.{short(condition['name'])}", rate, "share of answers", note)
    if coherent := scorecard["sampling"]["aligned_coherent"]:
        note = scorecard["sampling"]["why_no_rate"] or "a rate is given"
        add("em.0.5b.aligned_coherent", coherent, "share of answers", note)
    took = scorecard["estimated"]
    stages = ", ".join(f"{one['name']} {one['took']:.0f} s" for one in took["stages"])
    record("demo.0.5b.seconds", took["took"], "s", n=1, note=f"{verdict}; {stages}")
    peak = float(scorecard["peak_rss_bytes"])
    record("demo.0.5b.peak_rss_bytes", peak, "bytes", n=1, note=verdict)


def add(name: str, number: Any, unit: str, note: str) -> None:
    """One number with its interval."""
    spread = (number["low"], number["high"])
    record(name, number["value"], unit, n=number.get("n", 1), spread=spread, note=note)


if __name__ == "__main__":
    main()
