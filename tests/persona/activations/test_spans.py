"""Several token sets in one pass are what each pass alone gives."""

import pytest
import torch

from persona.activations import collect_rows, collect_sets
from persona.data.types import Dialogue, Turn
from persona.errors import DataError


def encoded(pair, n=5):
    turns = [
        (Turn("user", "why " * (i + 1)), Turn("assistant", f"because {'x' * i}")) for i in range(n)
    ]
    return pair.chat.encode_all([Dialogue(each, str(i)) for i, each in enumerate(turns)])


def test_each_set_is_what_a_pass_of_its_own_gives(tiny_pair):
    texts, sets, layers = encoded(tiny_pair), ["response", "last_prompt", "all"], [2, 0]
    with tiny_pair.active("aligned") as bridge:
        together = collect_sets(bridge, texts, sets, layers, token_budget=64)
        for place, one in enumerate(sets):
            alone = collect_rows(bridge, texts, layers, token_set=one, token_budget=64)
            torch.testing.assert_close(together[:, place], alone, rtol=1e-5, atol=1e-6)


def test_a_text_without_such_tokens_is_named(tiny_pair):
    waiting = tiny_pair.chat.encode(Dialogue((Turn("user", "why?"),), "the waiting one"))
    with (
        tiny_pair.active("aligned") as bridge,
        pytest.raises(DataError, match="'the waiting one' has no tokens in the set 'response'"),
    ):
        collect_sets(bridge, [waiting], ["response"], [0])
