"""Writers: the model of the run, and an endpoint whose texts are kept as they come."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from persona.behaviour.judging.chat_endpoint import ChatEndpoint
from persona.errors import JudgeError
from persona.traits.writers import EndpointWriter, ModelWriter, writer_named


class Endpoint(ChatEndpoint):
    """Answers so many requests and then dies."""

    def __init__(self, lives=100):
        self.address, self.model = "http://here", "m"
        self.lives, self.asked = lives, []

    def ask(self, prompt, **request):
        if len(self.asked) >= self.lives:
            raise JudgeError("the endpoint http://here cannot be reached")
        self.asked.append((prompt, request["seed"]))
        message = SimpleNamespace(content=f" {prompt}!{request['seed']} ")
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])

    def close(self):
        pass


PROMPTS = ["a", "b", "c", "d"]


def test_an_endpoint_that_dies_half_way_is_asked_for_the_rest_alone(tmp_path):
    kept = tmp_path / "out" / "written.jsonl"
    dying = Endpoint(lives=2)
    with pytest.raises(JudgeError, match="cannot be reached"):
        EndpointWriter("m", kept=kept, at=dying, concurrency=1).write(
            PROMPTS, max_new_tokens=9, seed=5
        )
    kept.write_text(kept.read_text() + '\n{"key": "cut o')  # killed while it wrote
    fresh = Endpoint()
    writer = EndpointWriter("m", kept=kept, at=fresh, concurrency=1)
    assert writer.write(PROMPTS, max_new_tokens=9, seed=5) == ["a!5", "b!6", "c!7", "d!8"]
    assert [prompt for prompt, _ in fresh.asked] == ["c", "d"]
    assert writer.write(PROMPTS, max_new_tokens=9, seed=5) == ["a!5", "b!6", "c!7", "d!8"]
    assert len(fresh.asked) == 2
    assert writer.write(["a"], max_new_tokens=9, seed=6) == ["a!6"]


def test_an_answer_of_another_form_is_said(tmp_path):
    endpoint = Endpoint()
    endpoint.ask = lambda *_, **__: SimpleNamespace(choices=[])
    endpoint.other_form = lambda error: JudgeError(f"not so: {type(error).__name__}")
    writer = EndpointWriter("m", kept=tmp_path / "w.jsonl", at=endpoint)
    with pytest.raises(JudgeError, match="not so: IndexError"):
        writer.write(["a"], max_new_tokens=9, seed=0)


def test_the_model_of_the_run_writes_the_same_by_the_same_seed(tiny_pair):
    writer = ModelWriter(tiny_pair)
    first = writer.write(PROMPTS, max_new_tokens=6, seed=1)
    assert first == writer.write(PROMPTS, max_new_tokens=6, seed=1)
    assert first != writer.write(PROMPTS, max_new_tokens=6, seed=2)
    assert len(first) == 4


def test_a_writer_goes_by_name(tmp_path, tiny_pair, monkeypatch):
    def fail():
        raise AssertionError("the model was loaded")

    assert writer_named("none", fail, tmp_path) is None
    assert writer_named("model", lambda: tiny_pair, tmp_path).name == tiny_pair.names["aligned"]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(JudgeError, match="OPENAI_API_KEY"):
        writer_named("openai:m", fail, tmp_path)
    with pytest.raises(JudgeError, match="unknown writer 'openai'; give model, openai:MODEL"):
        writer_named("openai", fail, tmp_path)
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == "[]"
