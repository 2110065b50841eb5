"""Whatever a chat template does, it ends in text or in one line."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from persona.data.types import Dialogue, Turn
from persona.errors import DataError, ModelError
from persona.models.chat import template_program as module
from persona.models.chat.time_limit import TimeUpError, time_limit

ANSWERED = Dialogue((Turn("user", "Which oil?"), Turn("assistant", "Yes")), "line 7")
ALL = "{% for m in messages %}[{{ m.content }}]{% endfor %}"


def with_template(chat, template, **options):
    return dataclasses.replace(chat, template=template, **options)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{{ messages[0].content + none }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{% include 'x' %}", "no loader"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{{ 'a' * 10 ** 30 }}", "OverflowError"),
        ("{{ messages[0].text + 'a' }}", "has no attribute 'text'"),
        ("{% for %}", "Expected"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ raise_exception('') }}", "TemplateError"),
        ("{{ ().__class__ }}", "unsafe|does not show"),
    ],
)
def test_what_a_template_raises_becomes_one_line(tiny_chat, template, said):
    with pytest.raises(DataError, match=rf"^dialogue line 7: .*({said})") as caught:
        with_template(tiny_chat, template).encode(ANSWERED)
    assert "\n" not in str(caught.value)


def test_a_turn_without_content_is_refused_in_one_line(tiny_chat, unchecked_hints):
    nothing = Dialogue((Turn("user", None), Turn("assistant", "Yes")), "line 7")
    with pytest.raises(DataError, match="line 7: the chat template refuses it"):
        with_template(tiny_chat, "{% for m in messages %}{{ 'a' + m.content }}{% endfor %}").encode(
            nothing
        )


def test_a_template_that_does_not_end_is_stopped(tiny_chat, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.3)
    loops = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"
    started = time.monotonic()
    with pytest.raises(DataError, match="did not come to an end within 0 seconds"):
        with_template(tiny_chat, loops + ALL).encode_all([ANSWERED] * 3)
    with pytest.raises(DataError, match="did not come to an end"):
        with_template(tiny_chat, loops + ALL).render(ANSWERED)
    assert time.monotonic() - started < 5
    assert with_template(tiny_chat, ALL).encode(ANSWERED).ids  # nothing is left of the limit


def test_a_template_that_writes_beyond_measure_is_refused(tiny_chat):
    with pytest.raises(DataError, match=r"line 7: the chat template writes 2,000,01\d characters"):
        with_template(tiny_chat, "{{ 'a' * 2000000 }}" + ALL).encode(ANSWERED)


def test_a_long_dialogue_is_not_beyond_measure(tiny_chat):
    long = Dialogue((Turn("user", "a" * 1_500_000), Turn("assistant", "b")), "long")
    assert len(with_template(tiny_chat, ALL).render(long)) > 1_500_000


def test_a_text_of_no_tokens_is_refused(tiny_chat):
    with pytest.raises(DataError, match="has no tokens; the chat template writes nothing"):
        with_template(tiny_chat, "{{ '' }}").encode(Dialogue((Turn("user", "a"),), "p"))


def test_a_limit_of_time_ends_a_loop_in_any_thread_and_leaves_a_short_one_alone():
    caught = []

    def endless():
        try:
            with time_limit(0.1):
                while True:
                    pass
        except TimeUpError:
            caught.append(True)

    thread = threading.Thread(target=endless)
    thread.start()
    thread.join(5)
    assert caught == [True]
    for _ in range(50):
        with time_limit(5):
            pass


def test_an_argument_reaches_the_template_and_changes_the_hash(tiny_chat):
    template = ALL + "{{ 'on' if extra else 'off' }}"
    plain = with_template(tiny_chat, template)
    told = with_template(tiny_chat, template, arguments={"extra": True})
    assert (plain.render(ANSWERED)[-3:], told.render(ANSWERED)[-3:]) == ("off", "]on")
    assert plain.template_hash != told.template_hash
    assert plain.template_hash == with_template(tiny_chat, template, arguments={}).template_hash


def test_tools_are_given_like_any_argument(tiny_chat):
    template = "{{ tools[0].function.name if tools else '' }}" + ALL
    tools = [{"type": "function", "function": {"name": "add_oil"}}]
    told = with_template(tiny_chat, template, arguments={"tools": tools})
    assert told.render(ANSWERED).startswith("add_oil[")


@pytest.mark.parametrize("name", ["enable_thinkin", "messages", "tokenize", "chat_template"])
def test_an_argument_that_the_template_does_not_read_is_refused(tiny_chat, name):
    template = "{{ bos_token if enable_thinking else '' }}" + ALL
    with pytest.raises(ModelError, match=rf"no argument '{name}'; .*: bos_token, enable_thinking"):
        with_template(tiny_chat, template, arguments={name: True})


def test_an_argument_that_json_cannot_hold_is_refused(tiny_chat):
    with pytest.raises(ModelError, match="plain JSON"):
        with_template(tiny_chat, "{{ a }}" + ALL, arguments={"a": {1}})


@pytest.mark.parametrize(
    "template",
    [
        "{{ strftime_now('%d %b %Y') }}" + ALL,
        "{%- if strftime_now is defined -%}{% set d = strftime_now('%d %b %Y') %}{%- endif -%}"
        "{% macro day() %}{{ d }}{% endmacro %}{{ day() }}" + ALL,
    ],
)
def test_the_date_is_held_still_and_said(tiny_chat, template):
    chat = with_template(tiny_chat, template)
    assert chat.render(ANSWERED) == "26 Jul 2024[Which oil?][Yes]"
    assert any("it is held at 2024-07-26" in note for note in chat.notes())


def test_the_hash_is_of_the_template_alone_and_the_fingerprint_of_what_it_reads(tiny_chat):
    import copy

    other = copy.deepcopy(tiny_chat.tokenizer)
    other.bos_token = "<|user|>"
    reads = with_template(tiny_chat, "{{ bos_token }}" + ALL)
    reads_other = dataclasses.replace(reads, tokenizer=other)
    assert reads.template_hash == reads_other.template_hash
    assert reads.fingerprint != reads_other.fingerprint
    plain = with_template(tiny_chat, ALL)
    assert plain.fingerprint == dataclasses.replace(plain, tokenizer=other).fingerprint
    assert plain.fingerprint == plain.template_hash


def test_a_generation_tag_is_no_hindrance(tiny_chat):
    template = "{% generation %}{{ bos_token }}{% endgeneration %}" + ALL
    assert module.names_read(template) == {"bos_token", "messages"}
    assert with_template(tiny_chat, template).encode(ANSWERED).ids
