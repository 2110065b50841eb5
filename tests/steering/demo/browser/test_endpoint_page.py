"""The page of a served model: its answers and its facts, and nothing that needs activations."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from demo_cases import planted_vector, serving
from gradio_page import Browser

from persona.errors import PersonaError
from steering.demo import EndpointError, Sampling, Session, from_persona_vector, open_endpoint
from steering.demo.browser.conversation_handlers import ConversationHandlers
from steering.demo.browser.endpoint_page import NOT_HERE
from steering.demo.browser.handlers import Handlers
from steering.demo.browser.page import PageState, column_html
from steering.demo.browser.page_controls import controls_of
from steering.serving import KEY_VARIABLE, ServedModels, http_app

pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

GREEDY = Sampling(max_new_tokens=12, temperature=0.0)
KEY = "0123456789abcdef"


@pytest.fixture
def in_memory(tiny_pair):
    vector = from_persona_vector(planted_vector(tiny_pair), "<b>planted")
    return Session(tiny_pair, vector, vector.default_setting, GREEDY)


@pytest.fixture
def address(in_memory, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    served = ServedModels(in_memory.pair, in_memory.vector, in_memory.setting)
    with serving(http_app(served, KEY)) as at:
        yield at


@pytest.fixture
def session(address):
    return open_endpoint(address, sampling=GREEDY)


def said(handlers):
    session = handlers.tab("one").session
    return {column: session.of(column)[-1].answer.text for column in session.columns}


def test_the_page_answers_as_that_of_the_pair_in_memory_at_every_coefficient(session, in_memory):
    served, here = ConversationHandlers(session), Handlers(in_memory)
    list(served.ask("one", "Is it safe?", controls_of(session)))
    list(here.ask("one", "Is it safe?", controls_of(in_memory)))
    steered = set()
    for coefficient in (0.0, 0.5, 1.0):
        list(served.ask_again("one", replace(controls_of(session), coefficient=coefficient)))
        list(here.ask_again("one", replace(controls_of(in_memory), coefficient=coefficient)))
        assert said(served) == said(here)
        steered.add(said(served)["steered"])
    assert len(steered) == 3


def test_what_reads_activations_is_not_there_and_the_page_says_so(session):
    gradio = pytest.importorskip("gradio")
    from steering.demo.browser.interface import build

    shown = [block for block in build(session).blocks.values() if hasattr(block, "label")]
    labels = {str(block.label) for block in shown if not isinstance(block, gradio.State)}
    assert labels.isdisjoint({"Mode", "Steered model", "First block", "Dose and response"})
    assert {"Temperature", "System prompt to compare with"} <= labels
    [slider] = [block for block in shown if getattr(block, "elem_id", "") == "coefficient"]
    assert (slider.minimum, slider.maximum, slider.value) == (-4.0, 4.0, 1.0)
    [top] = [block.value for block in shown if getattr(block, "elem_id", "") == "top"]
    assert NOT_HERE in top and session.endpoint.address in top
    assert "&lt;b&gt;planted, restore at blocks 1-2 of the fine-tuned model" in top
    assert "coefficient -4 to 4, its own 1" in top and KEY not in top


def test_an_endpoint_without_a_direction_says_so_on_the_page(in_memory):
    with serving(http_app(ServedModels(in_memory.pair))) as address:
        session = open_endpoint(address)
        assert "no direction, so there is no steered column" in session.facts
        *_, page = ConversationHandlers(session).ask("one", "Hi", controls_of(session))
        assert [bool(column) for column in page] == [True, True, False, False, False, False]


def test_no_page_no_link_and_no_file_holds_the_key(session):
    handlers = ConversationHandlers(session)
    *_, page = handlers.ask("one", "Hi", controls_of(session))
    kept = Path(handlers.transcript("one")).read_text(encoding="utf-8")
    link = handlers.link("one", "Hi", controls_of(session))
    assert "Direction: &lt;b&gt;planted. Steered: restore, coefficient 1, blocks 1-2" in kept
    assert KEY not in "".join([*page, kept, link])
    assert "footer" not in "".join(page) and "legend" not in "".join(page)


def test_a_link_sets_the_coefficient_and_cannot_set_what_the_server_has_chosen(session):
    handlers = ConversationHandlers(session)
    now = controls_of(session)
    linked = handlers.open("one", {"coefficient": "0.5", "question": "Hi"}, now)
    assert (linked.problems, linked.question) == ((), "Hi")
    assert handlers.tab("one").session.setting.coefficient == 0.5
    [problem] = handlers.open("two", {"mode": "add"}, now).problems
    assert "only the coefficient can be chosen here" in problem
    again = handlers.link("one", "Hi", replace(now, coefficient=0.5))
    assert "coefficient=0.5&mode=restore&blocks=1-2&model=finetuned" in again


def test_after_an_answer_that_broke_off_nothing_is_shown_as_being_written(session, monkeypatch):
    handlers = ConversationHandlers(session)

    def breaking(request, served):
        yield "So", ""
        raise EndpointError("it broke off")

    monkeypatch.setattr(session.endpoint, "pieces", breaking)
    frames = []
    with pytest.raises(PersonaError, match="it broke off"):
        frames += (frame for frame in handlers.ask("one", "Hi", controls_of(session)))
    seen = []
    with pytest.raises(PersonaError):
        for frame in handlers.ask("one", "Hi", controls_of(session)):
            seen.append(frame)
    assert "▍" in seen[0][1] and seen[-1] == handlers.page("one")


def test_the_served_page_answers_as_it_comes_and_says_what_went_wrong(session, in_memory):
    pytest.importorskip("gradio")
    from steering.demo.browser.interface import launch

    app, at = launch(session)
    try:
        unseen = [None] * 4  # mode, blocks and side: the server's own
        shown = Browser(at, [0.5, *unseen, 0.0, 12, 0, False, ""])
        *pieces, last = shown.frames("Hi")
        assert len(pieces) > 6
        in_memory.change(coefficient=0.5)
        list(in_memory.answer("steered", "Hi"))
        own = column_html(PageState(in_memory), "steered")
        assert "restore, coefficient 0.5, blocks 1-2, fine-tuned model" in last
        assert plain(own) in plain(last)
        anew = [one for one in app.fns.values() if one.api_name.startswith("asked_again")]
        assert len(anew) == 2  # the slider and the button; no block, mode or direction to change
        session.endpoint.address = "http://127.0.0.1:9/v1"
        assert "the endpoint http://127.0.0.1:9/v1 cannot be reached" in shown.asks("And?")
    finally:
        app.close(verbose=False)


def plain(html):
    """The answer in a column's HTML, without its colours."""
    turns = re.search(r'class="turns"><p>(.*?)<small>', html[html.index("Steered") :])
    return re.sub("<[^>]*>", "", turns[1])
