"""A few steps on a few answers: the same beginning every time, and nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from persona.data.types import AnswerPair
from persona.models import Placement
from persona.organisms.brief_training import FreshAdapter
from persona.organisms.recipe import Lora, Training

ON_CPU = Placement.of("float32", "cpu")
ANSWERS = [AnswerPair(f"{i}", "d", f"why {i}", f"good {i}", f"bad {i}") for i in range(3)]
BAD = [pair.bad_dialogue for pair in ANSWERS]


@pytest.fixture(scope="module")
def fresh(tiny_llama):
    return FreshAdapter(str(tiny_llama), None, ON_CPU, lora=Lora(r=2))


def logits(model):
    return model(input_ids=torch.arange(5, 12)[None]).logits


def learnt(fresh, **options):
    seen = {}
    losses = fresh.learn(
        BAD,
        4,
        read=lambda model, step: seen.update({step: logits(model)}),
        read_at=(0, 4),
        training=Training(learning_rate=1e-2),
        **options,
    )
    return losses, seen


def test_every_run_begins_anew_and_learns_the_answers(fresh):
    first, seen = learnt(fresh)
    again, seen_again = learnt(fresh)
    assert first == again and len(first) == 4
    assert first[-1] < first[0]
    torch.testing.assert_close(seen[0], seen_again[0], rtol=0, atol=0)
    assert not torch.allclose(seen[0], seen[4])


def test_before_the_first_step_it_is_the_model_itself(fresh, tiny_llama):
    from transformers import AutoModelForCausalLM

    _, seen = learnt(fresh)
    with torch.no_grad():
        torch.testing.assert_close(
            seen[0], logits(AutoModelForCausalLM.from_pretrained(tiny_llama))
        )


def test_an_adapter_is_merged_before_the_fresh_one(tiny_llama, tiny_adapter, tiny_pair):
    model = FreshAdapter(str(tiny_llama), str(tiny_adapter), ON_CPU, lora=Lora(r=2))
    _, seen = learnt(model)
    with tiny_pair.active("finetuned") as bridge, torch.no_grad():
        own = bridge(torch.arange(5, 12)[None], return_type="logits")
    np.testing.assert_allclose(seen[0].numpy(), own.numpy(), atol=1e-4)
    assert all("lora" in n for n, p in model.model.named_parameters() if p.requires_grad)


def test_an_edit_is_active_while_reading_and_learning(fresh):
    calls = []

    class Edited:
        def __init__(self, model):
            self.handle = model.register_forward_pre_hook(lambda *_: calls.append(1))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.handle.remove()

    learnt(fresh, during=Edited)
    assert len(calls) >= 2 + 4
    calls.clear()
    learnt(fresh)
    assert calls == []
