"""`persona lab` lists the experiments, and says in one line what it lacks."""

from __future__ import annotations

import json

from persona.cli.main import main
from steering.lab import EXPERIMENTS


def test_the_list_shows_every_experiment_with_date_and_result_of_its_last_run(tmp_path, capsys):
    folder = tmp_path / "out" / "car"
    folder.mkdir(parents=True)
    run = {"name": "car", "date": "2026-11-21", "headline": "it shifts", "seconds": 1.0}
    (folder / "summary.json").write_text(json.dumps(run | {"tiny": False}))
    words = ["lab", "--list", "--out", str(tmp_path / "out"), "--pages", str(tmp_path / "x" / "y")]
    assert main(words) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert list(lines) == list(EXPERIMENTS)
    assert lines["car"].split(maxsplit=1)[1] == "2026-11-21  it shifts"
    assert lines["dose"].endswith("not run yet")
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["car"]["headline"], found["dose"]) == ("it shifts", None)


def test_an_unknown_or_missing_name_is_one_line_that_names_the_experiments(tmp_path, capsys):
    for words in (["lab", "nope"], ["lab"]):
        assert main([*words, "--out", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert "self_assessment" in error
        assert error.splitlines()[-1].startswith("error: ")
        assert error.count("error: ") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_is_not_there_is_one_line(tmp_path, capsys):
    words = ["lab", "car", "--tiny", "--out", str(tmp_path / "out")]
    assert main([*words, "--base", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
