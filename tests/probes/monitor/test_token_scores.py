"""Scores along a conversation and while writing are those of the residual stream itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from persona.activations import collect_at
from persona.data.types import Dialogue, Turn
from persona.directions import Direction
from persona.errors import DataError, ModelError, SpaceMismatchError
from probes.estimators import LogisticProbe, MultiLayerProbe
from probes.fitting import FittedProbe
from probes.monitor import monitoring, reader_of, score_tokens

LAYER = 2
CONVERSATION = Dialogue(
    (
        Turn("system", "be kind"),
        Turn("user", "why?"),
        Turn("assistant", "because é"),
        Turn("user", "why?"),
        Turn("assistant", "go away"),
    )
)


@pytest.fixture(scope="module")
def direction(tiny_pair):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    return Direction(vector, tiny_pair.space(LAYER), "random")


@pytest.fixture(scope="module")
def probe(tiny_pair):
    rng = np.random.default_rng(0)
    fitted = LogisticProbe().fit(rng.standard_normal((40, 32)), np.arange(40) % 2)
    space = tiny_pair.space(LAYER)
    return FittedProbe(fitted, (fitted.direction(space),), (space,), "response", "finetuned")


def test_every_token_has_its_role_and_its_text(tiny_pair, direction):
    table = score_tokens(tiny_pair, CONVERSATION, direction)
    assert table["position"].tolist() == list(range(len(table)))
    said = table.groupby("turn")["token"].sum()
    assert said[[0, 1, 2, 3, 4]].tolist() == [turn.content for turn in CONVERSATION.turns]
    assert "".join(table["token"]) == tiny_pair.chat.render(CONVERSATION)
    roles = table.drop_duplicates("turn").set_index("turn")["role"]
    assert roles[-1] == "template"
    assert roles[[0, 1, 2]].tolist() == ["system", "user", "assistant"]


def test_a_turn_of_one_letter_is_not_found_in_the_template(tiny_pair, direction):
    turns = (Turn("system", ""), Turn("user", "s"), Turn("assistant", "a"), Turn("user", "e"))
    for conversation in (Dialogue(turns), Dialogue((*turns, Turn("assistant", "t")))):
        table = score_tokens(tiny_pair, conversation, direction)
        for number, turn in enumerate(conversation.turns):
            [place] = table.index[table["turn"] == number] if turn.content else [None]
            if place is not None:
                assert table["token"][place] == turn.content
                assert table["token"][place - 1] == f"<|{turn.role}|>"


def test_projection_and_score_are_those_of_the_residual_stream(tiny_pair, direction, probe):
    encoded = tiny_pair.chat.encode(CONVERSATION)
    with tiny_pair.active("finetuned") as bridge:
        resid = collect_at(bridge, [encoded], [list(range(len(encoded)))], [LAYER])[0, :, 0]
    by_direction = score_tokens(tiny_pair, CONVERSATION, direction)
    expected = (resid @ direction.unit).numpy()[1:]
    np.testing.assert_allclose(by_direction["projection"][1:], expected, atol=1e-4)
    np.testing.assert_array_equal(by_direction["score"], by_direction["projection"])
    by_probe = score_tokens(tiny_pair, CONVERSATION, probe)
    np.testing.assert_allclose(
        by_probe["score"][1:], probe.probe.decision_function(resid.numpy())[1:], atol=1e-4
    )
    assert by_probe["score"].isna().tolist() == [True] + [False] * (len(encoded) - 1)
    aligned = score_tokens(tiny_pair, CONVERSATION, direction, side="aligned")
    assert not np.allclose(aligned["score"][1:], by_direction["score"][1:], atol=1e-3)


def generate(bridge, ids, n):
    return bridge.generate(
        ids, max_new_tokens=n, do_sample=False, eos_token_id=-1, return_type="tokens", verbose=False
    )


def test_one_score_is_recorded_for_each_decoded_token_and_none_is_changed(tiny_pair, probe):
    prompt = tiny_pair.chat.encode(Dialogue(CONVERSATION.turns[:2]))
    ids = torch.tensor([prompt.ids])
    with tiny_pair.active("finetuned") as bridge:
        plain = generate(bridge, ids, 5)
        with monitoring(bridge, probe) as recording:
            watched = generate(bridge, ids, 5)
        resid = {}

        def keep(x):
            resid["all"] = x

        from persona.models import hooked, resid_post

        with hooked(bridge, [(resid_post(LAYER), keep)]):
            bridge(watched[:, :-1], return_type=None, use_cache=False)
    assert torch.equal(plain, watched)
    assert len(recording.scores) == 5
    from_each = resid["all"][0, len(prompt) - 1 :].numpy()
    np.testing.assert_allclose(
        np.ravel(recording.scores), probe.probe.decision_function(from_each), atol=1e-3
    )


def test_a_batch_has_a_score_a_row(tiny_pair, direction):
    with tiny_pair.active("finetuned") as bridge:
        with monitoring(bridge, direction) as recording:
            generate(bridge, torch.tensor([[0, 7, 8], [0, 9, 10]]), 3)
    assert np.shape(recording.scores) == (3, 2)
    assert recording.scores == recording.projections


def test_nothing_run_is_an_error_and_the_hook_is_gone(tiny_pair, direction):
    with tiny_pair.active("aligned") as bridge:
        with pytest.raises(ModelError, match="was not run while monitoring"):
            with monitoring(bridge, direction):
                pass
        with monitoring(bridge, direction) as recording:
            generate(bridge, torch.tensor([[0, 7, 8]]), 1)
        generate(bridge, torch.tensor([[0, 7, 8]]), 4)
    assert len(recording.scores) == 1


def test_probes_of_other_models_layers_or_kinds_are_refused(tiny_pair, direction, probe):
    other = dataclasses.replace(tiny_pair, revisions={"aligned": "x", "finetuned": "y"})
    for monitored in (direction, probe):
        with pytest.raises(SpaceMismatchError, match="revision differs"):
            score_tokens(other, CONVERSATION, monitored)
        with pytest.raises(SpaceMismatchError, match="layer 1 was asked for"):
            score_tokens(tiny_pair, CONVERSATION, monitored, layer=1)
    with pytest.raises(DataError, match="pass layer"):
        reader_of(probe.probe)
    with pytest.raises(DataError, match="LogisticProbe has no single raw-space coefficient"):
        reader_of(LogisticProbe(), 1)
    layers = MultiLayerProbe().fit(np.eye(4).reshape(4, 2, 2), [0, 1, 0, 1])
    with pytest.raises(DataError, match="MultiLayerProbe has no single"):
        reader_of(layers, 1)
    narrow = LogisticProbe().fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(SpaceMismatchError, match="d_model=4 but this model has d_model=32"):
        score_tokens(tiny_pair, CONVERSATION, narrow, layer=1)


def test_a_set_is_read_in_one_pass_as_each_alone(tiny_pair, direction, probe):
    other = Direction(direction.vector.flip(0), tiny_pair.space(1), "other")
    several = {"evil": direction, "rude": other, "probe": probe}
    table = score_tokens(tiny_pair, CONVERSATION, several)
    for name, one in several.items():
        alone = score_tokens(tiny_pair, CONVERSATION, one)
        mine = table[table["trait"] == name].drop(columns="trait").reset_index(drop=True)
        pd.testing.assert_frame_equal(mine, alone)
    ids = torch.tensor([[0, 7, 8]])
    with (
        tiny_pair.active("finetuned") as model,
        monitoring(model, several) as found,
        monitoring(model, direction) as alone,
    ):
        model(ids)
    assert set(found) == set(several)
    assert found["evil"].scores == alone.scores
    assert found["rude"].scores != alone.scores


def test_an_empty_set_is_one_line(tiny_pair):
    with pytest.raises(DataError, match="nothing to monitor"):
        score_tokens(tiny_pair, CONVERSATION, {})
