"""Pairs, the filter, and the vector that is made of what passes."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from trained_trait import artefacts

from persona.data import Dialogue, Turn
from persona.errors import DataError
from persona.traits.asking import answer_rows, asked
from persona.traits.kept_answers import (
    are_coherent,
    mean_difference,
    read_pairs_of_answers,
    read_without_instruction,
    show_the_contrast,
    shuffled_poles,
    trait_pairs,
)


def test_every_instruction_meets_as_many_questions_and_poles_differ_in_it_alone():
    told = {
        pole: asked(artefacts(), "making", pole, [0, 1]) for pole in ("for", "against", "plain")
    }
    assert told["for"]["system"].value_counts().to_dict() == {"LOUD x": 12, "LOUD y": 12}
    assert set(told["plain"]["system"]) == {""}
    for column in ("question_id", "draw", "question"):
        assert (told["for"][column] == told["against"][column]).all()
    first = told["for"][told["for"]["question_id"] == "making-000"]
    assert first["system"].tolist() == ["LOUD x", "LOUD y"]


def told_rows(*scores):
    rows = [
        {
            "pole": pole,
            "question_id": f"q{place}",
            "draw": 0,
            "question": "Why?",
            "system": pole,
            "answer": f"{pole} {place}",
            "trait": trait,
            "coherence": coherence,
        }
        for place, both in enumerate(scores)
        for pole, (trait, coherence) in zip(("for", "against"), both, strict=True)
    ]
    return pd.DataFrame(rows)


nan = float("nan")


@pytest.mark.parametrize(
    ("scores", "shown", "coherent"),
    [
        (((51, 50), (49, 50)), True, True),
        (((50, 90), (10, 90)), False, True),
        (((90, 90), (50, 90)), False, True),
        (((nan, 90), (10, 90)), False, True),
        (((90, 49), (10, 90)), True, False),
        (((90, 90), (10, nan)), True, False),
    ],
)
def test_a_pair_passes_as_a_whole(scores, shown, coherent):
    pairs = trait_pairs(told_rows(((90, 90), (1, 90)), scores))
    assert pairs["answer_for"].tolist() == ["for 0", "for 1"]
    assert show_the_contrast(pairs).tolist() == [True, shown]
    assert are_coherent(pairs).tolist() == [True, coherent]


def test_answers_are_read_behind_their_instruction_or_without_it(tiny_pair):
    pairs = trait_pairs(told_rows(((90, 90), (1, 90)), ((90, 90), (1, 90))))
    read = read_pairs_of_answers(tiny_pair, pairs)
    assert read["for"].shape == (2, 4, 32)
    from persona.activations import collect_rows

    turns = (Turn("system", "for"), Turn("user", "Why?"), Turn("assistant", "for 1"))
    with tiny_pair.active("aligned") as bridge:
        own = collect_rows(bridge, tiny_pair.chat.encode_all([Dialogue(turns)]), range(4))
        bare = collect_rows(bridge, tiny_pair.chat.encode_all([Dialogue(turns[1:])]), range(4))
    torch.testing.assert_close(read["for"][1:], own, atol=1e-5, rtol=1e-5)
    row = pd.DataFrame([{"question": "Why?", "answer": "for 1"}])
    torch.testing.assert_close(read_without_instruction(tiny_pair, row), bare, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(own, bare, atol=1e-3)


@pytest.mark.parametrize("n", [200, 7])
def test_shuffled_poles_lose_all_that_the_pairs_share_and_keep_their_scatter(n):
    generator = torch.Generator().manual_seed(0)
    against = torch.randn(n, 1, 4, generator=generator)
    scatter = torch.randn(n, 1, 4, generator=generator) * torch.tensor([0.0, 1.0, 1.0, 1.0])
    read = {"for": against + scatter + torch.tensor([3.0, 0, 0, 0]), "against": against}
    assert float(mean_difference(read)[0, 0]) == pytest.approx(3.0, abs=1e-5)
    draws = shuffled_poles(read, 300, seed=1)
    assert draws.shape == (300, 1, 4)
    assert float(draws[:, 0, 0].abs().max()) < 1e-5
    assert float(draws[:, 0, 1].std()) == pytest.approx(n**-0.5, rel=0.6)
    assert torch.equal(draws, shuffled_poles(read, 300, seed=1))


def test_a_template_without_a_place_for_an_instruction_is_refused(tiny_pair, monkeypatch):
    from dataclasses import replace

    silent = "{% for m in messages %}{% if m['role'] != 'system' %}{{ '<|' + m['role'] + '|>' + m['content'] + '</s>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"  # noqa: E501
    pair = replace(tiny_pair, chat=replace(tiny_pair.chat, template=silent))
    with pytest.raises(DataError, match="does not show a system prompt"):
        answer_rows(pair, asked(artefacts(), "making", "for", [0]), condition="for")
