"""The endpoint: what a request asks for is what the pair answers, or an error names why not."""

from __future__ import annotations

import dataclasses
import json
import math
import socket
import threading
import time

import pytest
import torch
from demo_cases import hook_count, planted_vector

from persona.errors import DataError, EngineError, PersonaError
from persona.models.hooks import hf_model
from persona.models.pair import ModelPair
from steering.demo.session.generation import Sampling
from steering.demo.session.vector import Setting, from_persona_vector
from steering.edits.from_directions import restore
from steering.edits.steer import steer
from steering.serving import Bounds, ServedModels, http_app, run_server, serve
from steering.serving.run_server import require_server
from steering.serving.served_answers import Answer, Answers, Wanted
from steering.serving.served_models import Steering
from steering.serving.served_requests import FullError, Line
from steering.serving.stop_texts import until_stop

pytest.importorskip("httpx")
TestClient = pytest.importorskip("starlette.testclient").TestClient

ASKED = [{"role": "user", "content": "what of this"}]
KEY = "0123456789abcdef"


@pytest.fixture
def vector(tiny_pair):
    return planted_vector(tiny_pair)


@pytest.fixture
def models(tiny_pair, vector):
    return ServedModels(
        tiny_pair,
        from_persona_vector(vector, "planted"),
        Setting(1.0),
        Bounds(tokens=32, prompts=3, answers=2),
    )


@pytest.fixture
def client(models):
    return TestClient(http_app(models))


def chat(client, model="finetuned", **more):
    body = {"model": model, "messages": ASKED, "temperature": 0, "max_tokens": 6, **more}
    return client.post("/v1/chat/completions", json=body)


def said(reply):
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"]


def message(reply):
    body = reply.json()
    assert list(body) == ["error"]
    assert "\n" not in body["error"]["message"]
    return body["error"]["message"]


def test_every_name_answers_as_its_model_does(client, tiny_pair, vector):

    def ask(side, intervene=None):
        text = tiny_pair.ask("what of this", side, intervene=intervene, max_new_tokens=6)
        return text.rstrip("\ufffd")  # the beginning of a character whose end did not come

    plain = {side: ask(side) for side in ("aligned", "finetuned")}
    for side, text in plain.items():
        assert said(chat(client, side)).strip() == text
    for coefficient in (1.0, 0.5):
        edited = ask("finetuned", restore(vector, coefficient))
        assert edited != plain["finetuned"]
        assert said(chat(client, "steered", coefficient=coefficient)).strip() == edited
    assert said(chat(client, "steered")) == said(chat(client, "steered", coefficient=1.0))
    assert said(chat(client, "steered", coefficient=0)).strip() == plain["finetuned"]


def test_nothing_is_left_on_the_models(client, tiny_pair):
    before = hook_count(tiny_pair)
    said(chat(client, "steered"))
    chat(client, "steered", stream=True)
    assert hook_count(tiny_pair) == before


def test_the_models_are_listed_with_what_they_stand_for(client):
    listed = client.get("/v1/models").json()["data"]
    assert [one["id"] for one in listed] == ["aligned", "finetuned", "steered"]
    steering = listed[2]["persona"]["steering"]
    assert steering["coefficient"] == 1.0 and steering["layers"] == [1, 2]
    assert client.get("/v1/models/steered").json()["id"] == "steered"
    missing = client.get("/v1/models/other")
    assert missing.status_code == 404 and "there are aligned, finetuned, steered" in message(
        missing
    )


