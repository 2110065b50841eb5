"""The course of a fine-tune is drawn from its readings, in the colours of its condition."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError
from persona.report.figures import training_course
from persona.report.theme import CONDITIONS


def readings(rise, *, alarm=None, n=6):
    rng = np.random.default_rng(0)
    rows = [
        (step, f"q{i}", "d", measure, rise * step + rng.normal(0, 0.1))
        for step in (0, 5, 10)
        for i in range(n)
        for measure in ("projection_good", "gap", "neutral_ce_nats")
    ]
    rows += [(alarm, "", "", "alarm", 1.0)] if alarm is not None else []
    return pd.DataFrame(rows, columns=["step", "question_id", "domain", "measure", "value"])


def test_every_run_has_a_line_in_every_panel_with_its_own_mean_changes():
    runs = {"finetuned": readings(0.1, alarm=5), "good_twin": readings(-0.02)}
    figure = training_course(runs)
    lines = [t for t in figure.data if t.mode == "lines+markers"]
    assert len(lines) == 2 * 3
    assert {t.line.color for t in lines} == {
        CONDITIONS[name].colour for name in ("finetuned", "good_twin")
    }
    gap = runs["finetuned"].query("measure == 'gap'").groupby("step")["value"].mean()
    of_gap = [t for t in lines if t.legendgroup == "finetuned"][1]
    assert list(of_gap.x) == [0, 5, 10]
    assert list(of_gap.y) == pytest.approx((gap - gap[0]).tolist())
    assert sum(t.showlegend for t in lines) == 2
    assert {shape.x0 for shape in figure.layout.shapes} == {5.0}
    assert "n\u00a0=\u00a06" in figure.layout.title.subtitle.text


def test_the_ribbon_is_that_of_the_change_of_each_question_from_its_own_start():
    apart = readings(0.0)
    apart["value"] = apart["question_id"].str[1:].astype(float) + 0.1 * apart["step"]
    [ribbon] = [t for t in training_course({"finetuned": apart}).data if t.fill == "toself"][:1]
    assert np.allclose(sorted(ribbon.y), [0, 0, 0.5, 0.5, 1, 1])


def test_nothing_to_draw_is_refused():
    with pytest.raises(DataError, match="no watched fine-tune"):
        training_course({})
    with pytest.raises(DataError, match="hold none of"):
        training_course({"finetuned": readings(0.1).query("measure == 'none'")})
    with pytest.raises(DataError, match="lack the column step"):
        training_course({"finetuned": readings(0.1).drop(columns="step")})
