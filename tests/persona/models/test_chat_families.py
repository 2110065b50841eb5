"""The answer's tokens, and the tokens before it, under the templates of many families."""

from __future__ import annotations

import pytest
from chat_templates import FAMILIES, THE_ANSWER_TWICE, TOKENIZERS

from persona.activations import token_span
from persona.data.types import Dialogue, Turn
from persona.errors import DataError
from persona.models.chat.chat_format import PLAIN_TEMPLATE, ChatFormat

ANSWERS = (
    *("A", "a", "s", "k", "I", "think", "user", "assistant", "Which?", "model", "</s", "1"),
    *("<b>Yes</b>", "<", "No. I do not think so.", "Yes\n\nand no", "it is fine:", "### Response:"),
)


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def asked(question="Which?", *, history=True, system=False):
    turns = [Turn("system", "I think.")] if system else []
    if history:
        turns += [Turn("user", "A or a?"), Turn("assistant", "A")]
    return (*turns, Turn("user", question))


def text_of(tokenizer, ids):
    return tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


def test_the_span_is_the_answer_and_what_follows_is_the_template(tokenizer, family):
    chat = ChatFormat(tokenizer, family.template)
    for answer in ANSWERS:
        for turns in (asked(history=False), asked(), asked(answer)):
            encoded = chat.encode(Dialogue((*turns, Turn("assistant", answer)), "d"))
            start, end = encoded.response
            assert text_of(tokenizer, encoded.ids[start:end]).strip() == answer.strip()
            # A last character may share its token with the line end behind it.
            assert text_of(tokenizer, encoded.ids[start:]).lstrip() == answer + family.after


def test_sampling_begins_where_a_written_answer_begins(tokenizer, family):
    chat = ChatFormat(tokenizer, family.template)
    for answer in ("A", "I think so", "Yes", "which?", "assistant"):
        for turns in (asked(history=False), asked(), asked("a\n"), asked("It is ")):
            encoded = chat.encode(Dialogue((*turns, Turn("assistant", answer)), "d"))
            prompt = chat.encode(Dialogue(turns, "p"))
            assert prompt.ids == encoded.ids[: encoded.response[0]]
            assert prompt.response == (len(prompt), len(prompt))
            rendered = chat.render(Dialogue(turns, "p"), open_answer=True)
            assert chat.render(Dialogue((*turns, Turn("assistant", answer)))).startswith(rendered)


def test_the_plain_format_leaves_its_last_blank_to_the_answer(tokenizer):
    chat = ChatFormat(tokenizer, PLAIN_TEMPLATE, "plain")
    encoded = chat.encode(Dialogue((*asked(), Turn("assistant", "Yes, it is")), "d"))
    prompt = chat.encode(Dialogue(asked(), "p"))
    assert prompt.ids == encoded.ids[: encoded.response[0]]
    assert text_of(tokenizer, prompt.ids).endswith("Answer:")


def test_the_end_of_the_turn_is_read_off_the_template(tokenizer, family):
    end = ChatFormat(tokenizer, family.template).end_of_turn
    assert end == (family.end_of_turn and tokenizer.convert_tokens_to_ids(family.end_of_turn))


def test_a_system_turn_is_read_or_refused_in_one_line(tokenizer, family):
    chat = ChatFormat(tokenizer, family.template)
    dialogue = Dialogue((*asked(system=True), Turn("assistant", "I")), "line 3")
    if family.takes_system:
        start, end = chat.encode(dialogue).response
        assert text_of(tokenizer, chat.encode(dialogue).ids[start:end]).strip() == "I"
    else:
        with pytest.raises(DataError, match=r"^dialogue line 3: .* \(no system role\)$"):
            chat.encode(dialogue)


@pytest.mark.parametrize("answer", ["  A", "A\n", "\n\nI think \n"])
def test_blanks_around_an_answer_are_kept_or_cut_as_the_template_does(tokenizer, family, answer):
    chat = ChatFormat(tokenizer, family.template)
    encoded = chat.encode(Dialogue((*asked(), Turn("assistant", answer)), "d"))
    start, end = encoded.response
    read = text_of(tokenizer, encoded.ids[start:end])
    assert read.strip() == answer.strip()
    trims = "trim" in family.template
    assert text_of(tokenizer, encoded.ids[end:]) == family.after or (
        not trims and answer.endswith("\n")  # a last newline may share its token with the template
    )


