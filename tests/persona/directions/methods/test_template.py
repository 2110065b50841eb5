"""Template positions are the template's own, whatever the user wrote before them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from persona.data import Dialogue, Turn
from persona.directions.methods import collect_template_positions, template_position_difference
from persona.errors import DataError, ModelError
from persona.models.chat.chat_format import PLAIN_TEMPLATE
from persona.models.hooks import hooked, resid_post

PROMPTS = [
    Dialogue((Turn("user", "How deep is the sea?"),), "a"),
    Dialogue((Turn("system", "Be brief."), Turn("user", "a")), "b"),
    Dialogue((Turn("user", "One"), Turn("assistant", "Two"), Turn("user", "Three")), "c"),
]


def test_the_last_template_tokens_are_read_in_every_prompt(tiny_pair):
    # The tiny template closes the user's turn with </s> and opens <|assistant|>: two tokens.
    with tiny_pair.active("aligned") as bridge, torch.no_grad():
        rows = collect_template_positions(bridge, tiny_pair.chat, PROMPTS, layers=[1, 3])
        assert rows.shape == (3, 2, 2, 32)
        for row, prompt in zip(rows, PROMPTS, strict=True):
            encoded = tiny_pair.chat.encode(prompt)
            assert tiny_pair.tokenizer.decode(list(encoded.ids[-2:])) == "</s><|assistant|>"
            seen = []
            with hooked(bridge, [(resid_post(3), lambda resid, s=seen: s.append(resid.clone()))]):
                bridge(torch.tensor([encoded.ids]), return_type=None, use_cache=False)
            torch.testing.assert_close(row[:, 1], seen[0][0, -2:], atol=1e-5, rtol=1e-4)
        last = collect_template_positions(bridge, tiny_pair.chat, PROMPTS, 1, [3])
    torch.testing.assert_close(last[:, 0, 0], rows[:, 1, 1], atol=1e-5, rtol=1e-4)


def test_a_longer_template_gives_all_its_tokens(tiny_pair):
    # "\nAnswer: " is nine byte tokens.
    chat = replace(tiny_pair.chat, template=PLAIN_TEMPLATE)
    with tiny_pair.active("aligned") as bridge:
        assert collect_template_positions(bridge, chat, PROMPTS, layers=[0]).shape[1] == 9


def test_what_cannot_be_read_is_refused(tiny_pair):
    answered = Dialogue((Turn("user", "Why?"), Turn("assistant", "So.")), "x")
    with tiny_pair.active("aligned") as bridge:
        with pytest.raises(DataError, match="writes 2 tokens.*positions asked for: 3"):
            collect_template_positions(bridge, tiny_pair.chat, PROMPTS, 3)
        with pytest.raises(DataError, match="'x' must end with the user's turn; .* assistant's"):
            collect_template_positions(bridge, tiny_pair.chat, [answered])
        with pytest.raises(DataError, match="no prompts"):
            collect_template_positions(bridge, tiny_pair.chat, [])
        with pytest.raises(ModelError, match="layer 4 is out of range"):
            collect_template_positions(bridge, tiny_pair.chat, PROMPTS, layers=[4])


def test_the_difference_points_toward_positive_position_by_position():
    positive, negative = torch.zeros(3, 2, 1, 4), torch.zeros(5, 2, 1, 4)
    positive[:, 1] = 2.0
    negative[:, 0] = 1.0
    difference = template_position_difference(positive, negative)
    torch.testing.assert_close(difference[:, 0, 0], torch.tensor([-1.0, 2.0]))
    with pytest.raises(DataError, match="negative prompts' activations are empty"):
        template_position_difference(positive, negative[:0])


def test_positions_that_differ_are_refused(unchecked_hints):
    with pytest.raises(DataError, match="same positions and layers"):
        template_position_difference(torch.zeros(3, 2, 1, 4), torch.zeros(3, 1, 1, 4))
