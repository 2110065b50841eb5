"""A second fine-tune beside a first runs on the same weights, and neither changes the other."""

from __future__ import annotations

import pytest
import torch
from tiny_models import save_tiny_adapter, save_tiny_llama
from transformers import AutoModelForCausalLM

from persona.models import load_pair
from persona.models.pair import SIDES
from persona.models.precision import Placement


def load(aligned, finetuned, **options):
    placement = options.pop("placement", Placement.of("float32", "cpu"))
    return load_pair(aligned, finetuned, placement=placement, **options)


@torch.no_grad()
def logits(pair):
    found = []
    for side in SIDES:
        with pair.active(side) as bridge:
            found.append(bridge(torch.arange(10, 20)[None]).float())
    return torch.stack(found)


def memory(pair):
    """Where each weight of the pair's model lies."""
    with pair.active("aligned") as bridge:
        return {p.data_ptr() for p in bridge.original_model.parameters() if p.numel() > 2_000}


@pytest.fixture
def another(tiny_llama, tmp_path):
    """A second adapter, on other modules than the first."""
    return save_tiny_adapter(
        tmp_path / "another", tiny_llama, seed=5, modules=["q_proj", "up_proj"]
    )


@pytest.mark.parametrize("merged", [False, True])
def test_it_reads_as_it_does_alone_and_adds_no_weights(tiny_llama, tiny_adapter, another, merged):
    alone, first = load(tiny_llama, another), load(tiny_llama, tiny_adapter, merged=merged)
    before = logits(first)
    second = load(tiny_llama, another, beside=first)
    assert torch.equal(logits(second), logits(alone))
    assert (logits(second)[1] - logits(second)[0]).abs().max() > 0.01
    assert torch.equal(logits(first), before)
    assert not memory(alone) & memory(first)
    with second.active("aligned") as bridge:
        table = bridge.original_model.get_input_embeddings().weight
    assert table.data_ptr() in memory(first)


def test_a_third_is_put_on_the_weights_of_a_second(tiny_llama, tiny_adapter, another):
    first = load(tiny_llama, tiny_adapter)
    third = load(tiny_llama, tiny_adapter, beside=load(tiny_llama, another, beside=first))
    assert torch.equal(logits(third), logits(first))
    assert memory(third) & memory(first)


def test_a_merge_into_the_second_stays_its_own(tiny_llama, tiny_adapter, another):
    first = load(tiny_llama, tiny_adapter)
    before = logits(first)
    second = load(tiny_llama, another, beside=first, merged=True)
    torch.testing.assert_close(logits(second), logits(load(tiny_llama, another)))
    assert torch.equal(logits(first), before)


@pytest.mark.parametrize(
    "options", [{"bias": "all"}, {"init_lora_weights": "pissa"}, {"modules_to_save": ["lm_head"]}]
)
def test_what_may_write_into_its_base_gets_weights_of_its_own(
    tiny_llama, tiny_adapter, tmp_path, options
):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj"], **options)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama), config)
    model.save_pretrained(tmp_path / "writes")
    first = load(tiny_llama, tiny_adapter)
    before = logits(first)
    second = load(tiny_llama, tmp_path / "writes", beside=first)
    assert not memory(second) & memory(first)
    assert torch.equal(logits(first), before)


def test_another_model_or_number_format_is_loaded(tiny_llama, tiny_adapter, tmp_path):
    first = load(tiny_llama, tiny_adapter)
    other = save_tiny_llama(tmp_path / "other", seed=9)
    adapter = save_tiny_adapter(tmp_path / "of-other", other)
    assert not memory(load(other, adapter, beside=first)) & memory(first)
    halved = Placement.of("bfloat16", "cpu")
    second = load(tiny_llama, tiny_adapter, beside=first, placement=halved)
    assert not memory(second) & memory(first)
    assert second.dtype == torch.bfloat16


def test_two_checkpoints_have_no_weights_to_lend(tiny_llama, tiny_adapter, tmp_path):
    other = save_tiny_llama(tmp_path / "other", seed=9)
    pair = load(tiny_llama, other)
    assert pair.bare is None
    assert not memory(load(tiny_llama, tiny_adapter, beside=pair)) & memory(pair)
