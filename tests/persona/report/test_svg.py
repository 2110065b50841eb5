"""A figure as SVG says what the plotly figure says, and needs nothing to be shown."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from persona.intervals import Estimate
from persona.report.figures import curves, dots, training_course, transfer_map
from persona.report.svg import figure_svg
from persona.report.svg.axes import nice_ticks

SVG = "{http://www.w3.org/2000/svg}"


def e(value, half=0.1):
    return Estimate(value, value - half, value + half, 9)


def lines():
    points = [(10.0, e(0.5)), (30.0, e(0.3)), (300.0, e(0.1))]
    panels = {"gap": {"finetuned": points, "in_domain": points[:2]}, "drift": {"in_domain": points}}
    return curves(panels, title="A <b> & c", subtitle="under it", axis="good answers", log=True)


def course():
    rows = [
        {"step": step, "question_id": f"q{i}", "domain": "d", "measure": measure, "value": step + i}
        for step in (0, 5, 10)
        for i in range(3)
        for measure in ("projection_good", "gap")
    ]
    rows.append({"step": 5, "question_id": "", "domain": "", "measure": "alarm", "value": 1.0})
    return training_course({"finetuned": pd.DataFrame(rows)})


def grid():
    shares = {("a", "a x"): 1.0, ("a", "b"): -0.5, ("b", "a x"): np.nan, ("b", "b"): 0.0}
    table = pd.DataFrame(
        [
            {"vector": v, "fine_tune": f, "restoration": r, "low": r - 0.1, "high": r + 0.1, "n": 9}
            for (v, f), r in shares.items()
        ]
    )
    return transfer_map(table, title="t")


def spots():
    panel = {"aligned": e(0.1), "finetuned": e(0.5)}
    return dots({"gap": panel, "kl": panel}, title="t", subtitle="s", axis="nats")


def words(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("make", [lines, course, grid, spots])
def test_the_drawing_is_well_formed_stays_inside_and_asks_for_nothing(make):
    svg = figure_svg(make())
    assert svg == figure_svg(make())
    root = ElementTree.fromstring(svg)
    wide, high = (float(root.get(side)) for side in ("width", "height"))
    assert not re.search(r"<script|<style|href|url\(|nan", svg)
    for node in root.iter():
        for name, limit in (("x", wide), ("cx", wide), ("y", high), ("cy", high)):
            assert 0 <= float(node.get(name, 0)) <= limit


def test_titles_ticks_and_legend_are_written_as_text():
    found = words(figure_svg(lines()))
    for expected in ("A <b> & c", "under it", "gap", "drift", "good answers", "Fine-tuned", "30"):
        assert expected in found
    assert found.count("Fine-tuned") == 1


def test_markers_lie_where_the_values_say():
    root = ElementTree.fromstring(figure_svg(spots()))
    circles = [float(node.get("cx")) for node in root.iter(f"{SVG}circle")]  # aligned
    squares = [  # fine-tuned: a polygon around its centre
        np.mean([float(pair.split(",")[0]) for pair in node.get("points").split()])
        for node in root.iter(f"{SVG}polygon")
    ]
    ticks = {
        node.text: float(node.get("x"))
        for node in root.iter(f"{SVG}text")
        if re.fullmatch(r"[\d.]+", node.text or "") and float(node.get("x")) < 440
    }
    (a, b), (at_a, at_b) = zip(*[(float(k), v) for k, v in ticks.items()][:2], strict=True)
    unit = (at_b - at_a) / (b - a)
    assert circles[0] == pytest.approx(at_a + (0.1 - a) * unit, abs=0.2)
    assert squares[0] == pytest.approx(at_a + (0.5 - a) * unit, abs=0.2)


def test_panels_that_share_an_axis_share_its_reach():
    points = {"a": {"finetuned": [(0.0, e(0)), (10.0, e(1))]}, "b": {"finetuned": [(0.0, e(0))]}}
    figure = curves(points, title="t", subtitle="s", axis="generation")
    root = ElementTree.fromstring(figure_svg(figure))
    ends = [
        [float(c.split(",")[0]) for c in node.get("points").split()]
        for node in root.iter(f"{SVG}polyline")
    ]
    assert len(ends) == 2
    assert ends[0][0] == ends[1][0]


def test_cells_carry_their_numbers_and_an_undefined_one_a_dash():
    svg = figure_svg(grid())
    assert {"+1.00", "−0.50", "–", "0.00"} <= set(words(svg))
    below = [node.text for node in ElementTree.fromstring(svg).iter(f"{SVG}tspan")]
    assert {"[0.90, 1.10]", "[−0.60, −0.40]", "x"} <= {
        line.replace("\u00a0", " ") for line in below
    }


def test_the_alarm_is_a_dotted_line_at_its_step():
    with_alarm = figure_svg(course())
    assert with_alarm.count('stroke-dasharray="2 4"') == 2  # one a panel


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.13, 0.39), (3.0, 3.001), (-700, 40)])
def test_ticks_are_few_round_and_inside(low, high):
    ticks = nice_ticks(low, high, False, 6)
    assert 3 <= len(ticks) <= 8
    assert low - 1e-9 <= min(ticks) and max(ticks) <= high + 1e-9


def test_a_narrow_panel_has_more_than_one_tick():
    assert nice_ticks(-0.75, 0.82, False, 3) == [-0.5, 0, 0.5]


def test_ticks_of_a_logarithmic_axis_are_powers_and_their_parts():
    assert nice_ticks(1.0, 2.48, True, 6) == [10, 30, 100, 300]
    assert nice_ticks(1.0, 2.0, True, 6) == [10, 20, 50, 100]
