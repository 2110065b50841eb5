"""A figure as SVG says what the plotly figure says, and needs nothing to be shown."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from persona.intervals import Estimate
from persona.report.figures import curves, dots, training_course, transfer_map
from persona.report.svg import figure_svg, on_dark_ground, page_colours
from persona.report.svg.axes import nice_ticks
from persona.report.svg.layout import stacked
from persona.report.svg.marks import element, shade
from persona.report.theme import GRID, GROUND, INK, look_of, new_figure, without_title

SVG = "{http://www.w3.org/2000/svg}"


def e(value, half=0.1):
    return Estimate(value, value - half, value + half, 9)


def test_values_that_are_all_one_have_an_axis_with_room():
    figure = new_figure(title="", subtitle="", inner=100)
    figure.add_scatter(x=[0.0, 0.0], y=[1.0, 1.0])
    figure.update_xaxes(range=[0.0, 0.0])
    figure_svg(without_title(figure))


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


# What the figures of a report need besides


def blocks_figure():
    """Cells, a frame around some of them, a curve over shaded blocks, open marks, a log axis."""
    figure = new_figure(
        title="t", subtitle="s", inner=200, bottom=60, rows=2, cols=1, shared_xaxes=True
    )
    figure.add_heatmap(
        x=[0, 1, 2],
        y=["a rather long name, whitened", "b"],
        z=[[-1.0, 0.0, 1.0], [0.5, None, -0.5]],
        zmin=-1.0,
        zmax=1.0,
        colorbar={"title": {"text": "nats"}},
        row=1,
        col=1,
    )
    figure.add_shape(
        type="rect", x0=0.5, x1=2.5, y0=-0.5, y1=0.5, line={"color": "#123456"}, row=1, col=1
    )
    marker = {"symbol": "square-open", "size": 8, "color": "#445566"}
    figure.add_scatter(
        x=[0, 1, 2], y=[1.0, 10.0, 100.0], name="curve", mode="markers", marker=marker, row=2, col=1
    )
    figure.add_vrect(x0=0.5, x1=2.5, fillcolor="#abcdef", line_width=0, row=2, col=1)
    figure.update_yaxes(type="log", row=2, col=1)
    figure.update_xaxes(range=[-0.5, 2.5], row=2, col=1)
    return without_title(figure)


def boxes(svg, attribute, value):
    nodes = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    sides = ("x", "width")
    return [tuple(float(n.get(side)) for side in sides) for n in nodes if n.get(attribute) == value]


def test_cells_of_one_shade_are_one_path_and_stand_above_the_blocks_of_the_curve():
    svg = figure_svg(blocks_figure())
    paths = list(ElementTree.fromstring(svg).iter(f"{SVG}path"))
    lowest = [n for n in paths if n.get("stroke") == shade(0.0)]
    assert len(lowest) == 1 and lowest[0].get("d").count("M") == 1
    [frame], [shaded] = boxes(svg, "stroke", "#123456"), boxes(svg, "fill", "#abcdef")
    assert frame == pytest.approx(shaded)  # one axis, though only the lower one names its range
    cell = 1 + float(re.search(r"h(\d+\.\d)", lowest[0].get("d"))[1])
    assert frame[1] == pytest.approx(cell * 2, 0.01)


def test_an_open_mark_is_filled_with_the_ground_and_a_scale_tells_the_colours():
    svg = figure_svg(blocks_figure())
    squares = list(ElementTree.fromstring(svg).iter(f"{SVG}polygon"))
    assert {(n.get("fill"), n.get("stroke")) for n in squares} == {("#ffffff", "#445566")}
    assert "−1.00 to +1.00 nats" in words(svg)


@pytest.mark.parametrize("make", [lines, spots, blocks_figure])
def test_a_narrow_drawing_has_its_panels_under_one_another_inside_a_phone(make):
    figure = make()
    svg = figure_svg(figure, 350, narrow=True)
    root = ElementTree.fromstring(svg)
    for node in root.iter():
        for name in ("x", "cx"):
            assert 0 <= float(node.get(name, 0)) <= 350
    panels = stacked(figure, 350).panels
    assert len({panel.x.start for panel in panels}) == 1
    for above, below in pairwise(panels):
        assert below.y.end > above.y.start
    assert not re.search("nan", svg)


def test_hundreds_of_marks_are_one_path_with_every_one_of_them():
    figure = new_figure(title="t", subtitle="s", inner=80)
    marker = {"color": "#445566", "size": 3}
    figure.add_scatter(x=list(range(1000)), y=[0.5] * 1000, mode="markers", marker=marker)
    svg = figure_svg(figure)
    [path] = [
        n for n in ElementTree.fromstring(svg).iter(f"{SVG}path") if n.get("stroke") == "#445566"
    ]
    assert path.get("d").count("h0") == 1000 and path.get("stroke-linecap") == "round"
    assert len(svg) < 20_000


def test_a_long_name_is_folded_on_a_narrow_page_only():
    tspans = ElementTree.fromstring(figure_svg(blocks_figure(), 350, narrow=True))
    assert "whitened" in " ".join(node.text for node in tspans.iter(f"{SVG}tspan"))
    assert "a rather long name, whitened" in words(figure_svg(blocks_figure()))


def test_a_name_is_folded_at_a_wide_space_and_never_inside_a_number():
    figure = dots({"gap": {"aligned": e(0.1)}}, title="t", subtitle="s", axis="nats")
    figure.update_yaxes(ticktext=["Zero-ablated\u2002−0.21"])
    [(_, label)] = stacked(figure, 350).panels[0].y.ticks
    assert label == "Zero-ablated<br>−0.21"


def test_a_name_without_end_leaves_half_of_the_page_to_the_figure():
    panel = {"x" * 400: e(0.1), "aligned": e(0.2)}
    figure = dots({"gap": panel}, title="t", subtitle="s", axis="nats")
    assert stacked(figure, 350).left <= 175


def test_a_page_exchanges_every_colour_of_the_ground_for_its_dark_one():
    rules = page_colours(".here")
    for tone in (GROUND, INK, GRID):
        attribute = "stroke" if tone is GRID else "fill"
        rule = f'.here [{attribute}="{tone["light"]}"]{{{attribute}:{tone["dark"]}}}'
        assert rule in rules
    drawn = re.findall(r'fill="(#\w+)"', figure_svg(blocks_figure()))
    ours = {colour for colour in drawn if colour not in ("#abcdef", "#445566")}
    assert all(f'[fill="{colour}"]' in rules for colour in ours)


def test_a_drawing_for_a_dark_ground_keeps_the_colours_of_what_it_shows():
    light = figure_svg(spots())
    dark = on_dark_ground(light)
    for tone in (GROUND, INK, GRID):
        assert f'="{tone["light"]}"' in light
        assert f'="{tone["light"]}"' not in dark and f'="{tone["dark"]}"' in dark
    assert dark.count(look_of("finetuned").colour) == light.count(look_of("finetuned").colour) > 0


def test_whole_numbers_of_a_path_are_written_without_their_zero():
    assert element("path", d="M12.0 3.5H10.05V100.0", points="1.0,2.0 0.05,10.0") == (
        '<path d="M12 3.5H10.05V100" points="1,2 0.05,10"/>'
    )
    assert element("g", aria_label="a rise of 1.0", x=2.0) == (
        '<g aria-label="a rise of 1.0" x="2"/>'
    )
