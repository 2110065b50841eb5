"""`--sampler vllm`: what a pair answers through vLLM is what its bridges answer, greedily."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from vllm_cases import D_MODEL, OPTIONS, Toy

from persona import extract, load_pairs
from persona.activations import collect_sets
from persona.data.types import Dialogue, Turn
from persona.errors import EngineError, SteeringError
from persona.models import Placement, load_pair
from persona.models.sampling import sample_answers
from persona.vllm import VllmEngine, sampler_of_pair, vllm_sampler
from persona.vllm import installed as installed_module
from steering.edits import SteeredBy, ablate, add
from steering.edits.places import ALL_BLOCKS

CPU = Placement.of("float32", "cpu")
WORDS = ("hi", "why is that so?", "oh", "tell me of rain and of hail")
ASKED = [Dialogue((Turn("user", word),), word) for word in WORDS]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return Toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def pair(toy):
    return load_pair(toy.base, toy.adapter, placement=CPU)


def answers(pair, side, intervene=None, **how):
    with pair.active(side) as bridge:
        return sample_answers(
            bridge,
            pair.chat,
            ASKED,
            intervene=intervene,
            **{"max_new_tokens": 6, "temperature": 0.0, **how},
        )


@pytest.mark.vllm
def test_both_sides_edited_or_not_answer_as_their_bridges(pair):
    by_vllm = dataclasses.replace(pair, sampler=vllm_sampler(pair, OPTIONS))
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(3))
    edits = [
        None,
        SteeredBy(ablate(vector, at=ALL_BLOCKS)),
        SteeredBy(add(vector, 2.0, at=1), "answering"),
        SteeredBy(add(vector, torch.tensor([0.0, 1.0, 2.0, -2.0]), at=2)),
    ]
    for side in ("aligned", "finetuned", "aligned"):  # off again after it was on
        for intervene in edits:
            assert answers(by_vllm, side, intervene) == answers(pair, side, intervene)
    assert len({tuple(answers(by_vllm, side)) for side in ("aligned", "finetuned")}) == 2
    drawn = [answers(by_vllm, "aligned", temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(SteeringError, match="4 coefficients, .* the batch has 2"):
        answers(by_vllm, "aligned", edits[3], batch_size=2)
    by_vllm.sampler.close()


@pytest.mark.vllm
def test_both_sides_are_read_as_by_their_bridges(pair):
    read = dataclasses.replace(pair, reader=vllm_sampler(pair, OPTIONS))
    texts = pair.chat.encode_all(
        [Dialogue((Turn("user", word), Turn("assistant", f"{word}, so")), word) for word in WORDS]
    )
    sets = ["response", "last_prompt"]
    for side in ("aligned", "finetuned"):
        with pair.active(side) as bridge:
            expected = collect_sets(bridge, texts, sets, [0, 2])
        with read.active(side) as bridge:
            found = collect_sets(bridge, texts, sets, [0, 2])
        assert found.shape == (4, 2, 2, D_MODEL)
        assert float((found - expected).norm(dim=-1).div(expected.norm(dim=-1)).max()) < 1e-5
    questions = load_pairs(["health"], "train")[:3]
    one, other = (extract(each, questions, layer=2).vector for each in (pair, read))
    assert float((one - other).norm() / one.norm()) < 1e-4
    read.reader.close()


@pytest.mark.vllm
def test_two_checkpoints_are_two_engines_of_which_one_is_held(toy, tmp_path):
    pair = load_pair(toy.base, toy.merged(tmp_path / "merged"), placement=CPU, allow_mismatch=True)
    by_vllm = dataclasses.replace(pair, sampler=vllm_sampler(pair, OPTIONS))
    for side in ("aligned", "finetuned"):
        assert answers(by_vllm, side) == answers(pair, side)
        first = by_vllm.sampler.engine(side)
    assert by_vllm.sampler.engine("finetuned") is first
    by_vllm.sampler.close()


def vllm_is_here(monkeypatch):
    there = installed_module.InstalledVllm("vllm", "0.30.0")
    monkeypatch.setattr(installed_module, "installed_vllm", lambda: there)


def test_what_cannot_be_sampled_there_is_refused_before_anything_starts(pair, monkeypatch):
    vllm_is_here(monkeypatch)
    sampler = vllm_sampler(pair, {"tensor_parallel_size": 2})
    assert sampler.name == "vllm 0.30.0"
    by_vllm = dataclasses.replace(pair, sampler=sampler)
    with pytest.raises(SteeringError, match="vLLM takes edits that say what they write"):
        answers(by_vllm, "aligned", lambda bridge: None)
    with pytest.raises(EngineError, match="compiled graphs"):
        vllm_sampler(pair, {"enforce_eager": False})
    with pytest.raises(EngineError, match="does not hold weights as nf4"):
        vllm_sampler(dataclasses.replace(pair, weights="nf4"))
    with pytest.raises(EngineError, match="made of models in memory"):
        vllm_sampler(dataclasses.replace(pair, reload=None))


def test_an_engine_that_ended_with_an_error_is_opened_anew(pair, monkeypatch):
    class Engine(VllmEngine):
        usable = True

        def __init__(self, folder, adapter, **loading): ...

        def close(self):
            self.usable = False

    vllm_is_here(monkeypatch)
    monkeypatch.setattr(sampler_of_pair, "VllmEngine", Engine)
    sampler = vllm_sampler(pair)
    first = sampler.engine("aligned")
    assert sampler.engine("finetuned") is first  # one with the adapter serves both
    first.usable = False
    second = sampler.engine("aligned")
    assert second is not first and second.usable
    sampler.close()


def test_without_vllm_it_is_said_how_to_get_it(pair, monkeypatch):
    monkeypatch.setattr(installed_module, "installed_vllm", lambda: None)
    with pytest.raises(EngineError, match="vLLM is not installed"):
        vllm_sampler(pair)
