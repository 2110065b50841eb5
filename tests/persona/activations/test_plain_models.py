"""A plain Hugging Face model or a PeftModel is read as the bridge over it is."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, tiny_bridge, tiny_causal_lm
from torch import nn

from persona.activations import collect_covariance, collect_moments, collect_rows, collect_tokens
from persona.activations.collect import collect_at, collect_sets
from persona.errors import ModelError
from persona.models import pair_of
from persona.models.chat.chat_format import TokenizedDialogue

TEXTS = [
    TokenizedDialogue(tuple(range(10, 10 + n)), (3, n - 1), f"text {n}") for n in (9, 17, 12, 25)
]
LAYERS = [0, 2]


def readings(model):
    rows = collect_rows(model, TEXTS, LAYERS)
    yield rows
    yield collect_moments(model, TEXTS, LAYERS).centre_LD.float()
    yield torch.cat(collect_tokens(model, TEXTS, LAYERS))
    yield collect_at(model, TEXTS, [[1, 5]] * len(TEXTS))
    yield collect_sets(model, TEXTS, ["response", "last_prompt"], LAYERS)
    yield collect_covariance(model, TEXTS, [1])[1].float()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_reading_of_a_plain_model_is_the_bridges(family, tiny_chat):
    plain, bridge = tiny_causal_lm(family), tiny_bridge(family, tiny_chat.tokenizer)
    for mine, theirs in zip(readings(plain), readings(bridge), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_a_peft_model_is_read_with_its_adapter(tiny_llama, tiny_adapter, tiny_pair):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_llama), tiny_adapter
    )
    with tiny_pair.active("finetuned") as bridge:
        for mine, theirs in zip(readings(model.eval()), readings(bridge), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_a_probe_is_fitted_on_plain_models_in_memory(tiny_chat, tmp_path):
    from probes import fit

    model = tiny_causal_lm("llama")
    pair = pair_of(model, model, tiny_chat.tokenizer, wrap=False)
    texts = [f"{word} number {i}" for i in range(12) for word in ("good", "bad")]
    groups = [i // 2 for i in range(24)]
    probe = fit(pair, texts, [0, 1] * 12, groups, layer=1, cache=tmp_path)
    assert probe is not None


def test_what_is_no_language_model_is_one_line():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

    with pytest.raises(ModelError, match="a Other is no model that can be read; pass a Tr"):
        collect_rows(Other(), TEXTS, [0])
