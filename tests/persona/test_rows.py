"""What rows.parquet holds is written in one place, and rows that leave have every column."""

from pathlib import Path

import pandas as pd

import persona.rows
from persona.report.theme import CONDITIONS
from persona.rows import (
    COLUMNS,
    FRONTS,
    INDUCED_TWIN,
    LABEL_NULLS,
    SEVERAL,
    STRONG_NULLS,
    tidy,
)
from steering.evidence.scorecard import CONDITIONS as LISTED
from steering.lab.bench.experiment import COLUMNS as OF_EXPERIMENTS

ROOT, PACKAGES = Path(__file__).parents[2], ("persona", "probes", "steering")
OTHER_NAMES = ("NEUTRAL_TEXT", "IN_ALIGNED", "NULL_SCREEN", "SKILL", "TASKS")
"""Strings that name no condition."""
NAMES = {
    name: value
    for name, value in vars(persona.rows).items()
    if name.isupper() and isinstance(value, str) and name not in OTHER_NAMES
}


def test_absent_columns_are_null_and_others_stay_behind():
    rows = tidy(pd.DataFrame({"value": [1], "condition": ["aligned"], "draw": [3]}))
    assert rows.dtypes.astype(str).to_dict() == COLUMNS
    assert rows.loc[0, ["seed", "value", "text"]].tolist() == [0, 1.0, None]
    assert tidy(rows.assign(draw=3), OF_EXPERIMENTS)["draw"].tolist() == [3]


def test_every_condition_has_a_look_of_its_own_and_a_line_in_the_scorecard_or_is_a_null():
    controls = {*SEVERAL, INDUCED_TWIN, persona.rows.GOOD_TWIN}
    assert set(NAMES.values()) == {*LISTED, *controls}
    # The front of a skill has a figure of its own, and a null's edit of the aligned model none.
    apart = {*LABEL_NULLS, *FRONTS} - {*STRONG_NULLS}
    assert set(CONDITIONS) == set(NAMES.values()) - apart


def test_a_condition_is_named_in_one_module():
    quoted = {f'"{name}"' for name in NAMES.values() if name.startswith(("finetuned_", "aligned_"))}
    files = [p for package in PACKAGES for p in (ROOT / package).rglob("*.py")]
    assert len(quoted) == 19
    assert [p.name for p in files if any(q in p.read_text() for q in quoted)] == ["rows.py"]
