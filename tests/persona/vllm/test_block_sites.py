"""Blocks of vLLM hand on (update, residual) or the stream; what they are given back adds up."""

import pytest
import torch
from torch import nn

from persona.errors import ModelError
from persona.vllm.block_sites import block_sites


class Block(nn.Module):
    """h, residual -> (update, the stream before it), as vLLM's own blocks."""

    def __init__(self, made=None):
        super().__init__()
        self.mlp, self.made = nn.Identity(), made

    def forward(self, positions, hidden_states, residual):
        stream = hidden_states if residual is None else hidden_states + residual
        return (self.mlp(stream), stream) if self.made is None else self.made(stream)


class Model(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.layers = nn.ModuleList(blocks)

    def forward(self, h):
        residual = None
        for block in self.layers:
            h, residual = block(None, h, residual)
        return h + residual


H = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def test_the_stream_is_the_sum_and_an_edit_goes_on_whole():
    model = Model(Block(), Block())
    sites = block_sites(model, 2)
    seen = {}
    for name, site in sites.items():
        site.register(lambda h, name=name: seen.__setitem__(name, h.clone()))
    assert torch.equal(model(H), 4 * H)
    assert torch.equal(seen["blocks.0.hook_resid_pre"], H)
    assert torch.equal(seen["blocks.0.hook_mlp_out"], H)
    assert torch.equal(seen["blocks.0.hook_resid_post"], 2 * H)
    assert torch.equal(seen["blocks.1.hook_resid_pre"], 2 * H)
    sites["blocks.0.hook_resid_post"].register(lambda h: h + 1)
    assert torch.equal(model(H), 2 * (2 * H + 1))
    sites["blocks.1.hook_resid_pre"].register(lambda h: h * 0)
    assert torch.equal(model(H), 0 * H)


def test_a_stream_that_is_handed_on_alone_is_edited_too():
    model = Model(Block(lambda stream: stream[None]))
    block_sites(model, 1)["blocks.0.hook_resid_post"].register(lambda h: h + 1)
    assert torch.equal(model.layers[0](None, H, None), H[None] + 1)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda h: {"h": h}, "returns a dict"),
        (lambda h: (h, h, h), "returns a tuple of Tensor, Tensor, Tensor"),
        (lambda h: (h, h[:1]), "returns a tuple of Tensor, Tensor"),
    ],
)
def test_a_block_that_returns_something_else_is_refused(made, told):
    model = Model(Block(made))
    block_sites(model, 1)["blocks.0.hook_resid_post"].register(lambda h: None)
    with pytest.raises(ModelError, match=told):
        model.layers[0](None, H, None)


def test_a_model_without_a_list_of_its_blocks_is_refused():
    with pytest.raises(ModelError, match="keeps its 3 blocks in none of the lists"):
        block_sites(Model(Block()), 3)


def test_blocks_of_another_stage_are_passed_over():
    class PPMissingLayer(nn.Identity): ...

    assert {name[:8] for name in block_sites(Model(PPMissingLayer(), Block()), 2)} == {"blocks.1"}
