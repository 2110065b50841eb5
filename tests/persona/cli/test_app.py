"""`persona app` serves this machine alone unless told otherwise, and says what it needs."""

from __future__ import annotations

import socket
import sys
import types

import pytest
from demo_cases import planted_vector, serving

import persona.cli.app as command
import steering.demo.browser.interface as demo_app
from persona.cli.main import main
from persona.directions.storage import save_vector
from persona.errors import PersonaError
from persona.extras import install_line
from steering.demo import Session, from_persona_vector
from steering.serving import ServedModels, http_app


@pytest.fixture
def served(monkeypatch, tmp_path):
    """What the app was launched with; it is ended by Ctrl-C at once."""
    pytest.importorskip("gradio")
    seen = {}

    def launch(session, **options):
        seen.update(options, session=session)
        closed = types.SimpleNamespace(close=lambda **_: seen.update(closed=True))
        return closed, "http://127.0.0.1:7860/"

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("steering.demo.launch", launch)
    monkeypatch.setattr(command, "time", types.SimpleNamespace(sleep=interrupted))
    return seen


@pytest.fixture
def words(tiny_llama, tiny_adapter):
    return ["app", "--aligned", str(tiny_llama), "--finetuned", str(tiny_adapter)]


def test_it_is_served_to_the_loopback_and_closed_by_ctrl_c(served, words, capsys):
    assert main([*words, "--port", "8123", "--dtype", "float32"]) == 0
    assert (served["host"], served["port"], served["closed"]) == ("127.0.0.1", 8123, True)
    out, err = capsys.readouterr()
    assert out == "persona app: http://127.0.0.1:7860/\n"
    assert "no password" not in err
    # No steered column until a direction is loaded.
    assert served["session"].columns == ("aligned", "finetuned", "prompted")


def test_serving_elsewhere_is_warned_about(served, words, capsys):
    assert main([*words, "--host", "0.0.0.0", "--dtype", "float32"]) == 0
    assert "serving at 0.0.0.0: whoever can reach this machine" in capsys.readouterr().err


def test_a_direction_is_steered_with_from_the_start(served, words, tiny_pair, tmp_path):
    path = save_vector(planted_vector(tiny_pair), tmp_path / "d.safetensors")
    more = ["--direction", str(path), "--coefficient", "0.5", "--layers", "2", "--dtype", "float32"]
    assert main([*words, *more]) == 0
    setting = served["session"].setting
    assert (setting.coefficient, setting.layers) == (0.5, (2, 2))


@pytest.fixture
def nothing_loads(monkeypatch):
    monkeypatch.delenv("PERSONASCOPE_API_KEY", raising=False)
    fails = lambda *_, **__: pytest.fail("a model is loaded")  # noqa: E731
    monkeypatch.setattr("steering.demo.session.starting.load_pair", fails)


def test_an_endpoint_stands_in_place_of_models_in_this_process(
    served, tiny_pair, nothing_loads, capsys
):
    pytest.importorskip("uvicorn")
    vector = from_persona_vector(planted_vector(tiny_pair))
    with serving(http_app(ServedModels(tiny_pair, vector))) as address:
        words = ["app", "--endpoint", address, "--coefficient", "0.5"]
        assert main([*words, "--system-prompt", "Be careful."]) == 0
        assert served["session"].setting.coefficient == 0.5
        assert served["session"].columns == ("aligned", "finetuned", "steered", "prompted")
        told = capsys.readouterr()
        assert told.out == "persona app: http://127.0.0.1:7860/\n"
        assert "car_maintenance_bad" not in told.err  # a default that nothing loads
        assert main([*words, "--mode", "add", "--finetuned", "x"]) == 2
        assert "--finetuned, --mode: with --endpoint the server has chosen that" in unwrapped(
            capsys.readouterr().err
        )


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://127.0.0.1:9/v1", "error: the endpoint http://127.0.0.1:9/v1 cannot be reached"),
        ("ftp://user:secret@host", "error: an endpoint is an http or https address"),
    ],
)
def test_an_endpoint_that_cannot_be_asked_is_one_line(served, nothing_loads, capsys, address, why):
    assert main(["app", "--endpoint", address]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert line.startswith(why) and "secret" not in line and "session" not in served


def test_without_gradio_one_line_comes_before_any_model_is_loaded(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app", "--aligned", "nothing"]) == 2
    assert install_line("app") in capsys.readouterr().err


def test_a_port_that_is_taken_is_named_in_one_line(tiny_pair):
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PersonaError, match=f"cannot serve at 127.0.0.1:{port}"):
            demo_app.launch(Session(tiny_pair), port=port)


def test_nothing_is_shared_and_analytics_are_off(tiny_pair, monkeypatch):
    gradio = pytest.importorskip("gradio")
    asked = {}
    launch = lambda self, **options: asked.update(options) or (None, "address", None)  # noqa: E731
    monkeypatch.setattr(gradio.Blocks, "launch", launch)
    app, _ = demo_app.launch(Session(tiny_pair))
    assert (asked["share"], asked["server_name"]) == (False, "127.0.0.1")
    assert asked["max_file_size"] == 64 * 2**20
    assert app.analytics_enabled is False


def unwrapped(text):
    return " ".join(text.replace("│", " ").split())
