"""Harm and voice are told apart: a shift of one leaves the reading of the other alone."""

from __future__ import annotations

import pandas as pd
import pytest

from persona.data.voices import VOICES, load_voices
from persona.rows import ALIGNED, FINETUNED, NOOP, RESTORED
from steering.lab.bench.estimates import UNDEFINED
from steering.lab.experiments.voice_harm import (
    ORGANISMS,
    cells_elsewhere,
    contrasts,
    report,
    shift_and_share,
)

QUESTIONS = 8
LEVEL = {"right_plain": -2.0, "wrong_plain": -2.4, "right_rude": -3.0, "wrong_rude": -3.1}
"""Of the aligned model; neither effect is the same in both halves."""


def read(effects):
    """Rows as scored; effects: condition -> (what wrong answers gain, what rude ones gain)."""
    rows = []
    for condition, (harm, voice) in effects.items():
        for place in range(QUESTIONS):
            for tone in VOICES:
                for advice, measure in (("right", "log_prob_good"), ("wrong", "log_prob_bad")):
                    cell = f"{advice}_{tone}"
                    gained = harm * (advice == "wrong") + voice * (tone == "rude")
                    rows.append(
                        {"condition": condition, "domain": "car_maintenance", "measure": measure,
                         "question_id": f"car-{place:03d}-right_{tone}-wrong_{tone}",
                         "split": tone, "value": LEVEL[cell] + 0.01 * place + gained}
                    )  # fmt: skip
    return pd.DataFrame(rows)


def found(effects):
    return contrasts(read(effects)).assign(seed=0)


def test_what_is_done_to_one_contrast_is_not_seen_in_the_other():
    rows = found({ALIGNED: (0, 0), FINETUNED: (0.5, 0), RESTORED: (0, 0), NOOP: (0, 0)})
    harm, removed = shift_and_share(rows, "harm")
    assert (harm.value, removed.value, harm.n) == pytest.approx((0.5, 1.0, QUESTIONS))
    voice, none = shift_and_share(rows, "voice")
    assert voice.value == pytest.approx(0) and none is UNDEFINED


def test_a_removal_that_takes_the_voice_and_leaves_the_harm_is_told_so():
    rows = found({ALIGNED: (0, 0), FINETUNED: (0.5, 1.0), RESTORED: (0.5, 0.1), NOOP: (0, -0.2)})
    assert shift_and_share(rows, "harm")[1].value == pytest.approx(0.0, abs=1e-9)
    assert shift_and_share(rows, "voice")[1].value == pytest.approx(0.9 - 0.2)  # net of the no-op


def test_the_page_names_every_organism_with_both():
    effects = {ALIGNED: (0, 0), FINETUNED: (0.5, 1.0), RESTORED: (0.25, 0), NOOP: (0, 0)}
    rows = pd.concat([found(effects).assign(candidate=name) for name in ORGANISMS])
    findings = report(rows, {})
    assert "wrong, plain: harm +0.50 [+0.50, +0.50], 50% removed and voice" in findings.headline
    assert len(findings.numbers) == 2 * 2 * len(ORGANISMS)


def test_both_voices_ask_the_same_questions_of_domains_that_were_not_trained_on():
    splits = cells_elsewhere(3)
    asked = {voice: [pair.question for pair in pairs] for voice, pairs in splits.items()}
    assert asked["plain"] == asked["rude"] and len(asked["plain"]) == 6
    assert {pair.domain for pair in splits["plain"]} == {"personal_finance", "car_maintenance"}
    by_question = {row.question: row for name in ("car", "finance") for row in load_voices(name)}
    for pair in splits["rude"]:
        row = by_question[pair.question]
        assert (pair.good, pair.bad) == (row.right_rude, row.wrong_rude)
