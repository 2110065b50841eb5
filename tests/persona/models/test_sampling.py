"""What counts as a sampled answer: what stands behind the thoughts, inside the context."""

from __future__ import annotations

import dataclasses
import logging
from types import SimpleNamespace

import pytest
import torch
from chat_templates import FAMILIES, byte_level_tokenizer

from persona.behaviour import sample_answers
from persona.data.types import Dialogue, Turn
from persona.errors import DataError, ModelError
from persona.models import load_pair
from persona.models.chat.chat_format import ChatFormat
from persona.models.hooks import hf_model, hooked, resid_post
from persona.models.precision import Placement


def asked(text="Which oil?"):
    return Dialogue((Turn("user", text),), "the long one")


class Scripted(torch.nn.Module):
    """A model that writes one text whatever it is asked, and keeps what it was asked."""

    hook_dict = ()

    def __init__(self, tokenizer, text):
        super().__init__()
        self.original_model = torch.nn.Linear(1, 1)
        self.original_model.generation_config = SimpleNamespace(eos_token_id=None)
        self.ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        self.asked = []

    def generate(self, ids, *, max_new_tokens, **options):
        self.asked.append((ids, max_new_tokens))
        written = torch.tensor([self.ids[:max_new_tokens]] * len(ids), dtype=torch.long)
        return torch.cat([ids, written], dim=1)


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer()


def answer_of(chat, text, **options):
    model = Scripted(chat.tokenizer, text)
    return sample_answers(model, chat, [asked()], **options)[0]


@pytest.mark.parametrize(
    ("family", "written", "answer"),
    [
        ("chatml", "<think>\nI think.\n</think>\n\nYes.<|im_end|>more", "Yes."),
        ("chatml", "Yes, <think> is a tag, </think> too.", "Yes, <think> is a tag, </think> too."),
        ("r1", "<think>\n</think>\n\nYes.</s>", "Yes."),
        ("qwen3", "Yes.<|im_end|>\n<|im_start|>user", "Yes."),
        ("chatml", "\n\n Yes. ", "Yes."),
    ],
)
def test_an_answer_is_what_stands_behind_the_thoughts(tokenizer, family, written, answer, caplog):
    chat = ChatFormat(tokenizer, FAMILIES[family].template)
    assert answer_of(chat, written, max_new_tokens=200) == answer
    assert not caplog.records


def test_thoughts_that_never_end_leave_an_empty_answer_and_are_said(tokenizer, caplog):
    chat = ChatFormat(tokenizer, FAMILIES["chatml"].template)
    with caplog.at_level(logging.WARNING, logger="persona"):
        assert answer_of(chat, "<think>\nI think and think", max_new_tokens=200) == ""
    assert "1 of 1 answers are empty: the model did not close its block of thoughts" in caplog.text


def test_a_prompt_that_opens_the_thoughts_is_known(tokenizer):
    refuses_answers = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no') }}"
        "{% endif %}{{ m.content }}{% endfor %}{{ '<|assistant|><think>\n' }}"
    )
    chat = ChatFormat(tokenizer, refuses_answers)
    assert answer_of(chat, "I think.</think>\nYes.", max_new_tokens=200) == "Yes."
    assert answer_of(chat, "I think.", max_new_tokens=200) == ""


def test_tags_that_are_special_tokens_are_seen(tokenizer):
    import copy

    tagged = copy.deepcopy(tokenizer)
    tagged.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    chat = ChatFormat(tagged, FAMILIES["chatml"].template)
    assert answer_of(chat, "[THINK]I think.[/THINK]Yes.<|im_end|>", max_new_tokens=200) == "Yes."
    assert answer_of(chat, "[THINK]I think.", max_new_tokens=200) == ""


@pytest.fixture
def short_chat(tiny_chat):
    return dataclasses.replace(tiny_chat, max_length=32)


def test_a_prompt_that_fills_the_context_is_named(short_chat):
    n = len(short_chat.encode(asked("")).ids)
    full = asked("x" * (32 - n))
    with pytest.raises(DataError, match=r"the prompt the long one fills .* of 32 tokens, which"):
        sample_answers(Scripted(short_chat.tokenizer, "Yes"), short_chat, [asked("a"), full])


def test_an_answer_near_the_end_of_the_context_is_cut_alone_and_said(short_chat, caplog):
    n = len(short_chat.encode(asked("")).ids)
    tight = asked("x" * (32 - n - 2))
    model = Scripted(short_chat.tokenizer, "Yes, it is")
    with caplog.at_level(logging.WARNING, logger="persona"):
        answers = sample_answers(model, short_chat, [asked("a"), tight], max_new_tokens=10)
    assert answers == ["Yes, it is", "Ye"]
    assert [(len(ids), most) for ids, most in model.asked] == [(1, 10), (1, 2)]
    assert "1 of 2 answers end before 10 tokens" in caplog.text


def test_a_model_answers_up_to_its_last_position(tiny_pair):
    n = len(tiny_pair.chat.encode(asked("")).ids)
    longest = tiny_pair.chat.max_length
    assert longest is not None
    with tiny_pair.active("aligned") as bridge:
        texts = [asked("x" * (longest - n - 1)), asked("a")]
        tight, _ = sample_answers(bridge, tiny_pair.chat, texts, max_new_tokens=6, temperature=0)
    assert len(tiny_pair.tokenizer(tight, add_special_tokens=False)["input_ids"]) <= 3  # one token


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_named(tiny_llama, temperature):
    pair = load_pair(tiny_llama, tiny_llama, placement=Placement.of("float32", "cpu"))
    with pair.active("aligned") as bridge:
        broken = [(resid_post(2), lambda resid: resid * float("nan"))]
        with hooked(bridge, broken), pytest.raises(ModelError, match="logits are not finite"):
            sample_answers(bridge, pair.chat, [asked()], max_new_tokens=3, temperature=temperature)
        assert not hf_model(bridge)._forward_hooks
