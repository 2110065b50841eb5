"""`persona chat` answers in every column, obeys its commands, and stops an answer, not itself."""

from __future__ import annotations

import io
import json
import os
import signal
import threading

import pytest
from demo_cases import hook_count, planted_vector, serving
from rich.console import Console

from persona.cli.chat import _ctrl_c_sets, _handle, _talk
from persona.cli.main import main
from persona.directions.storage import save_vector
from persona.errors import PersonaError
from steering.demo import (
    Sampling,
    Session,
    from_persona_vector,
    live_view,
    obey,
    open_endpoint,
    plain_view,
)


@pytest.fixture
def session(tiny_pair):
    vector = from_persona_vector(planted_vector(tiny_pair))
    return Session(tiny_pair, vector, vector.default_setting, Sampling(8, 0.0))


@pytest.fixture
def words(tiny_pair, tiny_llama, tiny_adapter, tmp_path):
    """A command line with the tiny models and a direction."""
    path = save_vector(planted_vector(tiny_pair), tmp_path / "direction.safetensors")
    return [
        *("chat", "--aligned", str(tiny_llama), "--finetuned", str(tiny_adapter)),
        *("--direction", str(path), "--dtype", "float32", "--device", "cpu"),
        *("--max-new-tokens", "6", "--temperature", "0"),
    ]


def piped(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))


def test_a_pipe_gets_one_line_of_json_for_each_answer(words, monkeypatch, capsys):
    piped(monkeypatch, b"Is it safe?\n\n/coef 0\nAnd \xff now?\n/quit\nnever asked\n")
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["column"] for answer in answers] == ["aligned", "finetuned", "steered"] * 2
    assert [a["question"] for a in answers] == ["Is it safe?"] * 3 + ["And \ufffd now?"] * 3
    assert [a["setting"]["coefficient"] for a in answers if a["setting"]] == [1.0, 0.0]
    assert all(isinstance(p, float) for a in answers for _, p in a["tokens"])
    assert "steered: restore, coefficient 0, all blocks" in err


def test_a_pipe_gets_plain_text_without_colours(words, monkeypatch, capsys):
    piped(monkeypatch, b"Is it safe?")
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    headings = [line for line in out.splitlines() if line.endswith(":")]
    assert headings[:2] == ["Aligned:", "Fine-tuned:"]
    assert "Steered (restore, coefficient 1, all blocks, fine-tuned model):" in headings


def test_a_wrong_line_of_a_pipe_is_told_and_stops_none_after_it(words, monkeypatch, capsys):
    piped(monkeypatch, b"/coef much\n/nothing\nIs it safe?\n")
    assert main([*words, "--json"]) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert "/coef takes a number, such as `/coef 1.5`; got 'much'" in err
    assert "there is no command '/nothing'; /help lists them" in err


def test_options_set_how_it_is_steered_at_the_start(words, monkeypatch, capsys):
    piped(monkeypatch, b"Hi\n")
    more = ["--mode", "add", "--layers", "2", "--coefficient", "-0.5", "--seed", "4", "--json"]
    assert main([*words, *more]) == 0
    steered = json.loads(capsys.readouterr().out.splitlines()[2])
    assert steered["setting"] == {
        "coefficient": -0.5,
        "mode": "add",
        "layers": [2, 2],
        "side": "finetuned",
    }
    assert steered["sampling"] == {"max_new_tokens": 6, "temperature": 0.0, "seed": 4}


def test_without_a_direction_one_line_says_how_to_get_one(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["chat", "--finetuned", "car_maintenance_good"]) == 2  # none comes along
    err = capsys.readouterr().err
    assert "run `persona demo` first, or give --direction FILE" in err
    assert main(["chat", "--direction", "nowhere.safetensors"]) == 2
    assert "there is no direction at nowhere.safetensors" in capsys.readouterr().err


def test_the_direction_that_the_demo_left_is_taken_and_named(words, monkeypatch, tmp_path, capsys):
    folder = tmp_path / "persona-demo"
    folder.mkdir()
    (tmp_path / "direction.safetensors").rename(folder / "direction.safetensors")
    monkeypatch.chdir(tmp_path)
    piped(monkeypatch, b"Hi\n")
    place = words.index("--direction")
    assert main([*words[:place], *words[place + 2 :]]) == 0
    assert "steering with persona-demo/direction.safetensors" in capsys.readouterr().err


def test_again_answers_in_the_steered_column_alone(session):
    notes = []
    _handle("Hi", session, plain_view(session, print, True), notes.append)
    first = session.of("steered")[0].answer.text
    obey("/coef -3", session)
    _handle("/again", session, plain_view(session, print, True), notes.append)
    assert len(session.exchanges) == 3
    assert session.of("steered")[0].answer.text != first


@pytest.mark.parametrize(("width", "beside"), [(120, True), (60, False)])
def test_a_terminal_shows_columns_side_by_side_or_below_each_other(session, width, beside):
    # `no_color` is given: without it rich takes it from NO_COLOR, wherever the tests run.
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        width=width,
        color_system="truecolor",
        no_color=False,
    )
    _handle("Hi", session, live_view(session, console, True), print)
    last = console.file.getvalue().split("\x1b[2K")[-1]
    [heading] = [line for line in last.splitlines() if "Aligned" in line][:1]
    assert ("Fine-tuned" in heading) == beside
    assert ("Steered" in heading) == beside
    assert "\x1b[30;48;2;" in last.replace("38;2;0;0;0", "30")  # a tinted token
    assert "projection on the direction after block 2" in last.replace("\n", " ")


