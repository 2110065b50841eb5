"""What stops the tokenizer library ends in one line."""

from __future__ import annotations

import json
import shutil

import pytest
from tiny_models import save_tokenizer
from transformers import AutoTokenizer

from persona.data.types import Dialogue, Turn
from persona.errors import ModelError
from persona.models import load_pair
from persona.models.chat.chat_format import chat_format
from persona.models.chat.tokenising import panics_as_errors
from persona.models.precision import Placement


def with_pattern(folder, pattern):
    """Puts a pattern before what the tokenizer in a folder splits by."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    both = [split, content["pre_tokenizer"]]
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": both}
    path.write_text(json.dumps(content))


def test_a_pattern_that_backtracks_without_end_is_one_line(tmp_path):
    save_tokenizer(tmp_path)
    with_pattern(tmp_path, "(a+)+$")
    chat = chat_format(AutoTokenizer.from_pretrained(tmp_path))
    asked = Dialogue((Turn("user", "a" * 60 + "b"), Turn("assistant", "ok")))
    with pytest.raises(ModelError, match="the tokenizer stopped at a text") as caught:
        chat.encode(asked)
    assert "\n" not in str(caught.value)


def test_a_panic_over_the_text_of_the_proof_is_one_line(tiny_llama, tmp_path):
    shutil.copytree(tiny_llama, tmp_path / "model")
    with_pattern(tmp_path / "model", r"(([a-z ]+)+)+\Z")
    with pytest.raises(ModelError, match="the tokenizer stopped at a text") as caught:
        load_pair(tmp_path / "model", tmp_path / "model", placement=Placement.of("float32", "cpu"))
    assert "\n" not in str(caught.value)


class PanicException(BaseException):
    """What a library in Rust raises."""


def test_a_panic_while_loading_is_one_line(tiny_llama, tmp_path, monkeypatch):
    def panic(*_, **__):
        raise PanicException("index out of bounds")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", panic)
    with pytest.raises(ModelError, match="cannot load .*: PanicException: index out of bounds"):
        load_pair(tiny_llama, tiny_llama, placement=Placement.of("float32", "cpu"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_everything_else_passes(error):
    with pytest.raises(error), panics_as_errors():
        raise error
