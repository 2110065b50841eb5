"""A link holds the settings and no more, and is read as what a stranger has typed."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl

import pytest
from demo_cases import planted_vector

from persona.errors import PersonaError
from steering.demo import Session, from_persona_vector
from steering.demo.browser.handlers import Handlers
from steering.demo.browser.page_controls import Controls
from steering.demo.browser.share_link import mark_of, read_link, write_link

NOW = Controls(1.0, "restore", 1, 2, "finetuned", 0.0, 6, 0, False, "Be careful.")


@pytest.fixture
def session(tiny_pair):
    vector = from_persona_vector(planted_vector(tiny_pair), "/home/me/secret/direction.safetensors")
    return Session(tiny_pair, vector, vector.default_setting)


def query_of(link):
    assert link.startswith("?")
    return dict(parse_qsl(link[1:], strict_parsing=True))


def test_what_a_link_is_made_of_comes_back(session):
    made = Controls(-0.5, "add", 2, 2, "aligned", 0.3, 40, 7, True, "Be kind & honest.")
    link = write_link(" Is 100 % fine? ☃ & more ", made, session)
    read = read_link(query_of(link), NOW, session)
    assert read.problems == ()
    assert read.question == "Is 100 % fine? ☃ & more"
    assert read.controls == made


def test_a_link_holds_no_path_no_name_and_no_key(session):
    handlers = Handlers(session)
    key = handlers.own("")
    link = handlers.link(key, "Why?", NOW)
    assert not any(word in link for word in ("secret", "home", "safetensors", key))
    assert query_of(link)["direction"] == mark_of(session.vector)


def test_a_link_of_another_direction_says_so(session, tiny_pair):
    other = from_persona_vector(planted_vector(tiny_pair, seed=5))
    link = write_link("Why?", NOW, Session(tiny_pair, other, other.default_setting))
    [problem] = read_link(query_of(link), NOW, session).problems
    assert "made with another direction" in problem


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coefficient", "nan"),
        ("coefficient", "1e9"),
        ("coefficient", "much"),
        ("mode", "<script>alert(1)</script>"),
        ("blocks", "9-3"),
        ("blocks", "70"),
        ("blocks", "1" * 5000),
        ("model", "evil"),
        ("temperature", "-1"),
        ("tokens", "100000"),
        ("tokens", "1.5"),
        ("seed", "-4"),
        ("seed", "9" * 400),
        ("keep", "maybe"),
        ("question", "a" * 2001),
        ("question", "half \ud83d a face"),
        ("system", "a" * 2001),
        ("direction", "../../etc"),
        ("further", "many"),
        ("unknown", "x"),
        ("key", "x" * 9999),
    ],
)
def test_a_setting_that_means_nothing_is_named_and_left_as_it_was(session, name, value):
    read = read_link({name: value, "seed": "3"} if name != "seed" else {name: value}, NOW, session)
    assert len(read.problems) == 1 and name in read.problems[0]
    assert len(read.problems[0]) < 200
    assert read.controls == (NOW if name == "seed" else replace(NOW, seed=3))
    assert read.question == ""


def test_a_link_with_a_thousand_settings_is_not_read(session):
    read = read_link({f"x{i}": "1" for i in range(1000)}, NOW, session)
    assert read.problems == ("the link has 1000 settings; none is read",)


def test_a_page_opened_by_a_link_is_set_as_it_says(session):
    handlers = Handlers(session)
    linked = handlers.open("one", {"coefficient": "0.25", "blocks": "2"}, NOW)
    assert (linked.controls.coefficient, linked.controls.first) == (0.25, 2)
    assert handlers.tab("one").session.setting.layers == (2, 2)
    assert handlers.tab("two").session.setting.coefficient == 1.0


def test_what_a_link_could_not_hold_is_no_link(session):
    with pytest.raises(PersonaError, match="a link holds at most 2,000"):
        write_link("a" * 2001, NOW, session)
