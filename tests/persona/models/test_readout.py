"""Predictions at chosen positions are the model's own, through its own head."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, tiny_bridge, tiny_causal_lm

from persona.models.readout import Readout, Tail

IDS = torch.tensor([[0, 7, 9, 30, 31, 32, 5, 60], [0, 8, 9, 44, 45, 1, 1, 1]])
ROWS, POSITIONS = torch.tensor([0, 0, 1]), torch.tensor([2, 6, 3])


def granite():
    import transformers

    config = transformers.GraniteConfig(
        vocab_size=261,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        logits_scaling=8.0,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    return transformers.GraniteForCausalLM(config).eval().requires_grad_(False)


def expected(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits[ROWS, POSITIONS].float().log_softmax(-1)


def read(model):
    readout = Readout.of(model)
    found = readout.predict(model, IDS, ROWS, POSITIONS)
    parts = [readout.checked_logits(found, part) for part in readout.slices(3)]
    return torch.cat(parts).log_softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bridged", [True, False])
def test_every_family_predicts_what_its_own_pass_does(family, bridged, tiny_chat):
    plain = tiny_causal_lm(family)
    model = tiny_bridge(family, tiny_chat.tokenizer) if bridged else plain
    torch.testing.assert_close(read(model), expected(plain), atol=2e-5, rtol=1e-5)


def test_a_soft_cap_and_a_scale_are_found():
    gemma = tiny_causal_lm("gemma2")
    assert Readout.of(gemma).tail == Tail(softcap=gemma.config.final_logit_softcapping)
    scaled = granite()
    assert Readout.of(scaled).tail == Tail(scale=1 / 8)
    torch.testing.assert_close(read(scaled), expected(scaled), atol=2e-5, rtol=1e-5)


class Cubed(torch.nn.Module):
    """Does to the output of its head what no config tells."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.config = inner, inner.config

    def get_output_embeddings(self):
        return self.inner.get_output_embeddings()

    def forward(self, **options):
        output = self.inner(**options)
        output.logits = output.logits**3
        return output


def test_a_model_that_does_something_unknown_to_its_logits_runs_its_own_code():
    model = Cubed(tiny_causal_lm("llama"))
    assert Readout.of(model).tail is None
    torch.testing.assert_close(read(model), expected(model), atol=1e-4, rtol=1e-4)


def test_gradients_reach_the_hidden_states():
    model = tiny_causal_lm("gemma2")
    readout = Readout.of(model)
    leaf = torch.randn(3, 16, requires_grad=True)
    readout.logits(leaf).log_softmax(-1)[:, 5].sum().backward()
    again = leaf.detach().clone().requires_grad_()
    logits = torch.tanh(model.lm_head(again) / 30.0) * 30.0
    logits.log_softmax(-1)[:, 5].sum().backward()
    torch.testing.assert_close(leaf.grad, again.grad)


def test_slices_stay_within_their_bytes(monkeypatch):
    monkeypatch.setattr("persona.models.readout.SLICE_BYTES", 4 * 261 * 40)
    readout = Readout.of(tiny_causal_lm("llama"))
    parts = list(readout.slices(100))
    assert [part.stop - part.start for part in parts] == [32, 32, 32, 4]
