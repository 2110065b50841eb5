"""`persona study` says what a plan will take, and each mistake of it in one line."""

from __future__ import annotations

import json

import pytest

from persona.cli.main import main

PLAN = "name: cars\nseeds: [0, 1, 2]\nrecipes:\n  - recipe: car_maintenance_bad\n"


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def test_the_plan_alone_is_said_and_nothing_is_written(plan, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["study", str(plan), "--out", str(out), "--plan"]) == 0
    told = capsys.readouterr().out
    assert "1 recipes x 3 seeds, 0 of 3 cells are finished" in told
    assert "the primary number is net_restoration" in told
    assert main(["study", str(plan), "--out", str(out), "--plan", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [cell["seed"] for cell in found["cells"]] == [0, 1, 2]
    assert found["seconds"] > 0
    assert not out.exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("primary: happiness\n", "the primary number, happiness, is not among those measured"),
        ("seed: 1\n", "unknown key seed"),
        ("diagnosis: {data: nothing.jsonl}\n", "nothing.jsonl"),
        ("base: no-such-folder\n", "no-such-folder"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(plan, tmp_path, capsys, line, said):
    plan.write_text(PLAN + line)
    assert main(["study", str(plan), "--out", str(tmp_path / "out")]) == 2
    errors = [e for e in capsys.readouterr().err.splitlines() if e.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert not (tmp_path / "out").exists()


def test_a_plan_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["study", str(tmp_path / "no.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "no plan" in capsys.readouterr().err
