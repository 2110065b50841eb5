"""Blocks that do not go on from the stream they are given are told by handing it on unchanged."""

from functools import partial

import pytest
import torch
from torch import nn

from persona.vllm.block_sites import block_sites
from persona.vllm.running_pass import Span
from persona.vllm.worker_room import HANDED_ON, WorkerRoom

H = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Sum(nn.Module):
    """h, residual -> (update, the stream before it): the next block adds the two up."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.mlp = nn.Linear(4, 4)

    def forward(self, positions, hidden_states, residual):
        stream = hidden_states if residual is None else hidden_states + residual
        return self.mlp(stream), stream


class Whole(Sum):
    """h, residual -> (the whole stream, the one before it), which the next block never reads.

    The shapes are those of `Sum`; Cohere's blocks in vLLM are such.
    """

    def forward(self, positions, hidden_states, residual):
        return hidden_states + self.mlp(hidden_states), hidden_states


class Model(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layers = nn.ModuleList(kind(seed) for seed in range(3))
        self.adds_up = kind is Sum

    def forward(self, h):
        residual = None
        for block in self.layers:
            h, residual = block(None, h, residual)
        return h + residual if self.adds_up else h


def room_of(model):
    """A worker's room around a model, without vLLM."""
    room = object.__new__(WorkerRoom)
    room.n_layers, room.sites = 3, block_sites(model, 3)
    room.sets, room.reading, room.scoring = {}, None, None
    room.probed, room.ends, room.hands_on = None, [], False
    room.spans = [Span(0, len(H), 0, len(H), {})]
    model.register_forward_hook(room._end)
    for name, site in room.sites.items():
        site.register(partial(room._at, name))
    return room


@torch.no_grad()
def apart_of(kind):
    model = Model(kind)
    room = room_of(model)
    room.probe(True)
    for rewrite in (False, True):
        room.hand_on(rewrite)
        model(H)
    found = room.probe(False)
    assert not room.hands_on and room.ends == []
    return found


@pytest.mark.parametrize(("kind", "goes_on"), [(Sum, True), (Whole, False)])
def test_a_stale_residual_is_told_by_what_comes_of_the_stream_handed_on(kind, goes_on):
    found = apart_of(kind)
    assert set(found) == {HANDED_ON}
    assert (found[HANDED_ON] < 1e-6) is goes_on


@torch.no_grad()
def test_one_pass_alone_tells_how_the_parts_add_up():
    model = Model(Sum)
    room = room_of(model)
    room.probe(True)
    model(H)
    found = room.probe(False)
    assert HANDED_ON not in found and found["blocks.1.hook_resid_pre"] < 1e-6
