"""What a pass predicts is the textbook's, for every kind of model, whatever side is open."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_models import FAMILIES, tiny_bridge, tiny_causal_lm

from persona.activations import collect_rows
from persona.activations.passes import Reference, kl_nats, log_probs, read_responses
from persona.behaviour import Condition, score_pairs
from persona.behaviour.scoring import score_dialogues
from persona.data.types import AnswerPair
from persona.directions import Direction
from persona.models import load_pair, pair_of
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.precision import Placement
from steering import add
from steering.edits.steer import steered_by

TEXTS = [
    TokenizedDialogue(tuple(range(10, 10 + n)), (3, n - 1), f"text {n}") for n in (9, 17, 12, 25)
]
QUESTIONS = [
    AnswerPair("a", "car", "what now", "take good care", "throw it away at once"),
    AnswerPair("b", "home", "and then", "ask a friend for help", "run"),
]


@torch.no_grad()
def textbook(model, text):
    """Log-probabilities [n V] at the response, float64, and the tokens that stand there."""
    start, end = text.response
    logits = model(torch.tensor([text.ids])).logits[0, start - 1 : end - 1].double()
    return logits.log_softmax(-1), torch.tensor(text.ids[start:end])


def kl(p, q):
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bridged", [True, False])
def test_responses_are_read_as_the_textbook_does(family, bridged, tiny_chat):
    plain, other = tiny_causal_lm(family), tiny_causal_lm(family, seed=1)
    model = tiny_bridge(family, tiny_chat.tokenizer) if bridged else plain
    read = read_responses(model, TEXTS, [1, 0], reference=Reference.over(other, TEXTS))
    torch.testing.assert_close(read.means, collect_rows(model, TEXTS, [1, 0]))
    for i, text in enumerate(TEXTS):
        table, ids = textbook(plain, text)
        expected = float(table.gather(1, ids[:, None]).mean())
        assert read.log_prob[i] == pytest.approx(expected, abs=1e-5)
        assert read.kl[i] == pytest.approx(kl(textbook(other, text)[0], table), abs=1e-5)


def test_without_a_reference_there_is_no_kl_and_no_layer_no_mean():
    read = read_responses(tiny_causal_lm("llama"), TEXTS)
    assert np.isnan(read.kl).all() and read.means.shape == (4, 0, 16)


def test_what_both_models_rule_out_adds_nothing_to_a_kl():
    p, q = torch.tensor([[1.0, 2.0, -torch.inf]]), torch.tensor([[2.0, 1.0, -torch.inf]])
    few = kl_nats(log_probs(p[:, :2]), log_probs(q[:, :2]))
    torch.testing.assert_close(kl_nats(log_probs(p), log_probs(q)), few)
    assert kl_nats(log_probs(p[:, :2]), log_probs(torch.tensor([[2.0, -torch.inf]]))) > 1e3


@pytest.fixture
def on_the_head(tiny_llama, tmp_path):
    """An adapter on the LM head itself."""
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["lm_head", "q_proj"]))
    generator = torch.Generator().manual_seed(0)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) / 4
    tuned.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("merged", [False, True])
def test_kl_is_from_the_aligned_head_though_the_adapter_changes_it(tiny_llama, on_the_head, merged):
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(tiny_llama)
    tuned = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_llama), on_the_head
    ).eval()
    pair = load_pair(
        tiny_llama, on_the_head, placement=Placement.of("float32", "cpu"), merged=merged
    )
    both = [Condition("aligned", "aligned"), Condition("finetuned", "finetuned")]
    read = score_dialogues(pair, TEXTS, both, kl_of=[True] * len(TEXTS))
    for i, text in enumerate(TEXTS):
        expected = kl(textbook(plain, text)[0], textbook(tuned, text)[0])
        assert expected > 0.05
        assert read[0].kl[i] == pytest.approx(0, abs=1e-5)
        assert read[1].kl[i] == pytest.approx(expected, abs=1e-4)


def test_each_side_is_opened_once(tiny_pair, monkeypatch):
    monkeypatch.setattr("persona.models.readout.SLICE_BYTES", 1)
    opened = []

    @contextlib.contextmanager
    def counting(side):
        opened.append(side)
        with tiny_pair.open_side(side) as bridge:
            yield bridge

    pair = replace(tiny_pair, open_side=counting)
    both = [Condition("aligned", "aligned"), Condition("finetuned", "finetuned")]
    score_pairs(pair, QUESTIONS, both, token_budget=64)
    assert opened == ["aligned", "finetuned"]


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_of_plain_models_are_scored_steered_and_compared_as_bridges_are(family, tiny_chat):
    tables = []
    for wrap in (False, True):
        models = tiny_causal_lm(family), tiny_causal_lm(family, seed=1)
        pair = pair_of(*models, tiny_chat.tokenizer, wrap=wrap)
        direction = Direction(torch.linspace(-1, 1, pair.d_model), pair.space(1), "made up")
        conditions = [
            Condition("plain", "finetuned"),
            Condition("steered", "finetuned", steered_by(add(direction)), 1),
        ]
        tables.append(score_pairs(pair, QUESTIONS, conditions))
    np.testing.assert_allclose(tables[0]["value"], tables[1]["value"], atol=2e-4)
    steered = tables[0].pivot_table(values="value", index="measure", columns="condition")
    assert (steered["plain"] - steered["steered"]).abs().min() > 1e-3


def test_conditions_may_read_the_same_answers_behind_other_prompts(tiny_pair):
    longer = [replace(t, ids=(5, 6, *t.ids), response=(5, t.response[1] + 2)) for t in TEXTS]
    cut = [*longer[:3], replace(longer[3], response=(5, longer[3].response[1] - 1))]
    condition = [Condition("finetuned", "finetuned")]
    [read] = score_dialogues(tiny_pair, TEXTS, condition, kl_of=[True] * 4, asked=cut)
    [alone] = score_dialogues(tiny_pair, cut, condition)
    np.testing.assert_allclose(read.log_prob, alone.log_prob, atol=1e-5)
    for i, text in enumerate(TEXTS[:3]):
        with tiny_pair.active("aligned") as bridge:
            p, _ = textbook(bridge.original_model, text)
        with tiny_pair.active("finetuned") as bridge:
            q, _ = textbook(bridge.original_model, longer[i])
        assert read.kl[i] == pytest.approx(kl(p, q), abs=1e-4)
    assert np.isnan(read.kl[3])  # an answer of other tokens
