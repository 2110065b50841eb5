"""Judges of a trait: yes or no of a local model, numbers of an endpoint."""

from __future__ import annotations

import math

import pytest
import torch

from persona.behaviour.judging.endpoint import EndpointJudge
from persona.behaviour.judging.judge import COHERENCE_PROMPT, JudgeItem
from persona.errors import JudgeError
from persona.traits import trait_judge
from persona.traits.trait_judge import (
    YES_OR_NO,
    EndpointTraitJudge,
    LocalTraitJudge,
    filled,
    require_scores,
    trait_judge_named,
)

RUBRIC = "Trait?\n{question}\n{answer}\nNumber."
ITEMS = [JudgeItem("Why?", "So."), JudgeItem("Why?", "  "), JudgeItem("How?", "Thus {answer}.")]


def test_a_rubric_is_filled_once_and_braces_of_an_answer_stay():
    assert filled(RUBRIC, ITEMS[2]) == "Trait?\nHow?\nThus {answer}.\nNumber."
    assert filled("{answer} to {question}", ITEMS[0]) == "So. to Why?"


@pytest.fixture
def local(tiny_pair, monkeypatch):
    """A judge whose logits for Yes and No are told by what the prompt ends in."""
    prompts = []

    def logits(model, ids, beginning=None, *, longest_allowed=None):
        texts = [tiny_pair.tokenizer.decode(one) for one in ids]
        prompts.extend(texts)
        rows = torch.full((len(ids), 261), -30.0)
        for row, text in zip(rows, texts, strict=True):
            for word, value in (("Y", 2.0 if "So." in text else 0.0), ("N", 1.0)):
                row[tiny_pair.tokenizer.convert_tokens_to_ids(word)] = value
        return rows

    import persona.behaviour.judging.judge_reader as module

    monkeypatch.setattr(module, "next_logits", logits)
    with tiny_pair.active("aligned") as bridge:
        judge = LocalTraitJudge(bridge, tiny_pair.chat, RUBRIC, name="tiny", revision="r")
    judge.prompts = prompts
    return judge


def test_the_score_is_the_odds_of_yes_and_the_centre_moves_it(local):
    first, empty, other = local.trait(ITEMS)
    assert empty is None
    assert first == pytest.approx(100 / (1 + math.exp(-1.0)), abs=1e-3)
    assert other == pytest.approx(100 / (1 + math.exp(1.0)), abs=1e-3)
    assert any(YES_OR_NO.strip() in prompt for prompt in local.prompts)
    local.centre_on([ITEMS[0], ITEMS[0], ITEMS[2]])
    assert local.centre == pytest.approx(1.0, abs=1e-4)
    assert local.trait(ITEMS)[0] == pytest.approx(50.0, abs=1e-3)
    assert local.trait(ITEMS)[2] == pytest.approx(100 / (1 + math.exp(2.0)), abs=1e-3)


def test_coherence_is_measured_in_the_model(local):
    first, empty, other = local.coherence(ITEMS)
    assert empty is None and 0 <= first <= 100 and 0 <= other <= 100


class Numbers(EndpointJudge):
    def __init__(self):
        self.name, self.asked = "openai:m", []

    def numbers(self, prompts):
        self.asked += prompts
        return [70.0 for _ in prompts]


def test_an_endpoint_gives_numbers_and_is_not_asked_of_what_is_empty():
    judge = EndpointTraitJudge(Numbers(), RUBRIC)
    assert judge.trait(ITEMS) == [70.0, None, 70.0]
    assert judge.coherence(ITEMS[:1]) == [70.0]
    assert judge.endpoint.asked[0] == filled(RUBRIC, ITEMS[0])
    assert judge.endpoint.asked[-1] == filled(COHERENCE_PROMPT, ITEMS[0])
    judge.centre_on(ITEMS)
    assert judge.trait(ITEMS) == [70.0, None, 70.0]


def test_too_few_scores_and_too_few_answers_are_told_apart(local):
    require_scores(local, ITEMS, [1.0, None, None])
    with pytest.raises(JudgeError, match="the judge local:tiny gave a score for 0 of 2 answers"):
        require_scores(local, ITEMS, [None, None, None])
    with pytest.raises(JudgeError, match="answered nothing to 2 of 3 questions"):
        require_scores(local, [ITEMS[0], ITEMS[1], ITEMS[1]], [1.0, None, None])


def test_a_judge_goes_by_name(tiny_pair, tiny_llama, monkeypatch):
    assert trait_judge_named("model", RUBRIC, tiny_pair).name.startswith("local:")
    assert trait_judge_named(f"local:{tiny_llama}", RUBRIC, tiny_pair).name.endswith("tiny-llama")
    for name in ("offline", "none", "local:", "openai"):
        with pytest.raises(JudgeError, match="give model, local:MODEL or openai:MODEL"):
            trait_judge_named(name, RUBRIC, tiny_pair)
    asked = []
    monkeypatch.setattr(trait_judge.EndpointJudge, "check", lambda self: asked.append(self.name))
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert trait_judge_named("openai:m", RUBRIC, tiny_pair).name == "openai:m"
    assert asked == ["openai:m"]
