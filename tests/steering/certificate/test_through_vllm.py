"""The certificate of vLLM holds on a toy model; each planted fault fails the check it should."""

from __future__ import annotations

import math

import pytest
import torch
from vllm_cases import Toy

from persona.errors import SteeringError
from persona.models import Placement, load_pair
from persona.models.alone import load_alone
from persona.vllm import running_pass, worker_room
from steering.certificate import certify_through_vllm
from steering.certificate.certificate import Certificate
from steering.certificate.runs import Texts, log_probs_of, watching_residuals

CPU = Placement.of("float32", "cpu")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return Toy(tmp_path_factory.mktemp("toy"))


def failed(certificate: Certificate) -> list[str]:
    return [check.check for check in certificate.checks if not check.passed]


@pytest.mark.vllm
def test_a_toy_model_and_its_adapter_pass(toy):
    certificate = certify_through_vllm(load_pair(toy.base, toy.adapter, placement=CPU))
    assert failed(certificate) == [], certificate.table()
    assert certificate.model.endswith("in vllm 0.30.0")
    assert len(certificate.checks) == 16  # chunks, preemption and LoRA among them


def planted(toy) -> list[str]:
    return failed(certify_through_vllm(load_alone(toy.base, placement=CPU)))


BOTH = ("each request alone", "all in one batch, with different edits")


@pytest.mark.vllm
def test_a_hook_at_the_wrong_block_fails_by_tokens_and_hidden_states(toy, monkeypatch):
    true = worker_room.WorkerRoom._at

    def moved(self, name, h):
        layer = int(name.split(".")[1])
        wrong = name.replace(f"blocks.{layer}", f"blocks.{(layer + 1) % 4}")
        editing = self.sets if name.endswith("hook_resid_post") and self.sets else None
        return true(self, wrong if editing else name, h)

    monkeypatch.setattr(worker_room.WorkerRoom, "_at", moved)
    found = planted(toy)
    assert {f"{way}: hidden states are the same" for way in BOTH} <= {*found}
    assert any("answers are Hugging Face's" in check for check in found)


@pytest.mark.vllm
def test_an_edited_first_token_fails(toy, monkeypatch):
    from steering.edits.token_choice import TokenChoice

    monkeypatch.setattr(TokenChoice, "__call__", lambda self, index, *_: index >= 0)
    found = planted(toy)
    assert {f"{way}: the first token is left alone" for way in BOTH} <= {*found}
    assert {f"{way}: every step wrote its tokens" for way in BOTH} <= {*found}


@pytest.mark.vllm
def test_an_unsteered_row_fails_everything_of_its_way(toy, monkeypatch):
    true = worker_room.groups_of

    def forgetful(spans, *rest):
        return true([s for s in spans if s.told["request"] != 2 or len(s) > 1], *rest)

    monkeypatch.setattr(worker_room, "groups_of", forgetful)
    found = planted(toy)
    assert {
        f"{BOTH[1]}: every step wrote its tokens",
        f"{BOTH[1]}: hidden states are the same",
    } <= {*found}


@pytest.mark.vllm
def test_one_block_that_is_a_little_off_fails_by_itself(toy, monkeypatch):
    true = worker_room.WorkerRoom._at
    off = 1 + 5e-5

    def scaled(self, name, h):
        little_off = self.sets and name == "blocks.2.hook_resid_post"
        return true(self, name, h * off if little_off else h)

    monkeypatch.setattr(worker_room.WorkerRoom, "_at", scaled)
    found = planted(toy)
    assert {f"{way}: every block does the same" for way in BOTH} <= {*found}
    assert not any("hidden states" in check or "answers" in check for check in found)


@torch.no_grad()
def test_blocks_that_go_on_from_given_states_are_compared_each_alone(toy):
    model = load_alone(toy.base, placement=CPU)
    ids = torch.arange(3, 11)[None]
    texts = Texts(ids, torch.ones_like(ids))

    def states(model, given=None):
        with watching_residuals(model, given) as seen:
            log_probs_of(model, texts)
        return torch.stack([runs[0][0] for runs in seen])

    with model.active("aligned") as running:
        own = states(running)
        assert states(running, own).equal(own)
        given = own.clone()
        given[1] *= 1.5
        found = states(running, given)
    assert found[:2].equal(own[:2])
    assert not found[2].isclose(own[2], rtol=0.01).all()
    assert found[3].equal(own[3]), (
        "the block behind goes on from what was given, not from what was seen"
    )


def test_it_is_taken_in_float32_alone(toy):
    pair = load_alone(toy.base, placement=Placement.of("bfloat16", "cpu"))
    with pytest.raises(SteeringError, match="taken in float32"):
        certify_through_vllm(pair)


def test_a_run_that_raised_has_measured_infinity():
    from steering.certificate.through_vllm import _apart, _miswritten, _without

    assert _miswritten(None) == math.inf
    assert _without(None, lambda one: True) == 1.0
    assert _apart(torch.ones(1, 2, 3), torch.ones(1, 3, 3)) == math.inf
    assert running_pass.TOLD == "persona"
