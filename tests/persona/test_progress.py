"""Progress bars: quiet where asked, silent when short, transparent to the loop."""

import os
import subprocess
import sys

import pytest

from persona import progress as module
from persona.progress import counting, is_quiet, progress, set_quiet


@pytest.fixture(autouse=True)
def loud_again():
    yield
    set_quiet(False)


def test_items_come_through_unchanged_and_in_order():
    assert list(progress((c for c in "abc"), "Reading", total=3)) == ["a", "b", "c"]


def test_a_short_loop_shows_nothing(capsys):
    list(progress(range(3), "Reading"))
    assert capsys.readouterr() == ("", "")


def test_a_long_loop_shows_a_bar_with_time_left_on_standard_error(capsys, monkeypatch):
    monkeypatch.setattr(module, "_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(module, "is_live", lambda: True)
    list(progress(range(3), "Reading pages"))
    out, err = capsys.readouterr()
    assert out == ""
    assert "Reading pages" in err
    assert "3/3" in err
    assert "<" in err  # tqdm writes [elapsed<left]


def test_quiet_silences_a_long_loop(capsys, monkeypatch):
    monkeypatch.setattr(module, "_DELAY_SECONDS", 0.0)
    set_quiet(True)
    assert is_quiet()
    assert list(progress(range(3), "Reading pages")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_an_error_in_the_loop_comes_through():
    with pytest.raises(ZeroDivisionError):
        for item in progress([1, 0], "Dividing"):
            1 / item


def test_the_environment_silences_bars_from_the_start():
    code = "from persona.progress import is_quiet; print(is_quiet())"
    for value, quiet in (("1", "True"), ("", "False")):
        environment = {**os.environ, "PERSONA_QUIET": value}
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == quiet


def test_under_one_bar_no_other_starts_and_afterwards_they_do_again():
    from persona.progress import is_quiet, one_bar_only

    with one_bar_only():
        assert is_quiet()
    assert not is_quiet()


def test_counting_shows_one_bar_for_work_in_pieces(capsys, monkeypatch):
    monkeypatch.setattr(module, "_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(module, "is_live", lambda: True)
    with counting("Reading shards", 128) as advance:
        for _ in range(2):
            list(progress(range(3), "Reading one"))
            advance(64)
    err = capsys.readouterr().err
    assert "Reading shards" in err and "128/128" in err
    assert "Reading one" not in err
    assert not is_quiet()


def test_into_a_pipe_long_work_is_one_line_when_it_is_done(capsys, caplog, monkeypatch):
    monkeypatch.setattr(module, "_DELAY_SECONDS", 0.0)
    caplog.set_level("INFO", "persona")
    list(progress(range(300), "Reading pages"))
    assert caplog.messages == ["Reading pages: done in 0 s"]
    with counting("Reading shards", 2) as advance:
        list(progress(range(3), "Reading one"))
        advance(2)
    assert caplog.messages[1:] == ["Reading shards: done in 0 s"]
    assert capsys.readouterr() == ("", "")


def test_under_the_stages_of_a_run_a_pipe_hears_of_no_single_work(caplog, monkeypatch):
    monkeypatch.setattr(module, "_DELAY_SECONDS", 0.0)
    caplog.set_level("INFO", "persona")
    with module.one_line_a_stage():
        list(progress(range(3), "Reading pages"))
    assert caplog.messages == []


@pytest.mark.parametrize("terminal", [True, False])
def test_beneath_a_line_a_bar_is_wiped_out_and_a_notebook_has_none(capsys, monkeypatch, terminal):
    monkeypatch.setattr(module, "_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(module, "is_live", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with module.line_above_bars() as show:
        show("stage 1/2 read")
        list(progress(range(3), "Reading pages"))
    err = capsys.readouterr().err
    assert "stage 1/2 read" in err
    assert ("Reading pages" in err) is terminal
    last = err.split("\r")[-2:]
    assert all(not part.strip(" \x1b[A\n") for part in last)
    assert not is_quiet()