def test_the_first_of_two_showings_is_the_answer(tokenizer):
    chat = ChatFormat(tokenizer, THE_ANSWER_TWICE)
    encoded = chat.encode(Dialogue((*asked(), Turn("assistant", "I")), "d"))
    start, end = encoded.response
    assert text_of(tokenizer, encoded.ids[start:end]).strip() == "I"
    assert text_of(tokenizer, encoded.ids[end:]).endswith("In short: I\n")


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content }}",
        "{% for m in messages %}[{{ m.content | upper }}]{% endfor %}",
        "{% for m in messages %}[{{ m.content | reverse }}]{% endfor %}",
        "{% for m in messages %}[{{ m.content[:3] }}]{% endfor %}",
        "{{ messages[-1].content }}{% for m in messages %}[{{ m.content }}]{% endfor %}",
    ],
)
def test_a_template_that_writes_answers_otherwise_is_refused_in_one_line(tokenizer, template):
    dialogue = Dialogue((Turn("user", "Which?"), Turn("assistant", "Only this")), "line 7")
    with pytest.raises(DataError, match=r"^dialogue line 7: the chat template does not show"):
        ChatFormat(tokenizer, template).encode(dialogue)


def test_an_answer_that_a_template_turns_into_itself_is_read(tokenizer):
    shouting = "{% for m in messages %}[{{ m.content | upper }}]{% endfor %}"
    encoded = ChatFormat(tokenizer, shouting).encode(
        Dialogue((Turn("user", "Which?"), Turn("assistant", "A")), "d")
    )
    assert text_of(tokenizer, encoded.ids[slice(*encoded.response)]) == "A"


THINKING = "<think>\nI think it is A.\n</think>\n\nA"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_response_begins_behind_the_block_of_thoughts(tokenizer, name):
    chat = ChatFormat(tokenizer, FAMILIES[name].template)
    encoded = chat.encode(Dialogue((*asked(), Turn("assistant", THINKING)), "d"))
    start, end = encoded.response
    assert text_of(tokenizer, encoded.ids[start:end]).strip() == "A"
    assert text_of(tokenizer, encoded.ids[end:]) == FAMILIES[name].after
    whole = text_of(tokenizer, encoded.ids[slice(*token_span(encoded, "whole_response"))]).strip()
    assert whole == ("A" if name == "r1" else THINKING)  # R1's template leaves thoughts out


def test_thoughts_without_an_opening_are_the_answers_own_words_unless_the_template_moves_them(
    tokenizer,
):
    answer = "I think it is A.\n</think>\n\nA"
    read = {}
    for name in ("chatml", "qwen3", "r1"):
        encoded = ChatFormat(tokenizer, FAMILIES[name].template).encode(
            Dialogue((*asked(), Turn("assistant", answer)), "d")
        )
        read[name] = text_of(tokenizer, encoded.ids[slice(*encoded.response)]).strip()
    assert read == {"chatml": answer, "qwen3": "A", "r1": "A"}


@pytest.mark.parametrize("answer", ["<think>\nstill at it", "<think>\nall</think>\n", "<think>"])
def test_an_answer_of_thoughts_alone_is_refused(tokenizer, family, answer):
    with pytest.raises(DataError, match=r"dialogue d: its answer is a block of thoughts"):
        ChatFormat(tokenizer, family.template).encode(
            Dialogue((*asked(), Turn("assistant", answer)), "d")
        )


@pytest.mark.parametrize("answer", ["", "  ", "\n"])
def test_an_empty_answer_is_refused(tokenizer, family, answer):
    with pytest.raises(DataError, match="dialogue d: "):
        ChatFormat(tokenizer, family.template).encode(
            Dialogue((*asked(), Turn("assistant", answer)), "d")
        )


def test_a_thinking_template_can_be_told_not_to_think(tokenizer):
    template = FAMILIES["qwen3"].template
    silent = ChatFormat(tokenizer, template, arguments={"enable_thinking": False})
    [note] = ChatFormat(tokenizer, template).notes()
    assert "answers are sampled after the latter" in note
    assert silent.notes() == []
    prompt = Dialogue(asked(), "p")
    assert silent.encode(prompt).ids == ChatFormat(tokenizer, template).encode(prompt).ids
    assert silent.template_hash != ChatFormat(tokenizer, template).template_hash
