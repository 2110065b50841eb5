"""Requests that wait for an engine go as one batch, and each is answered as it is alone."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from demo_cases import planted_vector

from persona.errors import DataError, EngineError, ModelError
from persona.models.hooks import hf_model
from persona.models.pair import SIDES
from persona.models.scorers import TextScores
from steering.demo.session.vector import Setting, from_persona_vector
from steering.serving import ServedModels, engine_batches, http_app
from steering.serving.served_answers import Answers

httpx = pytest.importorskip("httpx")
TestClient = pytest.importorskip("starlette.testclient").TestClient

ASKED = {"prompt": "what of this", "temperature": 0, "max_tokens": 6}
MIXED = [
    {"model": "steered", "coefficient": 1.0},
    {"model": "steered", "coefficient": 0.5},
    {"model": "steered", "coefficient": 0},
    {"model": "aligned"},
    {"model": "finetuned", "temperature": 1.0, "seed": 3},
    {"model": "aligned", "temperature": 1.5, "seed": 2**63 - 1},
    {"model": "steered", "coefficient": 1.0, "prompt": "that"},
]
SCORED = {"temperature": 0, "max_tokens": 1, "echo": True}


class PanicError(BaseException):
    """As one of a library in Rust, which is no Exception."""


class EngineHere:
    """Answers and scores as the pair does in this process, and notes what was asked together.

    refuses: the token whose request fails its batch. scored: the sides it scores.
    """

    name = "an engine"

    def __init__(self, pair, mixes_sides=True, scored=SIDES, refuses=None, error=DataError):
        self.pair, self.mixes_sides, self.scored = pair, mixes_sides, scored
        self.refuses, self.error = refuses, error
        self.batches, self.threads = [], set()

    @contextlib.contextmanager
    def opened(self, one):
        # A text of one token alone meets no edit; an engine says so of a whole set of edits only.
        edited = one.intervene is not None and len(one.ids) > 1
        with self.pair.active(one.side) as bridge, torch.no_grad():
            with one.intervene(bridge) if edited else contextlib.nullcontext():
                yield lambda ids: hf_model(bridge)(input_ids=torch.tensor([ids])).logits[0]

    def note(self, requests):
        self.batches.append(list(requests))
        self.threads.add(threading.current_thread().name)
        if any(self.refuses in one.ids for one in requests):
            raise self.error("one of them cannot be done")

    def answers(self, requests, *, batches, description):
        self.note(requests)
        return [self.answer(one) for one in requests]

    def answer(self, one):
        draws, ids = torch.Generator().manual_seed(one.seed), list(one.ids)
        with self.opened(one) as logits_of:
            while len(ids) < len(one.ids) + one.room and ids[-1] not in one.ends:
                logits = logits_of(ids)[-1].float()
                warm = (logits / (one.temperature or 1)).softmax(-1)
                drawn = torch.multinomial(warm, 1, generator=draws)
                ids.append(int(drawn if one.temperature else logits.argmax()))
        return ids[len(one.ids) :]

    def scores_side(self, side):
        return side in self.scored

    def scores(self, requests, n_likeliest, description):
        self.note(requests)
        return [self.score(one, n_likeliest) for one in requests]

    def score(self, one, n_likeliest):
        with self.opened(one) as logits_of:
            table = logits_of(list(one.ids)).float().log_softmax(-1)
        own = table[:-1].gather(1, torch.tensor(one.ids[1:], dtype=torch.long)[:, None])[:, 0]
        top = table.topk(n_likeliest)
        return TextScores(own, top.indices, top.values)


@pytest.fixture
def vector(tiny_pair):
    return from_persona_vector(planted_vector(tiny_pair), "planted")


@pytest.fixture
def here(tiny_pair, vector):
    """A client of a server without an engine."""
    return TestClient(http_app(ServedModels(tiny_pair, vector, Setting(1.0))))


@pytest.fixture
def served(tiny_pair, vector):
    """An engine, and a client of the server whose answers it writes."""

    def make(**options):
        pair = dataclasses.replace(tiny_pair)
        pair.sampler = EngineHere(tiny_pair, **options)
        return pair.sampler, TestClient(http_app(ServedModels(pair, vector, Setting(1.0))))

    return make


@pytest.fixture
def together(monkeypatch):
    """Posts all bodies at once, and has the engine wait for so many texts."""

    def post(client, bodies, n_texts=None):
        monkeypatch.setattr(engine_batches, "GATHERS_SECONDS", 30)
        monkeypatch.setattr(engine_batches, "MOST_TOGETHER", n_texts or len(bodies))
        with ThreadPoolExecutor(len(bodies)) as pool:
            return list(pool.map(lambda body: client.post("/v1/completions", json=body), bodies))

    return post


def said(reply):
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["text"].rstrip("\ufffd")


def choices(reply):
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"]


@pytest.mark.parametrize("mixes_sides", [True, False])
def test_requests_that_differ_in_everything_go_together_and_are_answered_as_alone(
    here, served, together, mixes_sides
):
    engine, client = served(mixes_sides=mixes_sides)
    bodies = [{**ASKED, **more} for more in MIXED]
    alone = [said(here.post("/v1/completions", json=body)) for body in bodies]
    assert len(set(alone)) == len(alone)
    assert [said(reply) for reply in together(client, bodies)] == alone
    assert sorted(map(len, engine.batches)) == ([7] if mixes_sides else [2, 5])
    assert engine.threads == {"engine batches"}
    asked = [one for batch in engine.batches for one in batch]
    edits = [one.intervene for one in asked if one.intervene is not None]
    assert len(edits) == 3 and len(set(map(id, edits))) == 2  # those of 1.0 are applied at once


def test_all_that_wait_go_together_however_few_the_cores(served, monkeypatch):
    engine, client = served()
    n = 40  # more than the threads that an event loop has of its own
    monkeypatch.setattr(engine_batches, "GATHERS_SECONDS", 5)
    monkeypatch.setattr(engine_batches, "MOST_TOGETHER", n)
    body = {**ASKED, "model": "aligned", "max_tokens": 1}

    async def asked():
        transport = httpx.ASGITransport(client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as one:
            posts = (one.post("/v1/completions", json=body) for _ in range(n))
            return await asyncio.gather(*posts)

    assert {reply.status_code for reply in asyncio.run(asked())} == {200}
    assert [len(batch) for batch in engine.batches] == [n]


def test_a_prompt_is_scored_by_the_engine_as_in_this_process(here, served, together, monkeypatch):
    engine, client = served()
    bodies = [
        {**SCORED, "prompt": "what of this", "model": "steered", "logprobs": 2},
        {**SCORED, "prompt": "and that", "model": "steered", "coefficient": 0.5, "logprobs": 5},
        {**SCORED, "prompt": ["what", "of rain"], "model": "aligned", "logprobs": 1},
        {**SCORED, "prompt": "what of this", "model": "finetuned", "logprobs": 0, "max_tokens": 0},
    ]
    expected = [choices(here.post("/v1/completions", json=body)) for body in bodies]

    def not_here(*_):
        raise AssertionError("a text was scored in this process")

    monkeypatch.setattr(Answers, "_scored_here", not_here)
    assert [choices(reply) for reply in together(client, bodies, n_texts=5)] == expected
    assert [len(batch) for batch in engine.batches] == [5]
    assert engine.threads == {"engine batches"}


def test_what_an_engine_does_not_score_is_scored_in_this_process(here, served, tiny_pair):
    engine, client = served(scored=("aligned",))
    full = [5] * tiny_pair.chat.max_length  # no room for the token that an engine writes
    for model, prompt, by_engine in (
        ("finetuned", "what of this", False),
        ("steered", "what of this", False),
        ("aligned", full, False),
        ("aligned", full[1:], True),
    ):
        engine.batches.clear()
        body = {**SCORED, "model": model, "prompt": prompt, "logprobs": 1}
        found = choices(client.post("/v1/completions", json=body))
        assert found == choices(here.post("/v1/completions", json=body))
        assert len(engine.batches) == by_engine


@pytest.mark.parametrize("more", [{}, {"echo": True, "logprobs": 1, "max_tokens": 1}])
def test_only_whose_request_it_was_is_told_of_its_error(served, together, more):
    engine, client = served(refuses=9)
    bodies = [{**ASKED, "model": "aligned", "prompt": [5, n], **more} for n in (7, 8, 9, 10, 11)]
    assert [r.status_code for r in together(client, bodies)] == [200, 200, 400, 200, 200]
    assert len(engine.batches[0]) == 5


def test_an_error_that_may_have_ended_the_engine_is_told_to_those_who_are_steered_alike(
    served, together
):
    engine, client = served(refuses=9, error=ModelError)
    bodies = [
        {**ASKED, "model": model, "prompt": [5, n]}
        for model in ("aligned", "finetuned")
        for n in (7, 8, 9 if model == "finetuned" else 10)
    ]
    found = [reply.status_code for reply in together(client, bodies)]
    assert found[:3] == [200] * 3 and 200 not in found[3:]
    assert [len(batch) for batch in engine.batches] == [6, 3, 3]  # not again and again


def test_a_panic_in_the_engine_is_told_and_the_next_request_is_answered(served, together):
    _, client = served(refuses=9, error=PanicError)
    body = {**ASKED, "model": "aligned", "prompt": [5, 9]}
    assert [reply.status_code for reply in together(client, [body])] == [500]
    body["prompt"] = [5, 8]
    assert [reply.status_code for reply in together(client, [body])] == [200]


def test_an_engine_that_is_gone_is_asked_once(served, together):
    engine, client = served(refuses=9, error=EngineError)
    bodies = [{**ASKED, "model": "aligned", "prompt": [5, n]} for n in (8, 9)]
    assert [reply.status_code for reply in together(client, bodies)] == [500, 500]
    assert len(engine.batches) == 1


@pytest.mark.parametrize("more", [{"max_tokens": 1}, {"echo": True, "logprobs": 1}])
def test_edits_that_meet_no_token_are_an_error_whatever_else_is_in_the_batch(
    here, served, together, more
):
    _, client = served()
    bodies = [
        {**ASKED, "max_tokens": 1, "model": "steered", "prompt": prompt, **more}
        for prompt in ([7], [7, 8])
    ]
    alone = [here.post("/v1/completions", json=body).status_code for body in bodies]
    assert alone == [400, 200]
    scored = "logprobs" in more  # such a text is not even handed on
    found = together(client, bodies, n_texts=1 if scored else 2)
    assert [reply.status_code for reply in found] == alone
    assert "met no token to write" in found[0].json()["error"]["message"]


def test_a_seed_decides_what_is_drawn_and_without_one_no_two_answers_are_the_same(served):
    engine, client = served()
    body = {**ASKED, "prompt": ["what", "what"], "n": 2, "model": "aligned", "temperature": 1.0}
    client.post("/v1/completions", json={**body, "seed": 3})
    client.post("/v1/completions", json=body)
    named, unnamed = ([one.seed for one in batch] for batch in merged(engine.batches))
    assert sorted(named) == [3, 3, 4, 4]
    assert len(set(unnamed)) == 4


def merged(batches):
    """Of batches of two requests with four answers each, however they were cut."""
    flat = [one for batch in batches for one in batch]
    return flat[:4], flat[4:]
