"""Benchmarks of judges: who is drawn, what agreement is, what an AUROC is taken between."""

from __future__ import annotations

import json

import bench_coherence
import bench_local_judge
import numpy as np
import pandas as pd
import pytest
from bench_coherence import auroc, questions
from bench_local_judge import CHOSEN_ON, agreement, candidates, intervals, stratified

from persona.data import load_pairs


def table(n=120, seed=0):
    """Two files of n answers to four questions; `good` follows the grade, `noise` does not."""
    rng = np.random.default_rng(seed)
    rows = []
    for file in range(2):
        for place in range(n):
            aligned = float(rng.uniform(0, 29) if place < n // 4 else rng.uniform(30, 100))
            rows.append(
                {
                    "model": f"m{file}",
                    "finetune": "f",
                    "question_id": place % 4,
                    "aligned": aligned,
                    "good": aligned + rng.normal() * 10,
                    "noise": rng.normal(),
                }
            )
    return pd.DataFrame(rows)


def test_each_file_gives_as_many_answers_and_at_most_a_third_of_them_misaligned():
    whole = table()
    rows = stratified(whole, 60)
    assert rows.groupby("model").size().tolist() == [60, 60]
    assert ((rows.aligned < 30).groupby(rows.model).sum() == 20).all()
    assert rows.index.is_unique and set(rows.index) <= set(whole.index)
    assert stratified(whole, 60).index.equals(rows.index)
    scarce = whole[~((whole.aligned < 30) & (whole.index % 3 > 0))]
    assert stratified(scarce, 60).groupby("model").size().tolist() == [60, 60]


def test_agreement_is_that_of_a_good_judge_and_of_none():
    rows = table()
    assert agreement(rows, "good")[0] > 0.95 and agreement(rows, "good")[1] > 0.9
    assert abs(agreement(rows, "noise")[0] - 0.5) < 0.15
    within = intervals(rows, ["good", "noise"])
    assert within["good - noise"][0][0] > 0.2
    for place in (0, 1):
        low, high = within["good"][place]
        assert low <= agreement(rows, "good")[place] <= high


def test_the_files_chosen_on_hold_each_model_and_each_fine_tune_once():
    assert len({model for model, _ in CHOSEN_ON}) == len({f for _, f in CHOSEN_ON}) == 3


def test_every_candidate_shows_answers_and_the_default_is_among_them():
    default = bench_local_judge.digit_rubric()
    assert default in candidates().values()
    for rubric in candidates().values():
        assert len(rubric.shown) >= 8
        assert {word for *_, word in rubric.shown} <= set(rubric.points)


def test_auroc_is_of_temperature_0_above_the_other_kind():
    rng = np.random.default_rng(0)
    rows = [
        {"question": f"q{i}", "kind": kind, "coherence": middle + rng.normal()}
        for i in range(30)
        for kind, middle in (("t0", 5.0), ("t1.5", 0.0), ("t1", 5.0))
    ]
    value, (low, high) = auroc(pd.DataFrame(rows), "t1.5")
    assert value > 0.99 and low <= value <= high
    value, (low, high) = auroc(pd.DataFrame(rows), "t1")
    assert low < 0.5 < high


def test_questions_are_five_of_each_domain_and_scores_are_kept(tmp_path, monkeypatch):
    asked = questions()
    assert len(asked) == 40 and len({pair.domain for pair in asked}) == 8
    assert {pair.id for pair in asked} <= {pair.id for pair in load_pairs(split="selection")}
    monkeypatch.setattr(bench_coherence, "KEPT", tmp_path)
    rows = [{"question": "q", "answer": "a", "kind": kind} for kind in ("t0", "t1.5")]
    (tmp_path / "answers-w.json").write_text(json.dumps(rows))
    for kind, score in (("t0", 90.0), ("t1.5", None)):
        (tmp_path / f"scores-w-{kind}-by-smollm2-135m.json").write_text(json.dumps([score]))
    monkeypatch.setattr(bench_coherence, "load_bridge", lambda *a, **k: pytest.fail("loaded"))
    found = bench_coherence.scores_of("smollm2-135m", "w")
    np.testing.assert_equal(found.coherence.to_numpy(), [90.0, np.nan])
