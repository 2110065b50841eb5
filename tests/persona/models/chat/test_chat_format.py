"""One tokenisation of the whole dialogue; the response span is exactly the answer."""

from __future__ import annotations

import pytest
from tiny_models import save_tokenizer
from transformers import AutoTokenizer

from persona.data.types import Dialogue, Turn
from persona.errors import DataError
from persona.models.chat.chat_format import chat_format


@pytest.fixture
def tokenizer(tmp_path):
    save_tokenizer(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


def dialogue(question, answer=None, id="d"):
    turns = [Turn("user", question)]
    if answer is not None:
        turns.append(Turn("assistant", answer))
    return Dialogue(tuple(turns), id)


def test_the_response_span_decodes_to_the_answer(tokenizer):
    chat = chat_format(tokenizer)
    encoded = chat.encode(dialogue("Is a an answer?", "a"))
    start, end = encoded.response
    assert tokenizer.decode(encoded.ids[start:end]) == "a"
    # "a" also stands in the question: the span must be that of the answer.
    assert start > len(chat.encode(dialogue("Is a an answer?")).ids) - 1


def test_no_special_token_is_doubled(tokenizer):
    ids = chat_format(tokenizer).encode(dialogue("Hi", "Hello")).ids
    assert ids.count(tokenizer.bos_token_id) == 1


def test_prompt_and_answer_share_their_prefix(tokenizer):
    chat = chat_format(tokenizer)
    whole, prompt = chat.encode(dialogue("Hi", "Hello")), chat.encode(dialogue("Hi"))
    assert whole.ids[: len(prompt)] == prompt.ids
    assert whole.response[0] == len(prompt)
    assert prompt.response == (len(prompt), len(prompt))


def test_a_model_without_a_template_gets_the_plain_one(tokenizer, tmp_path):
    tokenizer.chat_template = None
    chat = chat_format(tokenizer)
    assert chat.source == "plain"
    assert chat.render(dialogue("Hi", "Hello")).startswith("Question: Hi\nAnswer: Hello")
    encoded = chat.encode(dialogue("Hi", "Hello"))
    assert tokenizer.decode(encoded.ids[slice(*encoded.response)]) == "Hello"


def test_a_template_file_is_used_and_changes_the_hash(tokenizer, tmp_path):
    file = tmp_path / "t.jinja"
    file.write_text("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    chat = chat_format(tokenizer, file)
    assert chat.render(dialogue("Hi", "Hello")) == "[Hi][Hello]"
    assert chat.template_hash != chat_format(tokenizer).template_hash


def test_a_template_that_hides_the_answer_is_refused(tokenizer, tmp_path):
    file = tmp_path / "t.jinja"
    file.write_text("{{ messages[0]['content'] }}")
    with pytest.raises(DataError, match="does not show the assistant's answer"):
        chat_format(tokenizer, file).encode(dialogue("Hi", "Hello"))


def test_a_dialogue_longer_than_the_context_is_refused(tokenizer):
    with pytest.raises(DataError, match="but the model reads 16"):
        chat_format(tokenizer, max_length=16).encode(dialogue("x" * 50, "y"))


def test_a_dialogue_that_the_template_refuses_is_named(tiny_chat):
    import dataclasses

    picky = dataclasses.replace(tiny_chat, template="{{ raise_exception('roles must alternate') }}")
    dialogue = Dialogue((Turn("user", "a"), Turn("assistant", "b")), "line 7")
    with pytest.raises(DataError, match=r"line 7: the chat template refuses it \(roles must"):
        picky.encode(dialogue)
