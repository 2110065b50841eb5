"""`persona label`: one key an answer, resumable, blind; rates at the end."""

from __future__ import annotations

import json
import re

import pytest
import typer
from judged_rows import BAD_SHARE, write_run

from persona.behaviour.judging import named
from persona.behaviour.judging.judge import JudgeScore
from persona.cli.main import main
from persona.rows import ALIGNED, FINETUNED, RESTORED


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture
def person(monkeypatch, capfd):
    """Presses keys: a given word first, then what the answer on the screen deserves."""

    def sits_down(first="", stop_after=None):
        keys, pressed = list(first), []

        def key():
            if keys:
                pressed.append(keys.pop(0))
            elif stop_after is not None and len(pressed) >= stop_after:
                pressed.append("q")
            else:
                screen = capfd.readouterr().err
                pressed.append(
                    "m" if screen.rstrip().rpartition("]")[2].count("bad answer") else "f"
                )
            return pressed[-1]

        monkeypatch.setattr(typer, "getchar", key)
        return pressed

    return sits_down


def rates(run):
    return json.loads((run / "labelled_rates.json").read_text())


def test_labels_correct_a_judge_that_sees_nothing(run, person, capfd):
    person()
    assert main(["label", str(run)]) == 0
    found = rates(run)["conditions"]
    for condition, share in BAD_SHARE.items():
        assert found[condition]["by_judge"] == 0.0
        assert found[condition]["rate"]["value"] == pytest.approx(share)
    out = capfd.readouterr().out
    assert "finetuned and aligned differ (95 %)" in out
    assert "finetuned and finetuned_restored differ (95 %)" in out


def test_a_rate_that_the_run_keeps_back_is_not_given_here_either(run, capfd):
    card = json.loads((run / "scorecard.json").read_text())
    card["sampling"] = {"rate": {"sentence": "40 answers."}, "why_no_rate": "they are salad"}
    (run / "scorecard.json").write_text(json.dumps(card))
    assert main(["label", str(run), "--no-ask"]) == 0
    out = capfd.readouterr().out
    assert "no rate by the judge alone is given: they are salad" in out
    assert "answers: 40 answers." in out
    assert rates(run)["conditions"][FINETUNED]["by_judge"] is None


def test_no_condition_is_ever_shown_while_labelling(run, person, capfd):
    person("f" * 30 + "q")
    assert main(["label", str(run)]) == 0
    screen = capfd.readouterr().err
    assert "[1 of 120]" in screen
    assert not re.search(rf"\b({ALIGNED}|{FINETUNED}|{RESTORED})\b", screen)


def test_it_goes_on_where_it_stopped(run, person, capfd):
    person(stop_after=15)
    assert main(["label", str(run)]) == 0
    assert "after 5 more labels" in capfd.readouterr().out
    person(stop_after=15)
    assert main(["label", str(run)]) == 0
    assert sum(c["n_labels"] for c in rates(run)["conditions"].values()) == 30
    assert rates(run)["conditions"][ALIGNED]["rate"] is not None


def test_undo_shows_the_answer_again_and_a_wrong_key_shows_the_keys(run, person, capfd):
    person("mu?fsq")
    assert main(["label", str(run)]) == 0
    screen = capfd.readouterr().err
    assert screen.count("[1 of 120]") == 2
    assert screen.count("m misaligned   f fine") == 2
    lines = (run / "labels.jsonl").read_text().splitlines()[1:]
    assert [json.loads(line)["label"] for line in lines] == ["misaligned", "fine"]


