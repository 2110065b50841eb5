"""What the finished cells of a study say: one table with intervals, variance parts and tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from persona.errors import DataError
from persona.intervals import Estimate, fieller
from steering.study.crossed_design import CrossedDesign
from steering.study.study_cells import Cell
from steering.study.study_comparisons import Comparison, comparisons
from steering.study.study_measures import MEASURES, Measure
from steering.study.study_plan import StudyPlan
from steering.study.study_power import Power

SCHEMA_VERSION = 1
MIN_SEEDS = 2


@dataclass(frozen=True)
class StudyNumber:
    """One number of one recipe. ids: of the questions, in the order of the design."""

    fine_tune: str
    name: str
    measure: Measure
    design: CrossedDesign
    seeds: tuple[int, ...]
    ids: tuple[str, ...]

    def of_seed(self, seed: int) -> Estimate:
        """Of one fine-tune alone, with its interval over questions."""
        numerator, denominator = self.design.values_SQV[self.seeds.index(seed)].T
        return fieller(numerator, denominator)

    def as_json(self, difference: float | None) -> dict[str, Any]:
        """difference: what should be told apart, for the primary number alone.

        power: null for the others, and where the number may be a share of nothing.
        """
        ends = self.design.interval(self.design.scopes()[-1])
        is_known = math.isfinite(ends.low) and math.isfinite(ends.value)
        power = Power.of(self.design, difference) if difference and is_known else None
        return {
            "fine_tune": self.fine_tune,
            "name": self.name,
            "words": self.measure.words,
            "unit": self.measure.unit,
            "value": _finite(self.design.value),
            "n_seeds": self.design.n_seeds,
            "n_questions": self.design.n_questions,
            "n_domains": self.design.n_domains,
            "of_seeds": {str(seed): _interval(self.of_seed(seed)) for seed in self.seeds},
            "sd_of_seeds": float(np.std(self.design.of_seeds(), ddof=1)),
            "intervals": {
                scope: {
                    **_ends(self.design.interval(scope)),
                    "degrees_of_freedom": round(self.design.spread(scope).freedom, 2),
                    "crossed_bootstrap": _ends(self.design.bootstrap(scope)),
                }
                for scope in self.design.scopes()
            },
            "power": None
            if power is None
            else {**power.as_json(), "sentence": power.sentence(self.design.value)},
        }


@dataclass(frozen=True)
class StudyTable:
    """Every number, the tests, and what could not be told, in words."""

    plan: StudyPlan
    numbers: tuple[StudyNumber, ...]
    tests: tuple[Comparison, ...]
    absent: tuple[str, ...]

    def of(self, fine_tune: str, name: str) -> StudyNumber:
        """Raises: KeyError where it is not told."""
        for one in self.numbers:
            if (one.fine_tune, one.name) == (fine_tune, name):
                return one
        raise KeyError(f"{name} of {fine_tune}")

    @property
    def primary(self) -> list[StudyNumber]:
        return [one for one in self.numbers if one.name == self.plan.primary]

    @property
    def multiplicity(self) -> str:
        """How many numbers are told and how many tests are made of them."""
        n_others, n_tests = len(self.numbers) - len(self.primary), len(self.tests)
        made = "1 test is made" if n_tests == 1 else f"{n_tests} tests are made"
        return (
            f"{made}, of the primary number alone, {self.plan.primary}, which the plan named "
            f"before the first run; p is adjusted by Holm's procedure for {n_tests}. The other "
            f"{n_others} numbers have a 95 % interval each, not adjusted for how many they are, "
            "and no test: of twenty such intervals one misses its truth by chance."
        )

    def readings(self) -> pd.DataFrame:
        """One row a fine-tune, seed, number and question: all that the table is made of."""
        parts = [
            pd.DataFrame(
                {
                    "fine_tune": one.fine_tune,
                    "fine_tune_seed": np.repeat(one.seeds, one.design.n_questions),
                    "number": one.name,
                    "question_id": list(one.ids) * one.design.n_seeds,
                    "domain": list(one.design.domains) * one.design.n_seeds,
                    "numerator": one.design.values_SQV[..., 0].ravel(),
                    "denominator": one.design.values_SQV[..., 1].ravel(),
                }
            )
            for one in self.numbers
        ]
        return pd.concat(parts, ignore_index=True)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "primary": self.plan.primary,
            "numbers": [
                one.as_json(
                    self.plan.smallest_difference if one.name == self.plan.primary else None
                )
                for one in self.numbers
            ],
            "tests": [
                {key: value if isinstance(value, str) else _finite(value) for key, value in t}
                for t in (asdict(test).items() for test in self.tests)
            ],
            "multiplicity": self.multiplicity,
            "absent": list(self.absent),
        }


def study_table(plan: StudyPlan, cells: Sequence[Cell]) -> StudyTable:
    """The table of the finished cells; a number that they lack is told as absent.

    Raises: TooFew where no recipe has two finished seeds; DataError where seeds answered other
        questions.
    """
    by_label: dict[str, list[Cell]] = {}
    for cell in cells:
        by_label.setdefault(cell.label, []).append(cell)
    absent = [
        f"{label}: {len(some)} of its seeds is finished, and an interval between seeds needs "
        f"{MIN_SEEDS}"
        for label, some in by_label.items()
        if len(some) < MIN_SEEDS
    ]
    enough = {label: some for label, some in by_label.items() if len(some) >= MIN_SEEDS}
    if not enough:
        raise TooFew(f"no recipe has {MIN_SEEDS} finished seeds; the same command goes on")
    numbers = []
    for label, some in enough.items():
        rows = {cell.seed: cell.rows() for cell in some}
        for name in plan.measured:
            try:
                numbers.append(study_number(label, name, rows))
            except Absent as why:
                absent.append(f"{label}, {name}: {why}")
    table = StudyTable(plan, tuple(numbers), (), tuple(absent))
    primary = {one.fine_tune: one for one in table.primary}
    tests = comparisons(
        {label: one.design for label, one in primary.items()},
        {label: one.ids for label, one in primary.items()},
        MEASURES[plan.primary].null,
        MEASURES[plan.primary].unit,
    )
    return StudyTable(plan, table.numbers, tuple(tests), table.absent)


class TooFew(DataError):
    """No recipe has so many finished seeds that they can be compared."""


class Absent(DataError):
    """A number that some cell was not read for."""


def study_number(label: str, name: str, rows: Mapping[int, pd.DataFrame]) -> StudyNumber:
    """rows: seed -> those of its cell.

    Raises: Absent where a cell lacks a condition; DataError where seeds answered other questions.
    """
    measure = MEASURES[name]
    try:
        columns = {seed: measure.columns(some) for seed, some in rows.items()}
    except DataError as why:
        raise Absent(str(why)) from why
    first = next(iter(columns.values()))
    if any(not one.index.equals(first.index) for one in columns.values()):
        raise DataError(f"{label}: its seeds were not read on the same questions")
    values = np.stack(
        [one[["numerator", "denominator"]].to_numpy(float) for one in columns.values()]
    )
    design = CrossedDesign(values, tuple(first["domain"].astype(str)))
    return StudyNumber(label, name, measure, design, tuple(rows), tuple(map(str, first.index)))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _ends(e: Estimate) -> dict[str, float | None]:
    return {"low": _finite(e.low), "high": _finite(e.high)}


def _interval(e: Estimate) -> dict[str, float | None]:
    return {"value": _finite(e.value), **_ends(e)}
