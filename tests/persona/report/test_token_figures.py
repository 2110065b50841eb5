"""Token figures show every reading at its token, centred where they say, readable and escaped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError
from persona.report.figures import next_token_shifts, token_map, token_trace
from persona.report.figures.token_figures import PER_LINE
from persona.report.theme import CONDITIONS, ENDS, in_mode, with_joined_title

NAN = float("nan")


def table(n=5, conditions=("finetuned", "aligned")):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"condition": c, "position": i, "token": f" t{i}", "value": float(rng.normal())}
            for c in conditions
            for i in range(n)
        ]
    )


def values(rows, condition):
    return rows[rows["condition"] == condition].sort_values("position")["value"].tolist()


def test_every_value_stands_at_its_token_and_condition():
    rows = table()
    [heat] = token_map(rows.sample(frac=1, random_state=1)).data
    assert list(heat.y) == ["Aligned", "Fine-tuned"]
    assert list(heat.z[0]) == values(rows, "aligned")
    assert list(heat.z[1]) == values(rows, "finetuned")


def test_no_colour_is_at_the_centre_and_both_ends_are_as_far_from_it():
    rows = table().assign(value=[0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    [heat] = token_map(rows, centre=2.0).data
    assert (heat.zmin, heat.zmax) == (-5, 9)
    [heat] = token_map(rows, centre=2.0, reach=1.5).data
    assert (heat.zmin, heat.zmax) == (0.5, 3.5)
    [heat] = token_map(rows.assign(value=0.0)).data
    assert heat.zmin < 0 < heat.zmax


def test_a_long_text_goes_on_in_the_next_line_on_one_scale():
    figure = token_map(table(n=2 * PER_LINE + 3))
    assert [len(t.x) for t in figure.data] == [PER_LINE, PER_LINE, 3]
    assert list(figure.data[2].x) == [2 * PER_LINE + i for i in range(3)]
    assert len({(t.zmin, t.zmax) for t in figure.data}) == 1
    assert [t.showscale for t in figure.data] == [True, False, False]
    spans = {float(np.ptp(figure.layout[f"xaxis{k}"].range)) for k in ("", "2", "3")}
    assert spans == {PER_LINE}


def test_spaces_and_line_ends_of_a_token_are_seen_and_tags_are_escaped():
    tokens = [" yes", "\n", "", "<b>x</b>", " incomprehensible"]
    rows = table(conditions=["aligned"]).assign(token=tokens)
    names = list(token_map(rows).layout.xaxis.ticktext)
    assert names[:3] == ["␣yes", "⏎", "∅"]
    assert "<" not in names[3]
    assert names[4].endswith("…")
    assert len(names[4]) == 11


def test_the_map_follows_the_mode():
    dark = in_mode(token_map(table()), "dark")
    assert dark.data[0].colorscale is None
    assert dark.layout.template.data.heatmap[0].colorscale[0][1] == ENDS["dark"][0]


def test_a_value_that_is_missing_leaves_a_gap():
    rows = table()
    rows.loc[0, "value"] = NAN
    [heat] = token_map(rows).data
    assert np.isnan(heat.z[1][0])
    assert np.isfinite([heat.zmin, heat.zmax]).all()
    line = next(t for t in token_trace(rows).data if t.name == "Fine-tuned")
    assert line.y[0] is None


def test_the_trace_has_one_line_a_condition_and_the_levels_in_their_colours():
    rows = table()
    figure = token_trace(rows, levels={"aligned": -1.0, "finetuned": 2.0})
    lines = {t.name: t for t in figure.data if "markers" in t.mode}
    assert set(lines) == {"Aligned", "Fine-tuned"}
    assert list(lines["Aligned"].y) == values(rows, "aligned")
    levels = {t.name: t for t in figure.data if t.mode == "lines"}
    assert list(levels["Fine-tuned mean"].y) == [2.0, 2.0]
    assert levels["Fine-tuned mean"].line.color == CONDITIONS["finetuned"].colour
    assert figure.layout.yaxis.title.text == "projection (residual-stream units)"


def test_names_of_a_very_long_text_are_thinned_out():
    axis = token_trace(table(n=6 * PER_LINE)).layout.xaxis
    assert len(axis.tickvals) <= 2 * PER_LINE
    assert len(axis.tickvals) == len(axis.ticktext)


def test_next_tokens_are_ordered_by_their_shift_around_a_zero_in_the_middle():
    rows = pd.DataFrame({"token": ["a", "b", "c"], "before": [-1.0, -2, -3], "after": [-2, -2, -1]})
    figure = next_token_shifts(rows)
    [bars] = figure.data
    assert list(bars.x) == [2.0, 0.0, -1.0]
    assert list(figure.layout.yaxis.ticktext) == ["c", "b", "a"]
    assert figure.layout.xaxis.range[0] == -figure.layout.xaxis.range[1]
    assert bars.customdata[0] == pytest.approx([np.exp(-3), np.exp(-1)])
    assert "nats" in figure.layout.xaxis.title.text


def test_tables_that_lack_something_are_refused_by_name():
    for draw in (token_map, token_trace):
        with pytest.raises(DataError, match="lacks the column 'token'"):
            draw(table().drop(columns="token"))
        with pytest.raises(DataError, match="no token to draw"):
            draw(table().iloc[:0])
    with pytest.raises(DataError, match="position 0 has several tokens"):
        token_map(pd.concat([table(), table().assign(token="other")]))
    with pytest.raises(DataError, match="lacks the column 'after'"):
        next_token_shifts(pd.DataFrame({"token": ["a"], "before": [0.0]}))
    with pytest.raises(DataError, match="no next token"):
        next_token_shifts(pd.DataFrame({"token": [], "before": [], "after": []}))


def test_a_first_token_far_above_the_rest_is_beyond_the_frame_and_said():
    rows = table(n=12)
    rows["value"] = np.where(rows["position"] == 0, 1500.0, rows["position"] / 10.0)
    figure = token_trace(rows, levels={"aligned": -1.0})
    low, high = figure.layout.yaxis.range
    assert low < -1.0 and 1.1 < high < 2.0
    assert "the first token, at 1,500, is beyond the frame" in figure.layout.title.subtitle.text


def test_a_first_token_far_below_the_rest_keeps_its_sign():
    rows = table(n=12)
    rows["value"] = np.where(rows["position"] == 0, -1500.0, rows["position"] / 10.0)
    assert "at -1,500, is beyond" in token_trace(rows).layout.title.subtitle.text


def test_a_first_token_like_the_others_stays_in_the_frame():
    rows = table(n=12)
    rows["value"] = np.where(rows["position"] == 0, 1.3, rows["position"] / 10.0)
    figure = token_trace(rows)
    assert figure.layout.yaxis.range is None
    assert "beyond" not in figure.layout.title.subtitle.text


def test_a_joined_title_has_both_lines_and_no_subtitle_of_its_own():
    figure = with_joined_title(token_trace(table(), title="T", subtitle="S"))
    assert figure.layout.title.text.startswith("T<br>") and ">S</span>" in figure.layout.title.text
    assert not figure.layout.title.subtitle.text