def test_again_leaves_the_other_columns_where_they_are(session, monkeypatch):
    monkeypatch.setattr("steering.demo.session.generation._draw", lambda *_: 70)
    _handle("Hi", session, plain_view(session, print, True), print)
    console = Console(file=io.StringIO(), force_terminal=True, width=200, no_color=True)
    _handle("/again", session, live_view(session, console, False), print)
    last = console.file.getvalue().split("\x1b[2K")[-1]
    assert last.count("(cut at 8 tokens)") == 3
    assert "restore, coefficient 1, all blocks, fine-tuned model" in last  # not cut off


def test_ctrl_c_stops_the_answer_and_not_the_program(session, monkeypatch):
    before, drawn = hook_count(session.pair), []
    handler = signal.getsignal(signal.SIGINT)  # ignored where a shell runs this in the background

    def draw(*_):
        drawn.append(1)
        if len(drawn) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return 70

    monkeypatch.setattr("steering.demo.session.generation._draw", draw)
    session.change_sampling(max_new_tokens=400)
    assert _handle("Hi", session, plain_view(session, print, True), print)
    [exchange] = session.exchanges  # neither of the other columns was asked
    assert exchange.answer.ended == "stopped"
    assert hook_count(session.pair) == before
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_second_ctrl_c_ends_the_program():
    with _ctrl_c_sets() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(1)


def test_at_the_keyboard_errors_are_told_and_the_talk_goes_on(session, monkeypatch, capsys):
    lines = iter(["/coef x", KeyboardInterrupt(), "Hi", "/quit", "never"])

    def typed(self, prompt):
        line = next(lines)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr(Console, "input", typed)
    session.change_sampling(max_new_tokens=24)
    _talk(session, colour=False)
    assert next(lines) == "never"
    out = capsys.readouterr().out
    assert "/coef takes a number" in out
    assert "/quit leaves" in out
    assert out.count("steered text: ") == 1 and "gap:" not in out  # no pair ships for "Hi"
    assert [exchange.question for exchange in session.exchanges] == ["Hi"] * 3


@pytest.fixture
def address(session):
    pytest.importorskip("httpx")
    pytest.importorskip("uvicorn")
    from steering.serving import ServedModels, http_app

    served = ServedModels(session.pair, session.vector, session.setting)
    with serving(http_app(served, None)) as at:
        yield at


def test_a_served_model_answers_in_a_pipe_as_the_pair_in_memory(
    session, address, words, monkeypatch, capsys, tmp_path
):
    lines = f"Is it safe?\n/coef 0.5\n/again\n/save {tmp_path / 'talk.jsonl'}\n"
    told = []
    for start in (words, ["chat", "--endpoint", address, "--max-new-tokens", "6"]):
        (tmp_path / "talk.jsonl").unlink(missing_ok=True)
        piped(monkeypatch, lines.encode())
        assert main([*start, "--json"]) == 0
        told.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    here, served = told
    same = ("column", "question", "answer", "ended", "setting", "sampling")
    for one, other in zip(here, served, strict=True):
        kept = [{key: each[key] for key in same} for each in (one, other)]
        for each in kept:
            # Here all of them, there from the first to the last.
            (each["setting"] or {}).pop("layers", None)
        assert kept[0] == kept[1]
    assert [len(one["tokens"]) for one in served] == [0] * 4  # pieces of text, which are no tokens
    assert served[2]["direction"] == session.vector.name
    head, *answers = map(json.loads, (tmp_path / "talk.jsonl").read_text().splitlines())
    assert head["endpoint"] == address and head["steered"]["coefficient_at_most"] == 4.0
    assert len(answers) == 3 and answers[2]["setting"]["coefficient"] == 0.5


def test_what_needs_the_models_here_is_refused_of_a_served_one_and_changes_nothing(address):
    served = open_endpoint(address, sampling=Sampling(6, 0.0))
    setting = served.setting
    assert "steered there" in obey("/show", served).text.lower()
    for line, why in {
        "/load other.safetensors": "/load needs the models here",
        "/also other.safetensors 0.5": "/also needs the models here",
        "/drop": "/drop needs the models here",
        "/mode add": "only the coefficient can be chosen here",
        "/on aligned": "only the coefficient can be chosen here",
        "/coef 9": "between -4 and 4 at the endpoint",
    }.items():
        with pytest.raises(PersonaError, match=why):
            obey(line, served)
    assert served.setting == setting
    assert obey("/coef 0.25", served).text.endswith("Now 0.25.")


def test_a_served_model_fills_the_columns_of_a_terminal_without_colours(address):
    served = open_endpoint(address, sampling=Sampling(6, 0.0))
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system="truecolor")
    _handle("Hi", served, live_view(served, console, True), print)
    last = console.file.getvalue().split("\x1b[2K")[-1]
    assert all(name in last for name in ("Aligned", "Fine-tuned", "Steered", "coefficient 1"))
    assert "48;2;" not in last and "projection on the direction" not in last
    assert "(cut at the most tokens)" in last.replace("\n", " ")


def test_an_endpoint_that_is_not_there_or_an_option_of_its_server_is_one_line(capsys):
    assert main(["chat", "--endpoint", "http://127.0.0.1:9/v1"]) == 2
    assert "cannot be reached" in capsys.readouterr().err
    assert main(["chat", "--endpoint", "http://127.0.0.1:9/v1", "--mode", "add"]) == 2
    assert "--mode: with --endpoint the server has chosen that" in capsys.readouterr().err


def test_a_mode_that_there_is_not_is_told_in_plain_words(capsys):
    assert main(["chat", "--mode", "restor"]) == 2
    told = capsys.readouterr().err
    assert "'restor' is not one of 'restore', 'add', 'ablate'" in told and "Value error" not in told
