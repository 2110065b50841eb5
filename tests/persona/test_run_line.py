"""The line of a run: which stage, how much is done, what is left, corrected by what was taken."""

from __future__ import annotations

import pytest

from persona import run_line as module
from persona.progress import set_quiet
from persona.run_line import RunLine, in_words

EXPECTED = {"load": 10.0, "read": 30.0, "verify": 60.0, "score": 120.0}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def line(clock):
    return RunLine(EXPECTED, uncorrected="load", clock=clock)


@pytest.fixture(autouse=True)
def loud_again():
    yield
    set_quiet(False)


def test_before_anything_is_done_the_guess_stands(line):
    line.begin("load")
    assert line.total_seconds == 220
    assert str(line) == "stage 1/4 load · 0 % · 4 min left"


def test_what_is_left_follows_what_was_taken(line, clock):
    line.begin("load")
    clock.now = 50  # five times as long, which says nothing of the others
    line.begin("read")
    assert line.seconds_left == 210
    clock.now += 60  # twice as long, which does
    line.begin("verify")
    assert line.took == {"load": 50, "read": 60}
    assert line.seconds_left == 2 * (60 + 120)
    assert line.estimates == {"load": 220, "read": 50 + 210, "verify": 110 + 360}
    clock.now += 30
    assert line.seconds_left == 360 - 30
    assert line.share == pytest.approx(140 / 470)
    assert str(line) == "stage 3/4 verify · 30 % · 6 min left"


def test_a_stage_that_outlasts_its_expectation_is_never_quite_done(line, clock):
    line.begin("read")
    clock.now = 1000
    assert line.seconds_left == pytest.approx(30 * 0.03 + 60 + 120)


def test_a_stage_that_was_or_is_unknown_changes_nothing(line, clock):
    line.begin("verify")
    clock.now = 5
    for name in ("read", "verify", "somewhere"):
        line.begin(name)
    assert line.took == {}
    assert "3/4 verify" in str(line)


def test_what_an_earlier_process_took_counts(line, clock):
    line.begin("read")
    line.kept("read", 90.0)
    clock.now = 1
    line.begin("verify")
    assert line.took == {"read": 90}
    assert line.seconds_left == 3 * (60 + 120)


def test_into_a_pipe_each_stage_is_one_line(line, clock, caplog, capsys):
    caplog.set_level("INFO", "persona")
    with line.shown():
        for stage in EXPECTED:
            line.begin(stage)
            clock.now += EXPECTED[stage]
        line.finish()
    assert caplog.messages == [
        "stage 1/4 load: 10 s, 4 min left",
        "stage 2/4 read: 30 s, 3 min left",
        "stage 3/4 verify: 1 min, 2 min left",
        "stage 4/4 score: 2 min",
    ]
    assert capsys.readouterr() == ("", "")
    assert line.seconds_left == 0


def test_quiet_says_nothing(line, caplog):
    caplog.set_level("INFO", "persona")
    set_quiet(True)
    with line.shown():
        line.begin("load")
        line.begin("read")
    assert caplog.messages == []


def test_in_a_terminal_the_line_stands_above_and_stages_are_not_listed(
    line, caplog, capsys, monkeypatch
):
    monkeypatch.setattr(module, "is_live", lambda: True)
    caplog.set_level("INFO", "persona")
    with line.shown():
        line.begin("load")
        line.begin("read")
    assert "stage 2/4 read · " in capsys.readouterr().err
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (5399, "90 min"), (7200, "2.0 h")],
)
def test_times_are_said_as_people_do(seconds, said):
    assert in_words(seconds) == said
