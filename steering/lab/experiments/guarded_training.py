"""What can be done while a model learns bad answers, and what it costs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from persona.data import load_pairs
from persona.organisms import KlPenalty
from persona.report.figures import dots, training_course
from persona.rows import ALIGNED, FINETUNED, GOOD_TWIN
from steering.lab.bench.course import alarm_step, course_rows, readings_of, rung
from steering.lab.bench.estimates import difference, intervals
from steering.lab.bench.experiment import UNITS, Facts, Findings, Measured, Number, signed
from steering.lab.bench.plan import Plan
from steering.lab.bench.workbench import Workbench
from steering.training import preventative, projecting_out

DOMAIN, OPEN = "car_maintenance", "open_questions"
BAD = "car_maintenance_bad"
PREVENTED, PROJECTED, HELD = "preventative", "projected_out", "kl_to_aligned"
WAYS = {
    FINETUNED: "no safeguard",
    PREVENTED: "preventative steering",
    PROJECTED: "projected out (CAFT)",
    HELD: "KL to the aligned model",
    GOOD_TWIN: "good twin",
}
COEFFICIENT, KL_COEFFICIENT = 1.0, 0.3


def plan(bench: Workbench) -> Plan:
    """Five fine-tunes, one of them the good twin, and the direction of the unguarded one."""
    asked = len(bench.held_out(DOMAIN, OPEN)) + bench.sizes.in_domain
    return Plan(fine_tunes=len(WAYS), vectors=1, answer_pairs=(1 + len(WAYS)) * asked)


def measure(bench: Workbench) -> Measured:
    """The bad car fine-tune without and with each safeguard, on the same data and seed."""
    unguarded, twin = bench.organism(BAD), bench.organism("car_maintenance_good")
    vector, _ = bench.vector(unguarded, DOMAIN)
    middle = vector.direction(vector.layers[len(vector.layers) // 2])
    anchors = [q.good_dialogue for q in load_pairs([OPEN])]
    adapters: dict[str, Path] = {
        FINETUNED: unguarded,
        PREVENTED: bench.organism(BAD, during=preventative(middle, COEFFICIENT)),
        PROJECTED: bench.organism(BAD, during=projecting_out(vector)),
        HELD: bench.organism(BAD, penalty=KlPenalty(KL_COEFFICIENT, anchors)),
        GOOD_TWIN: twin,
    }
    splits = {
        "trained_on": bench.questions(DOMAIN, "selection", bench.sizes.in_domain),
        "held_out": bench.held_out(DOMAIN, OPEN),
    }
    parts = [bench.reading(ALIGNED, unguarded, splits, vector, side="aligned")]
    for condition, adapter in adapters.items():
        parts.append(bench.reading(condition, adapter, splits, vector))
        parts.append(course_rows(adapter, condition))
    alarms = {name: alarm_step(a, twin) for name, a in adapters.items() if name != GOOD_TWIN}
    return Measured(pd.concat(parts, ignore_index=True), {"alarm_step": alarms})


def report(rows: pd.DataFrame, facts: Facts) -> Findings:
    """What each safeguard lets through, in-domain and elsewhere, and its damage."""
    readings = {
        "gap in-domain (the task)": ("gap", "trained_on", "nats per token"),
        "gap held out": ("gap", "held_out", "nats per token"),
        "projection": ("projection", "held_out", UNITS),
        "neutral text (damage)": ("neutral_ce_nats", "neutral", "nats per token"),
    }
    panels, numbers = {}, []
    for title, (measure, split, unit) in readings.items():
        found = {name: difference(rows, measure, split, name) for name in WAYS}
        panels[title] = {WAYS[name]: e for name, e in found.items()}
        numbers += [
            Number(f"{title}, {WAYS[name]} − aligned", e, unit) for name, e in found.items()
        ]
    figure = dots(
        panels,
        title="Safeguards while training on bad car advice",
        subtitle=f"above the aligned model; {intervals(rows)}",
        axis="above aligned",
    )
    course = training_course(
        {
            name if name in (FINETUNED, GOOD_TWIN) else words: readings_of(rows, name)
            for name, words in WAYS.items()
        }
    )
    notes = [
        f"Alarm on the way, calibrated on the good twin's, {WAYS[name]}: "
        + rung({seed: found["alarm_step"][name] for seed, found in facts.items()})
        + "."
        for name in WAYS
        if name != GOOD_TWIN
    ]
    headline = "gap held out " + ", ".join(
        f"{WAYS[name]} {signed(difference(rows, 'gap', 'held_out', name))}"
        for name in (FINETUNED, PREVENTED, PROJECTED, HELD)
    )
    return Findings({"figure": figure, "course": course}, tuple(numbers), headline, tuple(notes))