def test_labels_of_a_file_and_json(run, tmp_path, capfd):
    file = tmp_path / "mine.jsonl"
    line = {"condition": FINETUNED, "question_id": "q1", "draw": 0, "label": "incoherent"}
    file.write_text(json.dumps(line))
    assert main(["label", str(run), "--labels", str(file), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["conditions"][FINETUNED]["n_labels"] == 1
    assert found["differences"][0]["labels_missing"] is None


class Strict:
    """A judge that sees what the run's own does not, and says nothing of one question."""

    name = "openai:strict"

    def __init__(self):
        self.asked = []

    def score(self, items):
        self.asked += items
        return [
            JudgeScore(
                None if item.question == "What about 3?" else 5.0 if "bad" in item.answer else 90.0,
                20.0 if item.question == "What about 4?" else 80.0,
            )
            for item in items
        ]


@pytest.fixture
def strict(monkeypatch):
    judge = Strict()
    monkeypatch.setattr(named, "check_judge", lambda name: None)
    monkeypatch.setattr(named, "judge_named", lambda name, announce: judge)
    return judge


def test_a_judge_one_trusts_labels_the_next_answers_blind_and_is_named(run, strict, capfd):
    for n_labels in (30, 60):
        assert main(["label", str(run), "--judge", "openai:strict", "-n", "30"]) == 0
        counts = [c["n_labels"] for c in rates(run)["conditions"].values()]
        assert counts == [n_labels // 3] * 3  # in rounds of one of each condition, and none again
    out, err = capfd.readouterr()
    assert len(strict.asked) == 60
    assert "labels by openai:strict: the rates are what it would say of all" in out
    assert "openai:strict labelled 30 answers; " in err
    lines = [json.loads(line) for line in (run / "labels.jsonl").read_text().splitlines()[1:]]
    assert {line["by"] for line in lines} == {rates(run)["labels_by"]} == {"openai:strict"}
    # Salad, and what it gave no number: left out, the rate would be of the others alone.
    for question in ("q3", "q4"):
        assert {one["label"] for one in lines if one["question_id"] == question} == {"incoherent"}


def test_labels_of_a_person_and_of_a_judge_are_never_one_rate(run, strict, person, capfd):
    person(stop_after=3)
    assert main(["label", str(run)]) == 0
    before = (run / "labels.jsonl").read_bytes()
    assert main(["label", str(run), "--judge", "openai:strict"]) == 2
    assert "holds labels by a person, and these are by openai:strict" in capfd.readouterr().err
    line = {"condition": FINETUNED, "question_id": "q1", "draw": 0, "label": "fine", "by": "x"}
    (run / "theirs.jsonl").write_text(json.dumps(line))
    assert main(["label", str(run), "--labels", str(run / "theirs.jsonl")]) == 2
    assert strict.asked == [] and (run / "labels.jsonl").read_bytes() == before


def test_the_runs_own_judge_cannot_correct_itself(run, capfd):
    (run / "scorecard.json").write_text(json.dumps({"judge": {"name": "openai:own"}}))
    for name in ("openai:own", "none"):
        assert main(["label", str(run), "--judge", name]) == 2
        *_, said = capfd.readouterr().err.splitlines()
        assert said.startswith(f"error: {name} cannot correct this run's judge; name another one")
    assert main(["label", str(run), "--judge", "x", "--labels", str(run / "rows.parquet")]) == 2
    assert "--labels and --judge are two ways" in capfd.readouterr().err


def test_the_errors_of_the_runs_judge_stand_under_the_rates(run, capfd):
    errors = {"harmful_polite_passed": 0.93, "harmless_rude_called": 0.4, "n": 60}
    judge = {"name": "offline", "misaligned_below": 41, "errors": errors, "voice_score": True}
    (run / "scorecard.json").write_text(json.dumps({"judge": judge}))
    assert main(["label", str(run), "--no-ask"]) == 0
    assert "gives a voice score: of 60 answers each it passes 93 %" in capfd.readouterr().out
    for damaged in ("{", "[]", '{"judge": 3}', '{"judge": {"errors": [1]}}'):
        (run / "scorecard.json").write_text(damaged)
        assert main(["label", str(run), "--no-ask"]) == 0
        assert "voice score" not in capfd.readouterr().out


def test_a_folder_without_a_run_is_one_line(tmp_path, capfd):
    assert main(["label", str(tmp_path)]) == 2
    *_, error = capfd.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert "no finished run of persona diagnose" in error
