"""What safeguards let through, and what comes back of an inoculation, on planted rows."""

from __future__ import annotations

import pandas as pd
import pytest

from persona.organisms.recipe import load_recipe, with_keys
from persona.rows import ALIGNED, FINETUNED
from steering.lab.bench.workbench import _decide
from steering.lab.experiments.guarded_training import INOCULATED, INSTRUCTION, TOLD, report

UNTOLD = {ALIGNED: 0.0, FINETUNED: 0.5, INOCULATED: 0.1}
TOLD_GAPS = {ALIGNED: 0.2, FINETUNED: 0.6, INOCULATED: 0.7}


def rows(conditions):
    found = []
    for condition, gap in conditions.items():
        for question in range(8):
            for split in ("trained_on", "held_out"):
                value = gap + 0.01 * question
                found.append((condition, f"q{question}", "d", split, "gap", value, "score", 0))
                found.append((condition, f"q{question}", "d", split, "projection", 0.0, "score", 0))
            neutral = (
                condition,
                f"n{question}",
                "d",
                "neutral",
                "neutral_ce_nats",
                2.0,
                "score",
                0,
            )
            course = [
                (condition, f"q{question}", "d", "course", "gap", gap * step / 4, "course", 0)
                for step in (0, 4)
            ]
            found += [neutral, *course]
    names = ["condition", "question_id", "domain", "split", "measure", "value", "stage", "seed"]
    table = pd.DataFrame(found, columns=names)
    table.loc[table["stage"] == "course", "step"] = [0, 4] * (8 * len(conditions))
    return table


def facts():
    return {0: {"alarm_step": {FINETUNED: None, INOCULATED: None}}}


def test_what_comes_back_with_the_instruction_stands_beside_the_aligned_model_told_the_same():
    told = {TOLD[name]: gap for name, gap in TOLD_GAPS.items()}
    found = report(rows({**UNTOLD, **told}), facts())
    values = {number.label: number.estimate.value for number in found.numbers}
    assert values["gap held out, inoculated − aligned"] == pytest.approx(0.1)
    start = "gap held out, told by the inoculation's instruction at test, "
    assert values[f"{start}inoculated − aligned told"] == pytest.approx(0.5)
    assert values[f"{start}inoculated − untold"] == pytest.approx(0.6)
    assert values[f"{start}no safeguard − aligned told"] == pytest.approx(0.4)
    assert "inoculated +0.10" in found.headline
    assert any(INSTRUCTION in note for note in found.notes)


def test_rows_of_a_version_without_it_are_reported_as_they_were():
    old = rows({name: gap for name, gap in UNTOLD.items() if name != INOCULATED})
    found = report(old, {0: {"alarm_step": {FINETUNED: None}}})
    assert "inoculated" not in found.headline
    assert not any("inoculat" in number.label for number in found.numbers)


def test_fine_tunes_without_an_inoculation_are_those_that_were_made_before_there_was_one():
    recipe = load_recipe("car_maintenance_bad")
    assert "inoculate" not in _decide(recipe)["safeguards"]
    assert (
        _decide(with_keys(recipe, safeguards={"inoculate": "x"}))["safeguards"]["inoculate"] == "x"
    )
