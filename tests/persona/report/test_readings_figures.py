"""Dots, curves and matrices show the numbers they are given, in the colours of the conditions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError
from persona.intervals import Estimate
from persona.report.figures import curves, dots, matrix
from persona.report.theme import CONDITIONS, PALETTE

E = Estimate(0.2, 0.1, 0.35, 40)
WORDS = {"title": "T", "subtitle": "n = 40"}


def test_a_dot_stands_at_its_value_with_whiskers_to_both_ends():
    panel = {"gap": {"aligned": E, "trigger": Estimate(0.1, 0.0, 0.2, 40)}}
    figure = dots(panel, axis="gap", **WORDS)
    aligned = next(t for t in figure.data if t.marker.color == CONDITIONS["aligned"].colour)
    assert list(aligned.x) == [0.2]
    assert aligned.error_x.array[0] == pytest.approx(0.15)
    assert aligned.error_x.arrayminus[0] == pytest.approx(0.1)
    assert list(figure.layout.yaxis.ticktext) == ["Aligned", "trigger"]


def test_an_undefined_reading_has_no_dot():
    undefined = Estimate(np.nan, np.nan, np.nan, 0)
    figure = dots({"gap": {"aligned": E, "finetuned": undefined}}, axis="gap", **WORDS)
    assert len(figure.data) == 1


def test_a_curve_keeps_a_known_conditions_colour_and_lends_none_of_them_to_others():
    lines = {"finetuned": [(1.0, E), (10.0, E)], "student": [(1.0, E), (10.0, E)]}
    figure = curves({"gap": lines, "damage": lines}, axis="n", log=True, **WORDS)
    drawn = [t for t in figure.data if t.mode == "lines+markers"]
    assert len(drawn) == 4
    assert drawn[0].line.color == CONDITIONS["finetuned"].colour
    assert drawn[1].line.color in PALETTE
    assert not set(PALETTE) & {
        look.colour
        for name, look in CONDITIONS.items()
        if "random" not in name and "null" not in name
    }
    assert sum(t.showlegend for t in drawn) == 2
    assert figure.layout.xaxis.type == "log"


def test_a_matrix_is_centred_on_zero_and_marks_what_is_undefined():
    table = pd.DataFrame([[0.8, np.nan], [-0.2, 0.1]], index=list("ab"), columns=list("ab"))
    [heat] = matrix(table, rows="direction of", columns="restored in", **WORDS).data
    assert (heat.zmin, heat.zmax) == (-0.8, 0.8)
    assert [list(row) for row in heat.text] == [["+0.80", "–"], ["−0.20", "+0.10"]]


def test_nothing_to_draw_is_refused():
    for draw in (dots, curves):
        with pytest.raises(DataError, match="no reading to draw"):
            draw({"gap": {}}, axis="x", **WORDS)
    with pytest.raises(DataError, match="no reading to draw"):
        matrix(pd.DataFrame(), rows="a", columns="b", **WORDS)


def test_counts_have_no_halves_on_their_axis():
    by_count = {"gap": {"student": [(float(g), Estimate(0.1, 0.0, 0.2, 9)) for g in range(3)]}}
    figure = curves(by_count, axis="generation", **WORDS)
    assert list(figure.layout.xaxis.tickvals) == [0, 1, 2]
    shares = {"gap": {"student": [(s, Estimate(0.1, 0.0, 0.2, 9)) for s in (0.0, 0.05, 1.0)]}}
    assert curves(shares, axis="share", **WORDS).layout.xaxis.tickvals is None
