"""An engine of a pair answers in place of its bridges, and only while a side is open."""

import dataclasses

import pytest
import torch
from scripted_sampler import ScriptedReader, ScriptedSampler

from persona import extract, load_pairs
from persona.activations import collect_moments, collect_rows
from persona.data.types import Dialogue, Turn
from persona.errors import ModelError
from persona.models import Placement, load_pair
from persona.models.hooks import hooked
from persona.models.samplers import sampler_of
from persona.models.sampling import sample_answers

ASKED = [Dialogue((Turn("user", word),), word) for word in ("a long question", "hi")]


@pytest.fixture
def pair(tiny_llama, tiny_adapter):
    pair = load_pair(tiny_llama, tiny_adapter, placement=Placement.of("float32", "cpu"))
    return dataclasses.replace(pair, sampler=ScriptedSampler(pair.chat, "{side} {n}"))


def test_the_engine_of_a_pair_writes_the_answers_of_the_side_that_is_open(pair):
    lengths = [len(encoded) for encoded in pair.chat.encode_all(ASKED)]
    for side in ("finetuned", "aligned"):
        with pair.active(side) as bridge:
            answers = sample_answers(bridge, pair.chat, ASKED, max_new_tokens=9, seed=3)
        assert answers == [f"{side} {n}" for n in lengths]  # cut where the turn ends
    assert pair.ask("hi") == f"aligned {lengths[1]}"
    told = pair.sampler.told[0]
    asked = told["requests"]
    assert [(one.side, one.room) for one in asked] == [("finetuned", 9)] * 2
    assert [one.seed for one in asked] == [3_000_009, 3_000_010]  # numbers of its own for each
    assert told["batches"] == [[1, 0]]  # the shorter one first, as rows are counted
    assert all(pair.chat.tokenizer.eos_token_id in one.ends for one in asked)


def test_hooks_that_the_engine_would_not_run_are_an_error(pair):
    with pair.active("finetuned") as bridge:
        with (
            hooked(bridge, [("blocks.0.hook_resid_post", lambda resid: resid * 0)]),
            pytest.raises(ModelError, match="scripted, which writes its answers, does not run"),
        ):
            sample_answers(bridge, pair.chat, ASKED)
        assert len(sample_answers(bridge, pair.chat, ASKED)) == 2  # they are closed again


def test_an_engine_reads_what_is_pooled_of_the_side_that_is_open(tiny_llama, tiny_adapter):
    pair = load_pair(tiny_llama, tiny_adapter, placement=Placement.of("float32", "cpu"))
    questions = load_pairs(["health"], "train")[:3]
    expected = extract(pair, questions, layer=1)
    reader = ScriptedReader(pair)
    read = dataclasses.replace(pair, reader=reader)
    assert torch.equal(extract(read, questions, layer=1).vector, expected.vector)
    assert set(reader.read) == {"aligned", "finetuned"}
    texts = pair.chat.encode_all([question.good_dialogue for question in questions])
    with read.active("finetuned") as bridge:
        moments = collect_moments(bridge, texts, [0, 1])
        with (
            hooked(bridge, [("blocks.0.hook_resid_post", lambda resid: resid * 0)]),
            pytest.raises(ModelError, match="scripted, which reads it, does not run them"),
        ):
            collect_rows(bridge, texts, [1])
    with pair.active("finetuned") as bridge:
        torch.testing.assert_close(
            moments.mean_LD, collect_moments(bridge, texts, [0, 1]).mean_LD, rtol=0, atol=1e-6
        )


def test_outside_an_open_side_and_without_an_engine_the_bridge_answers_itself(pair):
    with pair.active("aligned") as bridge:
        assert sampler_of(bridge) == (pair.sampler, "aligned")
    assert sampler_of(bridge) is None
    with dataclasses.replace(pair, sampler=None).active("aligned") as bridge:
        assert sampler_of(bridge) is None
        [answer] = sample_answers(bridge, pair.chat, ASKED[:1], max_new_tokens=2)
    assert not answer.startswith("aligned")
