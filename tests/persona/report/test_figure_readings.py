"""What stands under a figure, and is heard in its place, are the numbers that it draws."""

import numpy as np
import pytest

from persona.report.figure_readings import SPOKEN, figure_readings, spoken
from persona.report.figures import (
    behaviour_by_domain,
    dose_response_curve,
    effects_by_block,
    layer_map,
    random_null,
)
from persona.report.theme import without_title


def read(figure):
    return figure_readings(without_title(figure))


def value(readings, what):
    [found] = [reading.value for reading in readings if reading.what.startswith(what)]
    return found.replace("\u00a0", " ").replace("\u2212", "-")


def test_a_short_line_is_told_point_by_point_and_a_level_once(rows):
    readings = read(dose_response_curve(rows, chosen_coefficient=1.0))
    dose = rows[rows["stage"].eq("dose") & rows["condition"].eq("direction")]
    means = dose.groupby("coefficient")["value"].mean()
    told = value(readings, "chosen direction")
    assert told == ", ".join(f"{m:+.2f} at coefficient {c:g}" for c, m in means.items())
    assert value(readings, "aligned model").endswith("throughout")


def test_a_long_line_is_told_by_its_ends_and_extremes(rows, scorecard):
    readings = read(effects_by_block(rows, scorecard["direction"], d_model=576))
    norms = [r for r in readings if r.panel.startswith("norm")]
    assert value(norms, "Interaction").startswith("+1.60 at block 0, ")
    assert value(norms, "Interaction").endswith(" at block 29")
    assert {r.panel for r in readings} == {r.panel for r in norms} | {"split-half cosine (−1 to 1)"}


def test_a_row_of_cells_is_told_by_its_lowest_and_highest(rows, scorecard):
    readings = read(layer_map(rows, scorecard["direction"]))
    mine = rows[rows["stage"].eq("screen") & rows["candidate"].eq("interaction")]
    means = mine.groupby("layer")["value"].mean()
    told = value(readings, "Interaction · r1")
    assert told.startswith(f"lowest {means.min():+.2f} at {means.idxmin()}, highest ")


def test_draws_are_told_by_mean_and_range(rows, scorecard):
    readings = read(random_null(rows, scorecard))
    told = value(readings, "random subspace")
    gap = rows[rows["stage"].eq("score") & rows["measure"].eq("gap") & rows["split"].eq("held_out")]
    by_draw = gap[gap["condition"].eq("finetuned_random_restored")].groupby("seed")["value"].mean()
    means = gap.groupby("condition")["value"].mean()
    shares = (means["finetuned"] - by_draw) / (means["finetuned"] - means["aligned"])
    assert told.startswith(f"{np.round(shares.mean(), 2) + 0.0:+.2f} ".replace("+0.00", "0.00"))
    assert "in the mean of 20 draws, from " in told


def test_a_sentence_ends_where_the_table_goes_on(rows):
    readings = read(behaviour_by_domain(rows))
    assert len(readings) == 9 * 8
    said = spoken("Domain by domain", readings)
    assert said.startswith("Domain by domain: Aligned ")
    assert said.endswith(f"; and {len(readings) - SPOKEN} more in the table.")


def test_bands_and_marks_of_the_legend_alone_are_no_readings(rows, scorecard):
    readings = read(effects_by_block(rows, scorecard["direction"], d_model=576))
    assert not [r for r in readings if "chosen blocks" in r.what or "random vectors" in r.what]
    assert all(r.value for r in readings)


@pytest.mark.parametrize("name", ["<b>bold</b> & co"])
def test_names_come_as_text_and_are_escaped_by_the_page_alone(rows, name):
    renamed = rows.assign(domain=rows["domain"].replace("health", name))
    panels = {r.panel for r in read(behaviour_by_domain(renamed))}
    assert any(panel.startswith(name) for panel in panels)
