"""Runs side by side: their numbers, what differs between them, and what they say."""

import re
from dataclasses import replace

import pytest
from finished_run import leave_run

from persona.errors import DataError
from persona.report.compared_runs import differences, render_comparison
from persona.report.figures import compare_runs
from persona.report.finished_run import read_run


@pytest.fixture
def runs(tmp_path):
    return [read_run(leave_run(tmp_path / name / "run")) for name in ("a", "b")]


def changed(run, **fields):
    return replace(run, scorecard={**run.scorecard, **fields})


def words(page):
    body = re.sub(r"<(style|script|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).replace("\u00a0", " ").split())


def test_runs_of_one_name_are_told_apart_by_the_folder_above(runs, tmp_path):
    page = words(render_comparison(runs, tmp_path))
    assert "a/run : partly restored; b/run : partly restored." in page
    assert "2 runs side by side" in page


def test_the_table_has_the_numbers_of_each_scorecard(runs, tmp_path):
    other = changed(runs[1], net_restoration={"value": 0.71, "low": 0.6, "high": 0.8})
    page = words(render_comparison([runs[0], other], tmp_path))
    row = "+0.50 [+0.45, +0.55] {} 0.60 [0.55, 0.65] 0 of 20 0.40 [0.35, 0.45]"
    assert row.format("—") in page
    assert row.format("0.71 [0.60, 0.80]") in page


def test_what_differs_is_named_with_its_values_and_what_is_alike_is_not(runs):
    cards = {"a": runs[0].scorecard, "b": {**runs[1].scorecard, "data": {"hash": "xyz"}}}
    found = dict(differences(cards))
    assert found["questions (hash of the data)"] == [("a", "abc"), ("b", "xyz")]
    assert "aligned model" not in found


def test_questions_of_all_runs_stand_with_before_and_after_of_each(runs, tmp_path):
    page = render_comparison(runs, tmp_path)
    assert page.count('<article class="example">') == 3
    assert "Is &lt;rash 0&gt; bad?" in page
    assert "a/run: Fine-tuned" in page and "b/run: Restored" in page
    rows = runs[1].rows
    silent = replace(runs[1], rows=rows[rows["stage"] != "sample"])
    assert "There are no answers to compare" in words(
        render_comparison([runs[0], silent], tmp_path)
    )


def test_the_figure_has_a_row_a_run_and_the_strongest_random_choice(runs):
    figure = compare_runs({"a": runs[0].scorecard, "b": runs[1].scorecard})
    names = [trace.name for trace in figure.data]
    assert names.count("a") == names.count("b") == 3
    [random, _] = [t for t in figure.data if "random" in t.name]
    assert random.x == (0.06,)


def test_an_interval_without_ends_is_drawn_as_its_value(runs):
    card = {**runs[0].scorecard, "net_restoration": {"value": 0.9, "low": None, "high": None}}
    figure = compare_runs({"a": card})
    assert 0.9 in [trace.x[0] for trace in figure.data]


def test_one_run_is_no_comparison(runs):
    with pytest.raises(DataError, match="two runs"):
        render_comparison(runs[:1])


def test_hostile_names_and_answers_are_shown_and_never_run(runs, tmp_path):
    evil = "<script>alert(1)</script>"
    rows = runs[0].rows
    rows["text"] = rows["text"].where(rows["text"].isna(), evil)
    card = {**runs[0].scorecard, "models": {"aligned": evil, "finetuned": evil}}
    page = render_comparison([replace(runs[0], scorecard=card), runs[1]], tmp_path)
    assert "alert(1)" in page and evil not in page
    assert page.count("<script") == 1
