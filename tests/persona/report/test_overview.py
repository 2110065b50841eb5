"""One axis for all conditions: paired by question, and random beside real on the same ones."""

import numpy as np
import pandas as pd
import pytest

from persona.report.figure_readings import figure_readings, spoken
from persona.report.figures import all_conditions
from persona.report.figures.overview import placed_conditions
from persona.report.theme import without_title


def by_label(rows, card=None):
    return {one.label: one for group in placed_conditions(rows, card) for one in group}


def gaps(rows):
    mine = rows[
        rows["stage"].eq("score") & rows["measure"].eq("gap") & rows["split"].eq("held_out")
    ]
    return mine.groupby(["condition", "question_id"])["value"].mean().unstack("condition")


def test_every_condition_lies_at_its_paired_change_from_the_aligned_model(rows, scorecard):
    placed, table = by_label(rows, scorecard), gaps(rows)
    assert placed["Aligned"].value == 0
    for label, name in (("Fine-tuned", "finetuned"), ("Restored", "finetuned_restored")):
        assert placed[label].value == pytest.approx((table[name] - table["aligned"]).mean())
    shift = placed["Fine-tuned"].estimate
    told = scorecard["emergent_shift"]
    assert (shift.value, shift.low, shift.high) == pytest.approx(
        (told["value"], told["low"], told["high"])
    )
    draws = placed["Random subspace"].draws
    assert len(draws) == 20
    expected = (table["finetuned_random_restored"] - table["aligned"]).mean()
    assert draws.mean() == pytest.approx(expected)
    assert not any("of them" in label for label in placed)


def test_draws_on_some_questions_stand_beside_the_restored_model_on_the_same(rows):
    few = rows["question_id"].str.endswith("-000")
    random = rows["condition"].isin(["finetuned_random_restored", "finetuned_random_matched"])
    cut = rows[~(random & rows["split"].eq("held_out") & ~few)]
    placed, table = by_label(cut), gaps(cut)
    asked = table["finetuned_random_restored"].dropna().index
    shift = (table["finetuned"] - table["aligned"]).mean()
    again = placed["Restored, on 8 of them"]
    there = (table["finetuned_restored"] - table["finetuned"]).loc[asked].mean()
    assert again.n == 8 and again.look.symbol.endswith("-open")
    assert again.value == pytest.approx(shift + there)
    draws = placed["Random subspace"]
    expected = (table["finetuned_random_restored"] - table["finetuned"]).loc[asked].mean()
    assert draws.n == 8
    assert draws.value == pytest.approx(shift + expected)
    # The mean over all questions is another: it would be set beside draws of other questions.
    assert abs(again.value - placed["Restored"].value) > 1e-3


def test_placebos_stand_one_by_one(rows):
    mine = rows["stage"].eq("score") & rows["condition"].eq("finetuned_restored")
    more = [
        rows[mine].assign(condition="finetuned_placebo", candidate=c) for c in ("halves", "x_y")
    ]
    placed = by_label(pd.concat([rows, *more]))
    assert placed["Placebo: halves"].value == pytest.approx(placed["Restored"].value)
    assert "Placebo: x y" in placed


def test_the_sentence_and_the_table_tell_what_is_drawn(rows, scorecard):
    figure = all_conditions(rows, scorecard)
    readings = figure_readings(without_title(figure))
    found = {reading.what: reading.value.replace("\u00a0", " ") for reading in readings}
    shift = scorecard["emergent_shift"]
    assert found["Fine-tuned"] == (
        f"{shift['value']:+.2f} [{shift['low']:+.2f}, {shift['high']:+.2f}], n = 48"
    )
    assert "in the mean of 20 draws, from" in found["Random subspace"]
    said = spoken("All conditions on one axis", readings)
    assert said.startswith("All conditions on one axis: Aligned 0.00")
    assert f"Fine-tuned {shift['value']:+.2f}" in said
    written = [label.split("\u2002") for label in figure.layout.yaxis.ticktext]
    assert dict(written)["Fine-tuned"] == f"{shift['value']:+.2f}"
    assert np.all(np.diff(figure.layout.yaxis.tickvals) < 0)  # from top to bottom