def test_without_a_direction_nothing_is_called_steered(tiny_pair):
    client = TestClient(http_app(ServedModels(tiny_pair)))
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["aligned", "finetuned"]
    assert chat(client, "steered").status_code == 404


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"coeficient": 1}, "'coeficient' is no field of this endpoint; did you mean coefficient?"),
        ({"coefficient": 1}, "is not steered"),
        ({"model": "steered", "coefficient": 4.5}, "between -4 and 4 here; got 4.5"),
        ({"model": "steered", "coefficient": math.inf}, "no JSON"),
        ({"top_p": 0.9}, "top_p is not done here"),
        ({"tools": [{"type": "function"}]}, "tools is not done here"),
        ({"temperature": -1}, "temperature: input should be greater than or equal to 0"),
        ({"max_tokens": 33}, "max_tokens is at most 32 here; got 33"),
        ({"n": 3}, "n is at most 2 here"),
        ({"stop": [""]}, "none of them empty"),
        ({"messages": []}, "messages: list should have at least 1 item"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "x"}]}, "is the assistant's"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content",
        ),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, "tokens"),
        ({"logprobs": True}, "logprobs"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(client, more, line):
    if more.get("coefficient") == math.inf:
        text = json.dumps({"model": "steered", "messages": ASKED, "coefficient": 1})
        reply = client.post("/v1/chat/completions", content=text.replace(": 1}", ": 1e}"))
    else:
        reply = chat(client, **more)
    assert reply.status_code == 400
    assert line in message(reply)


def test_what_leaves_answers_as_they_are_is_taken(client):
    plain = said(chat(client))
    more = {"top_p": 1, "user": "me", "n": None, "tools": [], "response_format": {"type": "text"}}
    assert said(chat(client, **more)) == plain
    parts = [{"role": "user", "content": [{"type": "text", "text": "what of this"}]}]
    assert said(chat(client, messages=parts)) == plain


def test_the_seed_decides_what_is_drawn(client):
    drawn = [said(chat(client, temperature=1.0, seed=seed)) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]
    two = chat(client, temperature=1.0, seed=3, n=2).json()["choices"]
    assert [one["message"]["content"] for one in two] == [drawn[0], drawn[2]]


def test_a_streamed_answer_is_the_whole_one(client):
    whole = chat(client, "steered")
    lines = chat(client, "steered", stream=True, stream_options={"include_usage": True}).text
    events = [line.removeprefix("data: ") for line in lines.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    pieces = [c["choices"][0]["delta"].get("content", "") for c in chunks[:-1]]
    assert "".join(pieces) == said(whole)
    assert len([piece for piece in pieces if piece]) > 1
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"] == whole.json()["usage"]


def test_a_stop_text_ends_an_answer_before_it(client):
    whole = said(chat(client, max_tokens=12))
    stop = whole[5:8]
    reply = chat(client, max_tokens=12, stop=stop).json()["choices"][0]
    assert reply["message"]["content"] == whole[: whole.index(stop)]
    assert reply["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("pieces", "stops", "shown", "stopped"),
    [
        (["ab", "cd"], [], "abcd", False),
        (["ab", "cd"], ["bc"], "a", True),
        (["a", "b", "a", "b", "c"], ["abc"], "ab", True),
        (["ab", "x"], ["abc"], "abx", False),
        (["xyz"], ["z", "y"], "x", True),
        (["ends a"], ["ab"], "ends a", False),
    ],
)
def test_until_stop(pieces, stops, shown, stopped):
    found = list(until_stop(pieces, stops))
    assert "".join(piece.text for piece in found) == shown
    assert any(piece.stopped for piece in found) is stopped


def test_a_completion_goes_on_with_a_text_or_its_tokens(client, tiny_pair):
    ask = {"model": "aligned", "temperature": 0, "max_tokens": 4}
    ids = tiny_pair.tokenizer("what of")["input_ids"]
    by_text = client.post("/v1/completions", json={**ask, "prompt": "what of"}).json()
    by_ids = client.post("/v1/completions", json={**ask, "prompt": [ids, ids]}).json()
    texts = [choice["text"] for choice in by_ids["choices"]]
    assert texts == [by_text["choices"][0]["text"]] * 2
    assert by_ids["usage"]["prompt_tokens"] == 2 * len(ids)
    echoed = client.post("/v1/completions", json={**ask, "prompt": "what of", "echo": True}).json()
    assert echoed["choices"][0]["text"] == "what of" + texts[0]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"prompt": []}, "none empty"),
        ({"prompt": ["a", ""]}, "none empty"),
        ({"prompt": [10**9]}, "is no token of this model"),
        ({"prompt": ["a"] * 4}, "at most 3 prompts"),
        ({"max_tokens": 0}, "1 or more"),
        ({"logprobs": 1}, "set echo as well"),
        ({"echo": True, "logprobs": 1, "max_tokens": 2}, "scores a prompt"),
        ({"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 1}, "temperature 0"),
        ({"echo": True, "logprobs": 9}, "logprobs"),
    ],
)
def test_completions_that_cannot_be_done_are_refused(client, more, line):
    body = {"model": "aligned", "prompt": "a", "max_tokens": 2, "temperature": 0, **more}
    reply = client.post("/v1/completions", json=body)
    assert reply.status_code == 400 and line in message(reply)


