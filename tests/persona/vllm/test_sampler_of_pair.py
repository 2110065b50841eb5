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
from persona.models.samplers import AnswerRequest, TextRequest
from persona.models.sampling import sample_answers
from persona.vllm import VllmEngine, Written, sampler_of_pair, vllm_sampler
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


class NotedEngine(VllmEngine):
    """Notes what it is asked, and writes one token to each."""

    usable = True

    def __init__(self, folder, adapter, **loading):
        self.asked = []

    def sample(self, prompts, **how):
        self.asked.append(how)
        return [Written([7], []) for _ in prompts]

    def close(self): ...


def test_requests_of_one_batch_keep_their_own_edits_sides_and_draws(pair, monkeypatch):
    vllm_is_here(monkeypatch)
    monkeypatch.setattr(sampler_of_pair, "VllmEngine", NotedEngine)
    sampler = vllm_sampler(pair)
    vector = torch.ones(D_MODEL)
    one, each = SteeredBy(add(vector, 1.0, at=1)), add(vector, torch.tensor([0.5, 2.0]), at=1)
    asked = [
        AnswerRequest("finetuned", [5, 6], one, 3, frozenset({1}), 0.0, 8),
        AnswerRequest("aligned", [5], None, 4, frozenset(), 1.0, 9),
        AnswerRequest("finetuned", [6], one, 5, frozenset({1}), 0.5, 8),
        AnswerRequest("aligned", [7], each, 3, frozenset(), 0.0, 8),
        AnswerRequest("aligned", [8], each, 3, frozenset(), 0.0, 8),
    ]
    assert sampler.answers(asked, batches=[[4, 3]]) == [[7]] * 5
    [told] = sampler.engine("aligned").asked
    assert told["side"] == [request.side for request in asked]
    assert told["max_new_tokens"] == [3, 4, 5, 3, 3]
    assert told["temperature"] == [0.0, 1.0, 0.5, 0.0, 0.0]
    assert told["seed"] == [8, 9, 8, 8, 8]
    assert told["ends"] == [{1}, set(), {1}, set(), set()]
    first, none, again, *by_row = told["edits"]
    assert none is None and first is again is not by_row[0] is by_row[1]  # one set, applied at once
    assert told["rows"][3:] == [1, 0]
    sampler.close()


def test_two_checkpoints_are_not_asked_for_both_sides_at_once(toy, tmp_path, monkeypatch):
    vllm_is_here(monkeypatch)
    pair = load_pair(toy.base, toy.merged(tmp_path / "merged"), placement=CPU, allow_mismatch=True)
    sampler = vllm_sampler(pair)
    assert not sampler.mixes_sides
    both = [TextRequest(side, [5, 6], None) for side in ("aligned", "finetuned")]
    with pytest.raises(EngineError, match="ask one side of the pair after the other"):
        sampler.scores(both)


def test_an_adapter_in_the_head_is_scored_elsewhere(pair, monkeypatch):
    vllm_is_here(monkeypatch)
    assert all(vllm_sampler(pair).scores_side(side) for side in ("aligned", "finetuned"))
    monkeypatch.setattr(sampler_of_pair, "trains_head", lambda adapter: True)
    sampler = vllm_sampler(pair)
    assert sampler.scores_side("aligned") and not sampler.scores_side("finetuned")


def test_without_vllm_it_is_said_how_to_get_it(pair, monkeypatch):
    monkeypatch.setattr(installed_module, "installed_vllm", lambda: None)
    with pytest.raises(EngineError, match="vLLM is not installed"):
        vllm_sampler(pair)
