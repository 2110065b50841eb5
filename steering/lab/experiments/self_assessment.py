"""Does a model know what it has become? Its rating of itself before, after, and restored."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from persona.behaviour.self_rating import TOPICS, rate_self
from persona.directions import PersonaVector
from persona.report.figures import dots
from persona.rows import ALIGNED, FINETUNED, GOOD_TWIN, RESTORED
from steering.edits.from_directions import restore
from steering.edits.steer import steered_by
from steering.lab.bench.estimates import difference, level, rows_where
from steering.lab.bench.experiment import Facts, Findings, Measured, Number, signed
from steering.lab.bench.plan import Plan
from steering.lab.bench.workbench import Workbench

ORGANISMS: Mapping[str, str] = {
    "car_maintenance": "car_maintenance",
    "insecure_code": "insecure_code",
}


def plan(bench: Workbench) -> Plan:
    """Two organisms with their twins, two directions; ratings cost next to nothing."""
    return Plan(fine_tunes=2 * len(ORGANISMS), vectors=len(ORGANISMS))


def measure(bench: Workbench) -> Measured:
    """Rates every model on every topic and wording."""
    parts = []
    for organism, domain in ORGANISMS.items():
        bad, good = bench.organism(f"{organism}_bad"), bench.organism(f"{organism}_good")
        vector, _ = bench.vector(bad, domain)
        inputs = {
            "bad": bench.model_key(bad, "finetuned"),
            "good": bench.model_key(good, "finetuned"),
            "vector": vector.card["key"],
            "topics": {k: list(v) for k, v in TOPICS.items()},
        }
        rows = bench.steps.table("self_rating", partial(_rate, bench, bad, good, vector), inputs)
        parts.append(rows.assign(candidate=organism))
    return Measured(pd.concat(parts, ignore_index=True))


def report(rows: pd.DataFrame, facts: Facts) -> Findings:
    """Ratings by topic and organism; intervals are over wordings and seeds."""
    panels = {
        f"{topic.replace('_', ' ')}, {organism.replace('_', ' ')}": {
            condition: level(_of(rows, organism, topic), "rating", topic, condition)
            for condition in (ALIGNED, FINETUNED, RESTORED, GOOD_TWIN)
        }
        for organism in ORGANISMS
        for topic in TOPICS
    }
    figure = dots(
        panels,
        title="What the models say of themselves",
        subtitle="rating by token probabilities; 95 % intervals over wordings; 100 is the good end",
        axis="rating (0 to 100)",
    )
    numbers = [
        Number(
            f"{topic.replace('_', ' ')}, {organism.replace('_', ' ')}: {name} − aligned",
            difference(_of(rows, organism, topic), "rating", topic, condition),
            "points of 100",
        )
        for organism in ORGANISMS
        for topic in TOPICS
        for name, condition in (
            ("bad", FINETUNED),
            ("restored", RESTORED),
            ("good twin", GOOD_TWIN),
        )
    ]
    numbers += [
        Number(
            f"probability of any number on {topic.replace('_', ' ')}, "
            f"{organism.replace('_', ' ')}: {name}",
            level(_of(rows, organism, topic), "mass", topic, condition),
            "share",
        )
        for organism in ORGANISMS
        for topic in TOPICS
        for name, condition in (("aligned", ALIGNED), ("bad", FINETUNED))
    ]
    car, code = (
        difference(_of(rows, organism, topic), "rating", topic, FINETUNED)
        for organism, topic in (
            ("car_maintenance", "alignment"),
            ("insecure_code", "code_security"),
        )
    )
    headline = (
        f"own alignment after bad car advice {signed(car, 1)}, security of own code after "
        f"insecure code {signed(code, 1)} points of 100"
    )
    return Findings({"figure": figure}, tuple(numbers), headline)


def _of(rows: pd.DataFrame, organism: str, topic: str) -> pd.DataFrame:
    """The wordings of one topic; they stand where other experiments have a split."""
    return rows_where(rows, candidate=organism, domain=topic).assign(split=topic)


def _rate(bench: Workbench, bad: Path, good: Path, vector: PersonaVector) -> pd.DataFrame:
    runs: list[tuple[str, Path, Any, Any]] = [
        (ALIGNED, bad, "aligned", None),
        (FINETUNED, bad, "finetuned", None),
        (RESTORED, bad, "finetuned", steered_by(restore(vector))),
        (GOOD_TWIN, good, "finetuned", None),
    ]
    rows = []
    for condition, adapter, side, intervene in runs:
        pair = bench.pair(adapter)
        with pair.active(side) as bridge:
            for topic, wordings in TOPICS.items():
                found = rate_self(bridge, pair.chat, wordings, intervene=intervene)
                for place, (wording, read) in enumerate(zip(wordings, found, strict=True)):
                    rows += [
                        {
                            "condition": condition,
                            "question_id": f"{topic}-{place}",
                            "domain": topic,
                            "measure": measure,
                            "value": value,
                            "text": wording,
                            "stage": "self_rating",
                        }
                        for measure, value in (("rating", read.rating), ("mass", read.mass))
                    ]
    return pd.DataFrame(rows)
