"""The forest figure draws every run and what all say together, and says it in words too."""

from __future__ import annotations

import pytest

from persona.errors import DataError
from persona.intervals import Estimate
from persona.report.figures.forest import ForestRow, forest
from persona.report.page_figures import page_figure

ROWS = (
    ForestRow("seed 0", Estimate(0.8, 0.7, 0.9, 32)),
    ForestRow("seed 1", Estimate(0.6, float("-inf"), float("inf"), 32)),
    ForestRow("all, over seeds", Estimate(0.7, 0.5, 0.9, 32), of_all=True),
)


def drawn(groups):
    return forest(groups, title="Net", subtitle="95 %", axis="share", share=True)


def test_each_row_has_a_mark_and_an_interval_without_ends_is_a_dot_alone():
    figure = drawn({"car": ROWS})
    assert [trace.x[0] for trace in figure.data] == [0.8, 0.6, 0.7]
    assert figure.data[1].error_x.array[0] != figure.data[1].error_x.array[0]
    assert [trace.marker.symbol for trace in figure.data][2] == "diamond"


def test_the_page_has_it_as_svg_with_its_numbers_in_words():
    shown = page_figure("forest", lambda: drawn({"car": ROWS}))
    assert "<svg" in shown.wide
    assert [reading.what for reading in shown.readings] == [row.label for row in ROWS]
    assert "seed 0" in shown.finding and "0.70" in shown.finding


def test_rows_of_several_groups_carry_their_name():
    labels = [trace.name for trace in drawn({"car": ROWS[:1], "medical": ROWS[:1]}).data]
    assert labels == ["car: seed 0", "medical: seed 0"]


def test_without_a_number_there_is_no_figure():
    nothing = Estimate(float("nan"), float("nan"), float("nan"), 0)
    with pytest.raises(DataError, match="no number"):
        drawn({"car": [ForestRow("seed 0", nothing)]})
