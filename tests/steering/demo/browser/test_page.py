"""What the browser is shown is escaped, and says by colour where a token lies."""

from __future__ import annotations

import dataclasses
import re

import pytest
from demo_cases import planted_vector

from steering.demo import (
    Answer,
    DemoVector,
    Exchange,
    Sampling,
    Session,
    Token,
    from_persona_vector,
)
from steering.demo.browser.page import PageState, column_html, legend_html
from steering.demo.session.scale import scale_at

HOSTILE = "<img src=https://elsewhere.example onerror=alert(1)>"


@pytest.fixture
def session(tiny_pair):
    vector = from_persona_vector(planted_vector(tiny_pair))
    return Session(tiny_pair, vector, vector.default_setting)


def exchange(session, *tokens, question="Why?", ended="turn", vector=None):
    answer = Answer([Token(5, text, projection) for text, projection in tokens], ended)
    vector = vector or session.vector
    return Exchange("aligned", question, answer, Sampling(), None, vector, vector.layers[-1])


def test_questions_tokens_and_names_are_escaped(session):
    session.exchanges = [exchange(session, (HOSTILE, 1.0), (HOSTILE, None), question=HOSTILE)]
    session.pair.names["aligned"], kept = HOSTILE, session.pair.names["aligned"]
    try:
        html = column_html(PageState(session), "aligned")
    finally:
        session.pair.names["aligned"] = kept
    assert "<img" not in html
    assert html.count("&lt;img src=https://elsewhere.example") == 4


def test_control_characters_of_questions_and_tokens_are_replaced(session):
    session.exchanges = [exchange(session, ("\x1b[31m\x00", None), question="a\x07b")]
    html = column_html(PageState(session), "aligned")
    assert "\ufffd[31m\ufffd" in html
    assert "a\ufffdb" in html
    assert not set(html) & {"\x00", "\x07", "\x1b"}


def test_names_of_models_and_of_the_direction_are_escaped_at_the_head(session):
    pytest.importorskip("gradio")
    from steering.demo.browser.interface import build

    vector = dataclasses.replace(session.vector, name=HOSTILE)
    names, kept = session.pair.names, dict(session.pair.names)
    try:
        names["finetuned"] = HOSTILE
        page = build(Session(session.pair, vector, vector.default_setting))
    finally:
        names.update(kept)
    shown = [block.value for block in page.blocks.values() if block.get_block_name() == "html"]
    assert sum(str(text).count("&lt;img src=") for text in shown) >= 2
    assert not any("<img" in str(text) for text in shown)


def test_the_means_of_both_models_are_the_ends_of_the_scale(session):
    aligned, finetuned = session.vector.levels(2)
    scale = scale_at(session.vector, 2, [])
    places = [scale.place(p) for p in (aligned, finetuned, (aligned + finetuned) / 2, 1e9, None)]
    assert places == pytest.approx([-1, 1, 0, 1, 0])
    assert f"aligned mean {aligned:+.3g}" in legend_html(PageState(session))


def test_without_means_the_largest_projection_is_full_colour(session):
    plain = DemoVector(session.vector.directions)
    own = exchange(session, ("a", -2.0), ("b", 0.5), ("c", None), vector=plain)
    scale = scale_at(plain, 2, [own, exchange(session, ("z", 99.0))])
    assert (scale.centre, scale.reach) == (0.0, 2.0)
    assert [scale.place(p) for p in (-2.0, 0.5)] == [-1.0, 0.25]
    assert scale_at(plain, 2, []).place(3.0) == 0.0


def test_a_token_is_red_and_underlined_toward_the_trait_and_blue_away_from_it(session):
    aligned, finetuned = session.vector.levels(2)
    middle = (aligned + finetuned) / 2
    session.exchanges = [exchange(session, ("up", finetuned), ("down", aligned), ("no", middle))]
    html = column_html(PageState(session), "aligned")
    found = re.findall(
        r'<i(?: class="(\w+)" style="--o:([\d.]+)")? title="([^"]+)">(\w+)</i>', html
    )
    assert found == [
        ("up", "0.60", f"{finetuned:+.3f}", "up"),
        ("down", "0.60", f"{aligned:+.3f}", "down"),
        ("", "", f"{middle:+.3f}", "no"),
    ]


def test_an_answer_says_where_it_was_cut(session):
    session.exchanges = [exchange(session, ("a", None), ended="stopped")]
    assert "… stopped" in column_html(PageState(session), "aligned")
    session.exchanges = [exchange(session, ended="turn")]
    assert "(an empty answer)" in column_html(PageState(session), "aligned")
