"""A conversation with a served model says what the pair in memory says, or one line why not."""

from __future__ import annotations

import copy
import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from demo_cases import planted_vector, serving

from persona.errors import DataError, PersonaError, SteeringError
from steering.demo import EndpointError, Sampling, Session, from_persona_vector, open_endpoint
from steering.demo.browser.gate import gate
from steering.serving import KEY_VARIABLE, Bounds, ServedModels, http_app

pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

GREEDY = Sampling(max_new_tokens=12, temperature=0.0)
KEY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture
def in_memory(tiny_pair):
    vector = from_persona_vector(planted_vector(tiny_pair), "planted")
    return Session(tiny_pair, vector, vector.default_setting, GREEDY)


@pytest.fixture
def models(in_memory):
    return ServedModels(in_memory.pair, in_memory.vector, in_memory.setting, Bounds(tokens=32))


@contextmanager
def served(models, key=None):
    with serving(gate(http_app(models, key), "127.0.0.1")) as address:
        yield address


def text(session, column, question="Is it safe?"):
    return "".join(token.text for token in session.answer(column, question))


def test_greedy_answers_are_those_of_the_pair_in_memory_at_every_coefficient(in_memory, models):
    with served(models) as address:
        session = open_endpoint(address, sampling=GREEDY)
        for one in (session, in_memory):
            one.compare_with("Be careful.")
        assert session.columns == in_memory.columns and session.names == in_memory.names
        assert session.setting.words == in_memory.setting.words.replace("all blocks", "blocks 1-2")
        steered = {}
        for coefficient in (0.0, 0.5, 1.0):
            session.change(coefficient=coefficient)
            in_memory.change(coefficient=coefficient)
            steered[coefficient] = text(session, "steered")
            assert steered[coefficient] == text(in_memory, "steered")
        assert len(set(steered.values())) == 3
        for column in ("aligned", "finetuned", "prompted"):
            assert text(session, column) == text(in_memory, column)
            assert session.exchanges[-1].answer.ended == in_memory.exchanges[-1].answer.ended
        assert steered[0.0] == session.of("finetuned")[0].answer.text != steered[1.0]


def test_an_answer_comes_in_pieces_and_a_question_goes_on_from_the_last(in_memory, models):
    with served(models) as address:
        session = open_endpoint(address, sampling=GREEDY, remembers=True)
        in_memory.remembers = True
        assert len(list(session.answer("aligned", "Hi"))) > 2
        text(in_memory, "aligned", "Hi")
        assert text(session, "aligned", "And?") == text(in_memory, "aligned", "And?")
        assert session.exchanges[-1].alone is False
        session.change_sampling(temperature=1.0, seed=3)
        in_memory.change_sampling(temperature=1.0, seed=3)
        assert text(session, "finetuned") == text(in_memory, "finetuned")


def test_only_the_coefficient_can_be_chosen_and_within_the_bounds_of_the_server(models):
    with served(models) as address:
        session = open_endpoint(address, coefficient=0.25)
        assert session.setting.coefficient == 0.25 and session.bounds == (-4.0, 4.0)
        with pytest.raises(SteeringError, match="between -4 and 4 at the endpoint; got 4.5"):
            session.change(coefficient=4.5)
        with pytest.raises(SteeringError, match="restore at blocks 1-2 of the fine-tuned model"):
            session.change(mode="add")
        with pytest.raises(SteeringError, match="between -4 and 4"):
            open_endpoint(address, coefficient=9)
        assert session.setting.coefficient == 0.25
        with pytest.raises(EndpointError, match="answered 400: max_tokens is at most 32 here"):
            text(session, "aligned")
        with pytest.raises(DataError, match="the question is empty"):
            session.answer("aligned", " ")


def test_an_endpoint_without_a_direction_has_no_steered_column(models, tiny_pair, caplog):
    with served(ServedModels(tiny_pair)) as address:
        session = open_endpoint(address, sampling=GREEDY)
        assert session.columns == ("aligned", "finetuned")
        assert "has no direction, so there is no steered column" in caplog.text
        with pytest.raises(SteeringError, match="has no direction to steer with"):
            session.change(coefficient=0.5)
        with served(models) as other:
            steered = open_endpoint(other, sampling=GREEDY)
        steered.endpoint.address = address  # the server was started anew, without one
        with pytest.raises(EndpointError, match="serves something else than when this began"):
            text(steered, "steered")


def test_a_key_is_read_from_the_environment_and_a_wrong_one_is_refused_in_one_line(
    models, monkeypatch
):
    with served(models, KEY) as address:
        with pytest.raises(EndpointError, match=f"asks for a key; set {KEY_VARIABLE}"):
            open_endpoint(address)
        monkeypatch.setenv(KEY_VARIABLE, "another-key-that-is-wrong")
        with pytest.raises(EndpointError, match="refused the key") as caught:
            open_endpoint(address)
        assert "another" not in str(caught.value) and "\n" not in str(caught.value)
        monkeypatch.setenv(KEY_VARIABLE, "no key\n")
        with pytest.raises(EndpointError, match="holds characters that no key has"):
            open_endpoint(address)
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        session = open_endpoint(address, sampling=GREEDY)
        assert text(session, "aligned") and KEY not in repr(session)


