"""Single tokens read in batches are those whose mean `collect_rows` gives."""

from __future__ import annotations

import pytest
import torch

from persona.activations import collect_rows, collect_tokens
from persona.data.types import Dialogue, Turn
from persona.errors import DataError


@pytest.mark.parametrize("token_set", ["response", "prompt", "all"])
def test_the_mean_of_the_tokens_is_the_pooled_row(tiny_pair, token_set):
    answers = ["yes", "a longer answer", "short", "no, never"]
    dialogues = tiny_pair.chat.encode_all(
        [Dialogue((Turn("user", "why?"), Turn("assistant", answer))) for answer in answers]
    )
    with tiny_pair.active("finetuned") as bridge:
        tokens = collect_tokens(bridge, dialogues, [0, 2], token_set=token_set, token_budget=40)
        rows = collect_rows(bridge, dialogues, [0, 2], token_set=token_set)
        with pytest.raises(DataError, match="no dialogues"):
            collect_tokens(bridge, [], [0])
    torch.testing.assert_close(torch.stack([t.mean(0) for t in tokens]), rows)
    if token_set == "response":
        assert [len(t) for t in tokens] == [len(answer) for answer in answers]
