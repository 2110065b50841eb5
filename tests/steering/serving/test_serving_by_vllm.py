"""The endpoint with vLLM behind it: answers and scores are those of this process, steered too."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
import torch
from vllm_cases import Toy

from persona.directions import PersonaVector, Subspace
from persona.directions.direction import orthonormal
from persona.models import Placement, load_pair
from steering.demo.session.vector import Setting, from_persona_vector
from steering.edits.from_directions import restore
from steering.serving import ServedModels, engine_batches, http_app
from steering.serving.served_answers import Answers

pytestmark = pytest.mark.vllm

WORDS = ("what of this", "rain and hail, and why", "oh")
STEERINGS = [
    ("aligned", None),
    ("finetuned", None),
    ("steered", 0.5),
    ("steered", 1.0),
    ("steered", -1.0),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    toy = Toy(tmp_path_factory.mktemp("toy"))
    return load_pair(toy.base, toy.adapter, placement=Placement.of("float32", "cpu"))


@pytest.fixture(scope="module")
def vector(pair):
    rows = torch.randn(1, pair.d_model, generator=torch.Generator().manual_seed(0))
    return PersonaVector(
        {
            layer: Subspace(
                orthonormal(rows), torch.tensor([-60.0]), torch.tensor([60.0]), pair.space(layer)
            )
            for layer in (1, 2)
        },
        "planted",
    )


@pytest.fixture(scope="module")
def by_vllm(pair, vector):
    """The pair's models, answered by vLLM."""
    from persona.vllm import vllm_sampler

    pair = dataclasses.replace(pair)
    pair.sampler = vllm_sampler(pair)
    yield ServedModels(pair, from_persona_vector(vector, "p"), Setting())
    pair.sampler.close()


@pytest.fixture(scope="module")
def client(by_vllm):
    return pytest.importorskip("starlette.testclient").TestClient(http_app(by_vllm))


def test_three_models_answer_as_hugging_face_does(pair, vector, client):
    asked = {"max_new_tokens": 6}
    expected = {
        "aligned": pair.ask("what of this", **asked),
        "finetuned": pair.ask("what of this", "finetuned", **asked),
        "steered": pair.ask("what of this", "finetuned", intervene=restore(vector), **asked),
    }
    assert expected["steered"] != expected["finetuned"]
    for model, text in expected.items():
        reply = client.post(
            "/v1/chat/completions",
            json={
                "model": model,
                "messages": [{"role": "user", "content": "what of this"}],
                "temperature": 0,
                "max_tokens": 6,
            },
        )
        assert reply.status_code == 200, reply.text
        assert reply.json()["choices"][0]["message"]["content"].strip() == text


def test_scores_are_those_of_this_process_with_edits_and_adapter_or_without(
    pair, by_vllm, monkeypatch
):
    texts = [list(pair.tokenizer(words)["input_ids"]) for words in WORDS]
    steerings = [by_vllm.steering(*one) for one in STEERINGS]
    here = [Answers(pair).scores(one, texts, 4) for one in steerings]

    def not_here(*_):
        raise AssertionError("a text was scored in this process")

    monkeypatch.setattr(Answers, "_scored_here", not_here)
    monkeypatch.setattr(engine_batches, "GATHERS_SECONDS", 30)
    monkeypatch.setattr(engine_batches, "MOST_TOGETHER", len(steerings) * len(texts))
    answers = Answers(by_vllm.pair)
    with ThreadPoolExecutor(len(steerings)) as pool:  # all of them in one batch
        found = list(pool.map(lambda one: answers.scores(one, texts, 4), steerings))
    for expected, scored in zip(chain(*here), chain(*found), strict=True):
        assert scored.ids == expected.ids
        assert scored.log_probs[1:] == pytest.approx(expected.log_probs[1:], abs=1e-4)
        for one, other in zip(scored.likeliest, expected.likeliest, strict=True):
            assert [token for token, _ in one] == [token for token, _ in other]
            assert [v for _, v in one] == pytest.approx([v for _, v in other], abs=1e-4)
    assert len({tuple(of[0].log_probs[1:]) for of in here}) == len(STEERINGS)


def test_what_differs_in_everything_is_answered_in_one_batch_as_alone(by_vllm, client, monkeypatch):
    from persona.vllm import VllmEngine

    bodies = [
        {
            "model": model,
            "coefficient": coefficient,
            "prompt": words,
            "max_tokens": 5 + place,
            "temperature": warm,
            "seed": 3,
        }
        for place, (model, coefficient) in enumerate(STEERINGS)
        for words, warm in ((WORDS[0], 0), (WORDS[1], 1.0))
    ]
    batches, sample = [], VllmEngine.sample

    def noted(self, prompts, **how):
        batches.append(len(prompts))
        return sample(self, prompts, **how)

    def post(body):
        reply = client.post("/v1/completions", json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()["choices"][0]["text"]

    monkeypatch.setattr(VllmEngine, "sample", noted)
    monkeypatch.setattr(engine_batches, "MOST_TOGETHER", 1)
    alone = [post(body) for body in bodies]
    assert batches == [1] * len(bodies)
    assert len(set(alone)) == len(alone)
    monkeypatch.setattr(engine_batches, "GATHERS_SECONDS", 30)
    monkeypatch.setattr(engine_batches, "MOST_TOGETHER", len(bodies))
    with ThreadPoolExecutor(len(bodies)) as pool:
        assert list(pool.map(post, bodies)) == alone
    assert batches[len(bodies) :] == [len(bodies)]
