"""`persona report`: a run drawn anew, several compared, and a bad folder named in one line."""

import json

import pytest
from finished_run import leave_run, small_card, small_rows

from persona.cli.main import main
from persona.report import write_report


@pytest.fixture
def run(tmp_path):
    return leave_run(tmp_path / "one")


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


def test_the_report_of_a_run_is_drawn_anew_into_its_folder_byte_by_byte(run, tmp_path, capsys):
    assert main(["report", str(run)]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line == f"report: {(run / 'report.html').resolve()}"
    first = write_report(tmp_path / "other", small_card(), small_rows()).read_bytes()
    assert (run / "report.html").read_bytes() == first
    assert b"Did it turn bad?" in first and b"plotly" not in first


def test_the_page_goes_where_it_is_asked_for_and_may_be_interactive(run, tmp_path):
    page = tmp_path / "new" / "looked-at.html"
    assert main(["report", str(run), "--interactive", "--out", str(page)]) == 0
    assert "plotly.js v" in page.read_text()
    assert not (run / "report.html").exists()


def test_several_runs_are_compared_in_one_page(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    leave_run(tmp_path / "two", verdict="not_restored")
    assert main(["report", "one"]) == main(["report", "one", "two"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1:] == [
        "one: partly_restored",
        "two: not_restored",
        f"report: {(tmp_path / 'comparison.html').resolve()}",
    ]
    assert 'href="one/report.html"' in (tmp_path / "comparison.html").read_text()


def test_json_says_what_was_drawn(run, capsys):
    assert main(["report", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"] == str(run / "report.html")
    assert told["runs"][0] == {
        "folder": str(run),
        "verdict": "partly_restored",
        "schema_version": 1,
    }


def spoil(run, what):
    card = run / "scorecard.json"
    match what:
        case "nowhere":
            return run / "nowhere"
        case "empty":
            card.unlink()
        case "unfinished":
            card.unlink()
            (run / ".work").mkdir()
        case "torn":
            card.write_text('{"verdict": ')
        case "other":
            card.write_text('{"a": 1}')
        case "newer":
            card.write_text(json.dumps(small_card(9)))
        case "no rows":
            (run / "rows.parquet").unlink()
        case "torn rows":
            (run / "rows.parquet").write_bytes(b"PAR1 not really PAR1")
        case "other rows":
            small_rows()[["stage"]].to_parquet(run / "rows.parquet")
    return run


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("nowhere", "no such folder"),
        ("empty", "holds no scorecard.json; `persona diagnose --out`"),
        ("unfinished", "its run is not finished"),
        ("torn", "scorecard.json is no scorecard:"),
        ("other", "it names no verdict that is known"),
        ("newer", "a scorecard of version 9; this personascope reads 1 to 2"),
        ("no rows", "holds no rows.parquet, which figures are drawn from"),
        ("torn rows", "rows.parquet is no table of rows:"),
        ("other rows", "lacks the column 'condition'"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_named_in_one_line_and_loses_nothing(
    run, capsys, what, line
):
    old = run / "report.html"
    old.write_text("the old report")
    assert main(["report", str(spoil(run, what))]) == 2
    told = said(capsys)
    assert line in told and told.count("error: ") == 1
    assert old.read_text() == "the old report"


def test_a_run_is_not_compared_with_itself(run, capsys):
    assert main(["report", str(run), str(run)]) == 2
    assert "is named twice" in said(capsys)
