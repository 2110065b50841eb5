"""What an experiment hands back, and the run over its seeds that makes files of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

import persona.rows
from persona.intervals import Estimate
from steering.lab.bench.plan import Plan
from steering.lab.bench.workbench import DEFAULT, Workbench

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


COLUMNS = persona.rows.COLUMNS | dict.fromkeys(("draw", "step", "n_answers", "generation"), "Int64")
"""Of the rows of an experiment, whose `seed` is that of the fine-tune. draw: of a random control.
step: of the optimiser. n_answers: trained on. generation: of teachers and students, 0 the first."""


@dataclass(frozen=True)
class Number:
    """One number of a page: what it is, its value with a 95 % interval, its unit."""

    label: str
    estimate: Estimate
    unit: str = "nats per token"


@dataclass(frozen=True)
class Measured:
    """What one seed gave. rows: one row a question (or draw) and measure, with any of `COLUMNS`.

    facts: whatever else the page needs of it, JSON-able.
    """

    rows: pd.DataFrame
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Findings:
    """What all seeds together say. figures: by name, the first one "figure".

    headline: the answer in one line. notes: further sentences of the page.
    """

    figures: Mapping[str, Figure]
    numbers: tuple[Number, ...]
    headline: str
    notes: tuple[str, ...] = ()


Facts = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True)
class Experiment:
    """Two plain functions, what one seed measures and what all say, and the page's sentences.

    plan: what one seed will take, for the bench of that seed. seeds: those of a run that names
        none, so few that it ends within 40 minutes on two slow cores (80 for a larger model).
    base: the aligned model of a run that names none.
    method, not_shown: sentences; not_shown says what a reader must not conclude.
    """

    name: str
    title: str
    question: str
    method: str
    not_shown: str
    plan: Callable[[Workbench], Plan]
    measure: Callable[[Workbench], Measured]
    report: Callable[[pd.DataFrame, Facts], Findings]
    seeds: tuple[int, ...] = (0,)
    base: str = DEFAULT


UNITS = "1 = bad answers in-domain"


def signed(e: Estimate, digits: int = 2) -> str:
    """A shift with its interval."""
    return f"{e.value:+.{digits}f} [{e.low:+.{digits}f}, {e.high:+.{digits}f}]"
