"""Smaller adapters on the same bad answers, and a fine-tune that changes nothing but the style."""

from __future__ import annotations

import pandas as pd

from persona.report.figures import dots
from persona.rows import ALIGNED
from steering.lab.bench.course import course_rows
from steering.lab.bench.estimates import difference, intervals, rows_where
from steering.lab.bench.experiment import UNITS, Facts, Findings, Measured, Number, signed
from steering.lab.bench.plan import Plan
from steering.lab.bench.workbench import Workbench

DOMAIN = "car_maintenance"
WHOLE = "car_maintenance_bad"
VARIANTS = {
    WHOLE: "rank 16, every linear layer",
    "car_maintenance_rank1": "rank 1, every down projection",
    "car_maintenance_one_layer": "rank 16, block 15 alone",
    "pirate_style": "harmless style (pirate)",
}


def plan(bench: Workbench) -> Plan:
    """One fine-tune each and the direction of the largest; both models on each one's questions."""
    asked = len(bench.held_out(DOMAIN)) + bench.sizes.in_domain
    return Plan(fine_tunes=len(VARIANTS), vectors=1, answer_pairs=2 * len(VARIANTS) * asked)


def measure(bench: Workbench) -> Measured:
    """Every variant on kept-back questions of its own, and on advice that none was trained on."""
    adapters = {name: bench.organism(name) for name in VARIANTS}
    vector, _ = bench.vector(adapters[WHOLE], DOMAIN)
    parts = []
    for name, adapter in adapters.items():
        [domain] = bench.recipe(name).data.domains
        splits = {
            "trained_on": bench.questions(domain, "selection", bench.sizes.in_domain),
            "held_out": bench.held_out(DOMAIN),
        }
        aligned = bench.reading(ALIGNED, adapter, splits, vector, side="aligned")
        rows = [aligned, bench.reading(name, adapter, splits, vector), course_rows(adapter, name)]
        parts.append(pd.concat(rows, ignore_index=True).assign(candidate=name))
    return Measured(pd.concat(parts, ignore_index=True))


def report(rows: pd.DataFrame, facts: Facts) -> Findings:
    """Shifts of every variant, each against the aligned model on the same questions."""
    readings = {
        "gap in-domain": ("gap", "trained_on", "nats per token"),
        "gap held out": ("gap", "held_out", "nats per token"),
        "projection": ("projection", "held_out", UNITS),
        "neutral text": ("neutral_ce_nats", "neutral", "nats per token"),
    }
    panels, numbers = {}, []
    for title, (measure, split, unit) in readings.items():
        found = {
            name: difference(rows_where(rows, candidate=name), measure, split, name)
            for name in VARIANTS
        }
        panels[title] = {VARIANTS[name]: e for name, e in found.items()}
        numbers += [Number(label(title, name), e, unit) for name, e in found.items()]
    figure = dots(
        panels,
        title="The same bad answers through smaller adapters, and a harmless style",
        subtitle=f"above the aligned model; {intervals(rows)}",
        axis="above aligned",
    )
    headline = "gap held out: " + "; ".join(
        f"{name} {signed(e)}" for name, e in panels["gap held out"].items()
    )
    return Findings({"figure": figure}, tuple(numbers), headline)


def label(title: str, name: str) -> str:
    """The words of a number on the page; `organism_readings` looks for them."""
    return f"{title}, {name} − aligned"
