"""Single tokens are read where they were asked for, whatever shares their batch."""

from __future__ import annotations

import pytest
import torch

from persona.activations import collect_at
from persona.data import Dialogue, Turn
from persona.errors import DataError, ModelError
from persona.models.hooks import hooked, resid_post

WORDS = ["short", "a rather longer question", "mid length"]


@pytest.fixture(scope="module")
def dialogues(tiny_pair):
    return tiny_pair.chat.encode_all([Dialogue((Turn("user", word),), word) for word in WORDS])


@pytest.mark.parametrize("token_budget", [1, 40, 4096])
def test_each_row_equals_the_text_read_alone(tiny_pair, dialogues, token_budget):
    positions = [[len(d) - 1, 2] for d in dialogues]
    with tiny_pair.active("aligned") as bridge, torch.no_grad():
        rows = collect_at(bridge, dialogues, positions, [3, 0], token_budget=token_budget)
        assert rows.shape == (3, 2, 2, 32)
        for place, dialogue in enumerate(dialogues):
            for column, layer in enumerate((3, 0)):
                seen = []
                hook = (resid_post(layer), lambda resid, s=seen: s.append(resid.clone()))
                with hooked(bridge, [hook]):
                    bridge(torch.tensor([dialogue.ids]), return_type=None, use_cache=False)
                torch.testing.assert_close(
                    rows[place, :, column], seen[0][0, positions[place]], atol=1e-5, rtol=1e-4
                )


def test_places_outside_a_text_and_uneven_lists_are_refused(tiny_pair, dialogues):
    with tiny_pair.active("aligned") as bridge:
        with pytest.raises(DataError, match=r"'short' has 9 tokens; positions \[9\]"):
            collect_at(bridge, dialogues, [[9]] * 3)
        with pytest.raises(DataError, match="same number of positions"):
            collect_at(bridge, dialogues, [[1], [1, 2], [1]])
        with pytest.raises(DataError, match="no texts"):
            collect_at(bridge, [], [])
        with pytest.raises(ModelError, match="out of range"):
            collect_at(bridge, dialogues, [[1]] * 3, [9])
        with pytest.raises(ModelError, match="no layer was asked for"):
            collect_at(bridge, dialogues, [[1]] * 3, [])