def test_an_endpoint_that_is_not_there_or_goes_away_is_one_line(models):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EndpointError, match="cannot be reached .*is `persona serve` running there"):
        open_endpoint(f"http://127.0.0.1:{port}/v1")
    with served(models) as address:
        session = open_endpoint(address, sampling=GREEDY)
        with pytest.raises(EndpointError, match="nothing at /models; an address often ends in /v1"):
            open_endpoint(address.removesuffix("/v1"))
    with pytest.raises(EndpointError, match="cannot be reached|went away"):
        text(session, "aligned")
    assert session.exchanges == []


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("file:///etc/passwd", "http or https address"),
        ("127.0.0.1:8000/v1", "http or https address"),
        ("http://", "http or https address"),
        ("http://host:port/v1", "http or https address"),
        ("http://a b/v1", "http or https address"),
        ("http://user:secret@host/v1", "no user, password, query or fragment"),
        ("http://host/v1?key=secret", "no user, password, query or fragment"),
        ("ftp://user:secret@host/v1", "http or https address"),
    ],
)
def test_what_is_no_address_of_an_endpoint_is_refused_before_anything_is_sent(address, why):
    with pytest.raises(EndpointError, match=why) as caught:
        open_endpoint(address)
    assert "secret" not in str(caught.value)


class Scripted:
    """An endpoint that answers a chat with the pieces it is given, then does as it is told."""

    def __init__(self, listed=None, pieces=(), ending=b"", hangs=False, n_prompt=7):
        self.listed, self.pieces, self.ending, self.hangs = listed, pieces, ending, hangs
        self.n_prompt, self.went_on = n_prompt, threading.Event()

    async def __call__(self, scope, receive, send):
        import asyncio

        if scope["path"].endswith("/models"):
            await self._body(send, json.dumps(self.listed or LISTED).encode())
            return
        asked = json.loads((await receive())["body"])
        if not asked.get("stream"):
            await self._body(send, json.dumps({"usage": {"prompt_tokens": self.n_prompt}}).encode())
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in self.pieces:
            choice = {"delta": {"content": piece}, "finish_reason": None}
            line = json.dumps({"choices": [choice]}, ensure_ascii=False)
            body = f"data: {line}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
        while self.hangs and not self.went_on.is_set():
            await asyncio.sleep(0.01)
        if self.ending is None:
            raise RuntimeError("the server broke down")
        await send({"type": "http.response.body", "body": self.ending})

    async def _body(self, send, body):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


LISTED = {"data": [{"id": name, "persona": {"model": name}} for name in ("aligned", "finetuned")]}
LAST = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


def test_a_server_that_serves_something_else_by_now_gives_no_answer_under_the_old_name():
    app = Scripted(pieces=("so", "."), ending=LAST)
    with serving(app) as address:
        session = open_endpoint(address)
        assert text(session, "aligned") == "so."
        app.listed = copy.deepcopy(LISTED)
        app.listed["data"][1]["persona"]["model"] = "another fine-tune"
        with pytest.raises(EndpointError, match="serves something else than when this began"):
            text(session, "aligned")


def test_a_key_follows_no_redirect(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    asked = []

    async def elsewhere(scope, receive, send):
        asked.append(dict(scope["headers"]))
        where = [(b"location", b"/v1/other")]
        await send({"type": "http.response.start", "status": 307, "headers": where})
        await send({"type": "http.response.body", "body": b""})

    with serving(elsewhere) as address, pytest.raises(EndpointError, match="answered 307"):
        open_endpoint(address)
    assert [headers[b"authorization"] for headers in asked] == [f"Bearer {KEY}".encode()]


@pytest.mark.parametrize(
    ("ending", "why"),
    [
        (b"", "broke off in the middle of an answer"),
        (None, "broke off in the middle of an answer"),
        (b'data: {"error": {"message": "out of memory"}}\n\n', "broke off: out of memory"),
        (b"data: {}\n\n", "does not answer as `persona serve` does"),
        (b"data: nonsense\n\n", "does not answer as `persona serve` does"),
    ],
)
def test_an_answer_that_breaks_off_is_one_line_and_is_not_kept(ending, why):
    with serving(Scripted(pieces=["So", " far"], ending=ending)) as address:
        session = open_endpoint(address)
        seen = []
        with pytest.raises(EndpointError, match=why):
            seen += session.answer("aligned", "Hi")
        assert session.exchanges == []


def test_a_text_with_other_ends_of_lines_comes_whole():
    pieces = ["one\u2028", "two\x85three", "\r\nfour", "\x0c"]
    with serving(Scripted(pieces=pieces, ending=LAST)) as address:
        session = open_endpoint(address)
        assert text(session, "aligned") == "".join(pieces)
        assert session.exchanges[0].answer.ended == "turn"


def test_stop_does_not_wait_for_an_endpoint_that_is_silent():
    app = Scripted(pieces=["So"], hangs=True, ending=LAST)
    with serving(app) as address:
        session, stop = open_endpoint(address), threading.Event()
        tokens = session.answer("aligned", "Hi", stop=stop)
        assert next(tokens).text == "So"
        threading.Timer(0.3, stop.set).start()
        before = time.monotonic()
        assert list(tokens) == []
        assert time.monotonic() - before < 5
        [kept] = session.exchanges
        assert (kept.answer.text, kept.answer.ended) == ("So", "stopped")
        app.went_on.set()


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ({"data": [{"id": "gpt"}]}, "has no model aligned and no finetuned"),
        ({"data": "none"}, "does not answer as `persona serve` does"),
        ({"models": []}, "does not answer as `persona serve` does"),
    ],
)
def test_an_endpoint_of_another_kind_is_told_apart(listed, why):
    with serving(Scripted(listed)) as address, pytest.raises(PersonaError, match=why):
        open_endpoint(address)


def test_a_system_prompt_that_the_template_does_not_show_is_refused():
    with serving(Scripted()) as address:
        session = open_endpoint(address)
        with pytest.raises(SteeringError, match="shows no system prompt"):
            session.compare_with("Be careful.")
        assert session.columns == ("aligned", "finetuned")