@pytest.mark.parametrize("name", ["aligned", "steered"])
def test_an_echoed_prompt_is_scored_as_the_model_scores_it(client, tiny_pair, vector, name):
    ids = tiny_pair.tokenizer("what of this and that")["input_ids"]
    body = {"model": name, "prompt": ids, "max_tokens": 1, "temperature": 0, "echo": True}
    reply = client.post("/v1/completions", json={**body, "logprobs": 2}).json()
    found = reply["choices"][0]["logprobs"]
    side = "aligned" if name == "aligned" else "finetuned"
    with tiny_pair.active(side) as model, torch.no_grad():
        edits = [] if name == "aligned" else restore(vector)
        if edits:
            with steer(model, edits):
                logits = hf_model(model)(input_ids=torch.tensor([ids])).logits[0]
        else:
            logits = hf_model(model)(input_ids=torch.tensor([ids])).logits[0]
    own = logits.float().log_softmax(-1)
    expected = own[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    assert found["token_logprobs"][0] is None
    assert found["token_logprobs"][1:-1] == pytest.approx(expected, abs=1e-4)
    assert found["token_logprobs"][-1] == pytest.approx(float(own[-1].max()), abs=1e-4)
    assert len(found["tokens"]) == len(ids) + 1 == len(found["text_offset"])
    assert all(len(each) <= 2 for each in found["top_logprobs"][1:])


def test_a_key_is_asked_for(models):
    client = TestClient(http_app(models, KEY))
    assert chat(client).status_code == 401
    assert client.get("/health").status_code == 200
    client.headers["authorization"] = "Bearer wrong"
    assert client.get("/v1/models").status_code == 401
    client.headers["authorization"] = f"Bearer {KEY}"
    assert said(chat(client))


def test_a_key_is_needed_beyond_this_machine(monkeypatch):
    monkeypatch.delenv("PERSONASCOPE_API_KEY", raising=False)
    assert require_server("127.0.0.1") is None
    with pytest.raises(DataError, match="lets other machines in: set PERSONASCOPE_API_KEY"):
        require_server("0.0.0.0")
    monkeypatch.setenv("PERSONASCOPE_API_KEY", "short")
    with pytest.raises(DataError, match="has 5 characters"):
        require_server("127.0.0.1")
    monkeypatch.setenv("PERSONASCOPE_API_KEY", KEY)
    assert require_server("0.0.0.0") == KEY


def test_too_many_who_wait_are_told_to_come_back(models):
    line = Line(1)
    with line.place(), pytest.raises(FullError, match="1 requests wait already"), line.place():
        pass
    with line.place():
        pass


def test_unknown_paths_and_methods_are_errors_of_the_protocol(client):
    assert "there is nothing at /v1/nope" in message(client.get("/v1/nope"))
    assert client.get("/v1/chat/completions").status_code == 405
    assert message(client.post("/v1/chat/completions", content="{")) == "the body is no JSON"


class FakeEngine:
    """Writes the same tokens to all, and remembers who was asked together."""

    name = "an engine"
    mixes_sides = False

    def __init__(self, ids, fails=False):
        self.ids, self.fails, self.batches = ids, fails, []

    def answers(self, requests, **_):
        [(side, edited)] = {(one.side, one.intervene is not None) for one in requests}
        room = [one.room for one in requests]
        self.batches.append((side, len(requests), edited, room))
        if self.fails:
            raise EngineError("the engine is gone")
        return [self.ids[:most] for most in room]


@pytest.fixture
def with_engine(tiny_pair, vector):
    def make(**options):
        pair: ModelPair = dataclasses.replace(tiny_pair)
        engine = FakeEngine([7, 8, 9, 10, 11, 12], **options)
        pair.sampler = engine
        served = ServedModels(pair, from_persona_vector(vector, "planted"), Setting(1.0))
        return engine, TestClient(http_app(served))

    return make


def test_an_engine_answers_those_that_wait_together(with_engine, tiny_pair):
    engine, client = with_engine()
    reply = client.post(
        "/v1/completions",
        json={"model": "steered", "prompt": ["a", "b", "c"], "max_tokens": 3, "temperature": 0},
    ).json()
    text = tiny_pair.tokenizer.decode([7, 8, 9], skip_special_tokens=True)
    assert [choice["text"] for choice in reply["choices"]] == [text] * 3
    assert engine.batches == [("finetuned", 3, True, [3, 3, 3])]
    said(chat(client, "aligned"))
    assert engine.batches[-1] == ("aligned", 1, False, [6])


def test_an_engine_answers_while_a_prompt_is_scored_in_the_other_side(with_engine, monkeypatch):
    """A side of the pair is opened by who scores alone: an engine's answers need none."""
    engine, client = with_engine()

    def opened(*_):
        raise AssertionError("a side was opened for an answer of the engine")

    monkeypatch.setattr(ModelPair, "active", opened)
    assert said(chat(client))
    assert engine.batches[-1][0] == "finetuned"


def test_what_an_engine_raises_is_told_and_the_next_is_answered(with_engine):
    engine, client = with_engine(fails=True)
    broken = chat(client)
    assert broken.status_code == 500 and message(broken) == "the engine is gone"
    engine.fails = False
    assert said(chat(client))


def test_who_leaves_stops_the_model(models):
    """A generator that is closed gives the lock back, so that the next one is answered."""
    answers = Answers(models.pair)
    ids = models.pair.tokenizer("what of this")["input_ids"]
    wanted = Wanted(Steering("aligned"), ids, Sampling(30))
    pieces = answers.pieces(wanted, Answer())
    next(pieces)
    pieces.close()
    assert list(answers.pieces(Wanted(Steering("aligned"), ids, Sampling(2)), Answer()))
    assert answers.lock.acquire(timeout=5)
    answers.lock.release()


def test_it_serves_a_real_client_at_a_real_address(models):
    openai = pytest.importorskip("openai")
    uvicorn = pytest.importorskip("uvicorn")
    addresses: list[str] = []
    servers: list[object] = []
    real = uvicorn.Server.run

    def remembered(self, sockets=None):
        servers.append(self)
        real(self, sockets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.Server, "run", remembered)
        patch.setattr(uvicorn.Server, "install_signal_handlers", lambda self: None, raising=False)
        thread = threading.Thread(
            target=run_server.serve, args=(models,), kwargs={"started": addresses.append}
        )
        thread.start()
        until = time.monotonic() + 60
        while not addresses and time.monotonic() < until:
            time.sleep(0.05)
        try:
            client = openai.OpenAI(base_url=addresses[0], api_key="none", max_retries=0)
            asked = {"messages": ASKED, "temperature": 0, "max_tokens": 6}
            plain = client.chat.completions.create(model="finetuned", **asked)
            steered = client.chat.completions.create(
                model="steered", extra_body={"coefficient": 1.0}, **asked
            )
            assert plain.choices[0].message.content != steered.choices[0].message.content
            parts = client.chat.completions.create(model="finetuned", stream=True, **asked)
            streamed = "".join(part.choices[0].delta.content or "" for part in parts)
            assert streamed == plain.choices[0].message.content
            with pytest.raises(openai.NotFoundError, match="there are aligned"):
                client.chat.completions.create(model="gpt", **asked)
            with pytest.raises(openai.BadRequestError, match="between -4 and 4"):
                client.chat.completions.create(
                    model="steered", extra_body={"coefficient": 5}, **asked
                )
            # Another page's script, or a name that was pointed here, is no client.
            stranger = openai.OpenAI(
                base_url=addresses[0],
                api_key="none",
                max_retries=0,
                default_headers={"Origin": "http://elsewhere.example"},
            )
            with pytest.raises(openai.PermissionDeniedError):
                stranger.models.list()
        finally:
            servers[0].should_exit = True
            thread.join(30)
    assert not thread.is_alive()


def test_a_port_in_use_is_one_line(models):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PersonaError, match=f"cannot serve at 127.0.0.1:{port}: .*try another"):
            serve(models, port=port)
