"""An exploration reads what the hooks read, and runs the model only where it must."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from demo_cases import hook_count, planted_vector

from persona.data.types import Dialogue, Turn
from persona.directions import Direction
from persona.errors import DataError, SpaceMismatchError, SteeringError
from persona.models.hooks import hooked, resid_post
from steering import steer
from steering.demo import Choice, Exploration, edits_of, from_persona_vector
from steering.demo.session.vector import DemoVector

CHOICE = Choice("Is it safe?", "planted", 1, "No. Never.", "add", 0.7)


@pytest.fixture
def exploration(tiny_pair):
    vector = from_persona_vector(planted_vector(tiny_pair, rank=2))
    other = DemoVector(
        {3: Direction(torch.ones(tiny_pair.d_model), tiny_pair.space(3), "ones")}, None, "ones"
    )
    return Exploration(tiny_pair, {"planted": vector, "ones": other})


def textbook(exploration, side, choice):
    """Residuals at the read block and log-probabilities, from one plain pass under `steer`."""
    pair, seen = exploration.pair, []
    turns = (Turn("user", choice.question), Turn("assistant", choice.answer))
    text = pair.chat.encode(Dialogue(turns))
    edits = edits_of(exploration.directions[choice.direction], choice.setting)
    with pair.active(side) as bridge, torch.no_grad(), steer(bridge, edits):
        with hooked(bridge, [(resid_post(choice.layer), lambda x: seen.append(x[0].clone()))]):
            logits = bridge(torch.tensor([text.ids]), return_type="logits")[0]
    return text, seen[-1], logits.log_softmax(-1)


def values(explored, condition):
    table = explored.projections
    return table[table["condition"] == condition].sort_values("position")["value"].to_numpy()


@pytest.mark.parametrize("every_block", [False, True])
@pytest.mark.parametrize("mode", ["restore", "add", "ablate"])
def test_every_reading_is_that_of_one_plain_pass_under_steer(exploration, mode, every_block):
    choice = replace(CHOICE, mode=mode, every_block=every_block, layer=2)
    explored = exploration.read(choice)
    row = exploration.directions["planted"].row(2)
    for side in ("aligned", "finetuned"):
        text, resid, log_probs = textbook(exploration, side, choice)
        found = values(explored, f"{side}_steered")
        np.testing.assert_allclose(found, (resid @ row).numpy(), atol=1e-4)
        start, end = text.response
        assert explored.response == (start, end)
        targets = torch.tensor(text.ids[start:end])[:, None]
        answer = explored.answers.set_index("condition").loc[side]
        expected = log_probs[start - 1 : end - 1].gather(1, targets).mean().item()
        assert answer["after"] == pytest.approx(expected, abs=1e-4)
        shifts = explored.next_tokens[side]
        first = log_probs[start - 1].numpy()
        nearest = np.abs(shifts["after"].to_numpy()[:, None] - first[None]).min(axis=1)
        assert nearest.max() < 1e-4


def test_a_coefficient_of_zero_changes_nothing_and_runs_nothing_more(exploration):
    explored = exploration.read(replace(CHOICE, coefficient=0.0))
    assert exploration.n_passes == 2
    for side in ("aligned", "finetuned"):
        assert (values(explored, side) == values(explored, f"{side}_steered")).all()
    assert (explored.answers["shift"] == 0).all()
    tokens = explored.next_tokens["aligned"]["before"]
    assert tokens.is_monotonic_decreasing
    assert tokens.map(np.exp).sum() > len(tokens) / exploration.pair.tokenizer.vocab_size


def test_the_unsteered_models_run_once_for_all_blocks_and_directions(exploration):
    for direction, layer in (("planted", 1), ("planted", 2), ("ones", 3)):
        exploration.read(replace(CHOICE, direction=direction, layer=layer, coefficient=0.0))
    assert exploration.n_passes == 2


def test_a_setting_that_was_read_before_runs_no_pass(exploration):
    first = exploration.read(CHOICE)
    exploration.read(replace(CHOICE, coefficient=-1.0))
    assert exploration.n_passes == 6
    again = exploration.read(CHOICE)
    assert exploration.n_passes == 6
    assert first.projections.equals(again.projections)
    assert first.answers.equals(again.answers)


def test_an_answer_with_the_same_tokens_elsewhere_is_not_taken_for_another(exploration):
    without = exploration.read(replace(CHOICE, answer=""))
    assert without.answers.empty
    assert without.response[0] == without.response[1]
    assert not exploration.read(CHOICE).answers.empty


def test_a_direction_that_is_added_moves_the_projection_by_its_length(exploration):
    choice = replace(CHOICE, direction="ones", layer=3, coefficient=2.0)
    explored = exploration.read(choice)
    moved = values(explored, "aligned_steered") - values(explored, "aligned")
    norm = exploration.directions["ones"].directions[3].norm
    assert moved[0] == 0  # the first token is never written
    np.testing.assert_allclose(moved[1:], 2.0 * norm, rtol=1e-4)


def test_next_tokens_are_those_whose_probability_changes_most(exploration):
    explored = exploration.read(CHOICE)
    table = explored.next_tokens["finetuned"]
    change = np.exp(table["after"]) - np.exp(table["before"])
    assert (change.iloc[:8] > 0).all()
    assert (change.iloc[8:] < 0).all()
    assert (np.diff(change) <= 1e-6).all()


def test_levels_are_the_models_means_where_they_are_known(exploration):
    levels = exploration.read(CHOICE).levels
    assert levels["aligned"] < levels["finetuned"]
    assert exploration.read(replace(CHOICE, direction="ones", layer=3)).levels == {}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"question": " \n"}, DataError, "question is empty"),
        ({"question": "x" * 900}, DataError, "the model reads 512"),
        ({"direction": "nobody"}, SteeringError, "there are planted, ones"),
        ({"layer": 3}, SteeringError, r"has no block 3; it has \[1, 2\]"),
        ({"direction": "ones", "layer": 3, "mode": "restore"}, SteeringError, "restore needs"),
        ({"coefficient": float("nan")}, SteeringError, "finite"),
    ],
)
def test_a_choice_that_is_not_possible_is_refused_before_the_model_runs(
    exploration, changes, error, words
):
    with pytest.raises(error, match=words):
        exploration.read(replace(CHOICE, **changes))
    assert exploration.n_passes == 0


def test_a_direction_of_another_model_is_refused(tiny_pair):
    space = replace(tiny_pair.space(1), model="another")
    vector = DemoVector({1: Direction(torch.ones(tiny_pair.d_model), space, "m")}, None, "m")
    with pytest.raises(SpaceMismatchError, match="m: model differs"):
        Exploration(tiny_pair, {"m": vector})


def test_no_direction_is_refused(tiny_pair):
    with pytest.raises(SteeringError, match="nothing to explore"):
        Exploration(tiny_pair, {})


def test_the_models_are_left_without_hooks(exploration):
    before = hook_count(exploration.pair)
    exploration.read(CHOICE)
    assert hook_count(exploration.pair) == before


def test_what_is_remembered_stays_bounded(exploration, monkeypatch):
    monkeypatch.setattr("steering.demo.notebook.exploration.N_TEXTS", 2)
    monkeypatch.setattr("steering.demo.notebook.exploration.N_PASSES", 3)
    for i in range(5):
        exploration.read(replace(CHOICE, question=f"Is it {i}?"))
    assert len(exploration._unsteered) == 8
    assert len(exploration._steered) == 3
