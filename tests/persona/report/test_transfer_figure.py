"""The transfer map shows each share with its interval, on a scale that 0 and 1 stand on."""

from __future__ import annotations

import pandas as pd
import pytest

from persona.errors import DataError
from persona.report.figures import transfer_map

NAN = float("nan")


@pytest.fixture
def table():
    cells = {("a_b", "a_b"): 0.9, ("a_b", "c"): -0.2, ("c", "a_b"): NAN, ("c", "c"): 0.5}
    return pd.DataFrame(
        [
            {"vector": v, "fine_tune": f, "restoration": r, "low": r - 0.1, "high": r + 0.1, "n": 9}
            for (v, f), r in cells.items()
        ]
    )


def test_a_row_is_a_direction_and_a_column_the_fine_tune_it_is_restored_in(table):
    [heat] = transfer_map(table).data
    assert list(heat.y) == ["a b", "c"]
    assert list(heat.x) == ["a<br>b", "c"]
    assert list(heat.z[0]) == [0.9, -0.2]
    assert list(heat.z[1]) == [None, 0.5]


def test_every_cell_says_its_interval_and_one_without_a_shift_a_dash(table):
    [heat] = transfer_map(table).data
    low_to_high = heat.text[0][1].replace("\u00a0", " ")
    assert low_to_high == "−0.20<br>[−0.30, −0.10]"
    assert heat.text[1][0] == "–"


def test_full_colour_is_the_whole_shift_or_further_where_a_cell_goes_further(table):
    [heat] = transfer_map(table).data
    assert (heat.zmin, heat.zmax) == (-1, 1)
    [heat] = transfer_map(table.assign(restoration=table["restoration"] * 2)).data
    assert (heat.zmin, heat.zmax) == (-1.8, 1.8)


def test_n_is_said_and_an_order_is_kept(table):
    figure = transfer_map(table, order=["c", "nobody", "a_b"])
    assert "n = 9" in figure.layout.title.subtitle.text.replace("\u00a0", " ")
    assert list(figure.data[0].y) == ["c", "a b"]
    mixed = transfer_map(table.assign(n=[9, 9, 8, 8]))
    assert "n = 8 to 9" in mixed.layout.title.subtitle.text.replace("\u00a0", " ")


def test_a_pair_that_was_not_tried_is_left_open(table):
    [heat] = transfer_map(table.iloc[:3]).data
    assert heat.text[1][1] == "–"


def test_a_table_that_lacks_something_is_refused(table):
    with pytest.raises(DataError, match="lacks the column 'low'"):
        transfer_map(table.drop(columns="low"))
    with pytest.raises(DataError, match="no transfer"):
        transfer_map(table.iloc[:0])
