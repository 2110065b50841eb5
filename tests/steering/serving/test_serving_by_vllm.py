"""The endpoint with vLLM behind it: greedy answers are those of `generate`, steered ones too."""

from __future__ import annotations

import pytest
import torch
from vllm_cases import Toy

from persona.directions import PersonaVector, Subspace
from persona.directions.direction import orthonormal
from persona.models import Placement, load_pair
from steering.demo.session.vector import Setting, from_persona_vector
from steering.edits.from_directions import restore
from steering.serving import ServedModels, http_app

pytestmark = pytest.mark.vllm


def test_three_models_answer_as_hugging_face_does(tmp_path):
    from persona.vllm import vllm_sampler

    test_client = pytest.importorskip("starlette.testclient").TestClient
    toy = Toy(tmp_path)
    pair = load_pair(toy.base, toy.adapter, placement=Placement.of("float32", "cpu"))
    rows = torch.randn(1, pair.d_model, generator=torch.Generator().manual_seed(0))
    vector = PersonaVector(
        {
            layer: Subspace(
                orthonormal(rows), torch.tensor([-60.0]), torch.tensor([60.0]), pair.space(layer)
            )
            for layer in (1, 2)
        },
        "planted",
    )
    asked = {"max_new_tokens": 6}
    expected = {
        "aligned": pair.ask("what of this", **asked),
        "finetuned": pair.ask("what of this", "finetuned", **asked),
        "steered": pair.ask("what of this", "finetuned", intervene=restore(vector), **asked),
    }
    assert expected["steered"] != expected["finetuned"]
    pair.sampler = vllm_sampler(pair)
    client = test_client(http_app(ServedModels(pair, from_persona_vector(vector, "p"), Setting())))
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
    pair.sampler.close()
