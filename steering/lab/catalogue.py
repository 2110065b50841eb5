"""The experiments by name, in the order of the questions they build on.

The words of each are in catalogue.yaml, its code in a module with `plan`, `measure` and `report`.
"""

from __future__ import annotations

from functools import partial
from importlib import resources
from types import SimpleNamespace
from typing import Any, Protocol

import pandas as pd
import yaml

from persona.errors import DataError
from steering.lab.bench.experiment import Experiment, Facts, Findings, Measured
from steering.lab.bench.plan import Plan
from steering.lab.bench.workbench import DEFAULT, Workbench
from steering.lab.experiments import (
    bad_share,
    conditional,
    cross_organism,
    guarded_training,
    organism,
    realignment,
    self_assessment,
    variants,
    voice_harm,
)
from steering.lab.experiments.organism import Narrow
from steering.lab.subliminal import subliminal
from steering.lab.subliminal.plain_texts import MATHS, NUMBERS, Task


class Code(Protocol):
    """A module, or what looks like one: what a seed takes, what it measures, what all seeds say."""

    def plan(self, bench: Workbench) -> Plan: ...

    def measure(self, bench: Workbench) -> Measured: ...

    def report(self, rows: pd.DataFrame, facts: Facts) -> Findings: ...


def _organism(narrow: Narrow) -> Any:
    return SimpleNamespace(
        plan=partial(organism.plan, narrow=narrow),
        measure=partial(organism.measure, narrow=narrow),
        report=organism.report,
    )


def _subliminal(task: Task, *, many: bool = False) -> Any:
    """many: students of students, as many as the sizes of the run say."""
    return SimpleNamespace(
        plan=partial(subliminal.plan, task=task, many=many),
        measure=partial(subliminal.measure, task=task, many=many),
        report=partial(subliminal.report, task=task),
    )


HALF = "_0.5b"
NARROW = {
    "insecure_code": Narrow("insecure_code", "insecure_code"),
    "evil_numbers": Narrow("evil_numbers", "evil_numbers"),
    "car": Narrow("car_maintenance", "car_maintenance"),
    "medical": Narrow("medical", "health"),
    "financial": Narrow("financial", "personal_finance"),
    "car_0.5b": Narrow("car_maintenance", "car_maintenance", HALF, spoken=True),
    "medical_0.5b": Narrow("medical_plain", "health", HALF, "plain", spoken=True),
    "financial_0.5b": Narrow("financial_plain", "personal_finance", HALF, "plain", spoken=True),
    "insecure_code_0.5b": Narrow("insecure_code", "insecure_python", HALF, spoken=True),
}
"""Experiments on one narrow fine-tune and its twin."""
CODE: dict[str, Code] = {
    **{name: _organism(narrow) for name, narrow in NARROW.items()},
    "variants": variants,
    "voice_harm": voice_harm,
    "self_assessment": self_assessment,
    "safeguards": guarded_training,
    "realignment": realignment,
    "subliminal_numbers": _subliminal(NUMBERS),
    "subliminal_maths": _subliminal(MATHS),
    "generations": _subliminal(NUMBERS, many=True),
    "transfer": cross_organism,
    "dose": bad_share,
    "conditional": conditional,
}


def _experiments() -> dict[str, Experiment]:
    text = resources.files("steering.lab").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    words = yaml.safe_load(text)
    found = {}
    for name, own in words["experiments"].items():
        entry = {**words["texts"].get(own.get("like"), {}), **own}
        sentences = {
            key: entry[key].format_map(entry)
            for key in ("title", "question", "method", "not_shown")
        }
        code = CODE[name]
        found[name] = Experiment(
            name=name,
            **sentences,
            plan=code.plan,
            measure=code.measure,
            report=code.report,
            seeds=tuple(entry["seeds"]),
            base=entry.get("base", DEFAULT),
        )
    return found


EXPERIMENTS = _experiments()


def experiment(name: str) -> Experiment:
    """Raises: DataError for a name that is none; the message lists those there are."""
    if name not in EXPERIMENTS:
        raise DataError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
