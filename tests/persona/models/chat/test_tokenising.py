"""What stops the tokenizer library ends in one line."""

from __future__ import annotations

import json

import pytest
from tiny_models import save_tokenizer
from transformers import AutoTokenizer

from persona.data.types import Dialogue, Turn
from persona.errors import ModelError
from persona.models.chat.chat_format import chat_format
from persona.models.chat.tokenising import panics_as_errors


def test_a_pattern_that_backtracks_without_end_is_one_line(tmp_path):
    save_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    split = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    both = [split, content["pre_tokenizer"]]
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": both}
    path.write_text(json.dumps(content))
    chat = chat_format(AutoTokenizer.from_pretrained(tmp_path))
    asked = Dialogue((Turn("user", "a" * 60 + "b"), Turn("assistant", "ok")))
    with pytest.raises(ModelError, match="the tokenizer stopped at a text") as caught:
        chat.encode(asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_everything_else_passes(error):
    with pytest.raises(error), panics_as_errors():
        raise error
