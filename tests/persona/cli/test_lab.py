"""`persona lab` lists the experiments, and says in one line what it lacks."""

from __future__ import annotations

import dataclasses
import json

import pytest

from persona.cli.main import main
from steering.lab import EXPERIMENTS, Run
from steering.lab.bench.record import write_run

RUN = Run(
    name="car",
    title="Cars",
    date="2099-11-21",
    headline="it shifts",
    model="default",
    model_revision="1",
    dtype="auto",
    device="auto",
    seeds=(0, 1),
    tiny=False,
    seconds=1.0,
    fine_tunes=2,
    answer_pairs=3,
)


def test_the_list_shows_every_experiment_with_date_and_result_of_its_last_run(tmp_path, capsys):
    folder = tmp_path / "out" / "car"
    folder.mkdir(parents=True)
    write_run(folder / "readings.json", RUN)
    words = ["lab", "--list", "--out", str(tmp_path / "out"), "--pages", str(tmp_path / "x" / "y")]
    assert main(words) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert list(lines) == list(EXPERIMENTS)
    assert lines["car"].split(maxsplit=1)[1] == "2099-11-21  it shifts"
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["car"]["headline"] == "it shifts"


def test_an_unknown_or_missing_name_is_one_line_that_names_the_experiments(tmp_path, capsys):
    for words in (["lab", "nope"], ["lab"]):
        assert main([*words, "--out", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert "self_assessment" in error
        assert error.splitlines()[-1].startswith("error: ")
        assert error.count("error: ") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_page_without_a_run_is_not_drawn_anew(tmp_path, capsys):
    assert main(["lab", "car", "--redraw", "--pages", str(tmp_path)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert "holds no finished run of car" in error


def test_a_base_that_is_not_there_is_one_line(tmp_path, capsys):
    words = ["lab", "car", "--tiny", "--out", str(tmp_path / "out")]
    assert main([*words, "--base", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err


def test_a_checkout_shows_the_runs_whose_pages_lie_in_it_and_elsewhere_it_is_said(
    tmp_path, capsys, monkeypatch
):
    pages = tmp_path / "docs" / "findings"
    write_run(pages / "dose" / "readings.json", dataclasses.replace(RUN, name="dose"))
    monkeypatch.chdir(tmp_path)
    assert main(["lab", "--list"]) == 0
    out, err = capsys.readouterr()
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines["dose"].endswith("2099-11-21  it shifts")
    assert lines["car"].endswith("not run yet")
    assert "is not here" not in err
    monkeypatch.chdir(pages)
    assert main(["lab", "--list"]) == 0
    out, err = capsys.readouterr()
    assert "it shifts" not in out
    assert "docs/findings is not here, so only the runs in persona-lab are listed" in err


@pytest.mark.parametrize("seeds", ["0,0", "a", "-1", "1,", ""])
def test_seeds_that_are_no_different_whole_numbers_are_one_line(seeds, tmp_path, capsys):
    assert main(["lab", "car", f"--seeds={seeds}", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "--seeds takes different whole numbers" in error
    assert error.startswith("error: ")
    assert not (tmp_path / "out").exists()
