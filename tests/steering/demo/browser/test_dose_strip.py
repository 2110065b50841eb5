"""Under the slider stands where a dose leaves the damage budget, as far as it was measured."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from demo_cases import planted_vector

from steering.demo import Session, from_persona_vector
from steering.demo.browser.dose_strip import strip_html
from steering.demo.session.evidence import Dose, Evidence

DOSES = (Dose(0.0, 0.0), Dose(1.0, 0.03), Dose(1.25, 0.07))


@pytest.fixture
def session(tiny_pair):
    vector = from_persona_vector(planted_vector(tiny_pair))
    vector = replace(vector, evidence=Evidence((), DOSES, 10, ()))
    return Session(tiny_pair, vector, vector.default_setting)


def zones(html):
    found = re.findall(r'<u class="(\w+)" style="left:([\d.]+)%;width:([\d.]+)%">', html)
    return [(kind, float(left), float(width)) for kind, left, width in found]


def test_green_to_the_edge_hatched_to_what_was_measured_dotted_beyond(session):
    html = strip_html(session, None)
    # 0.05 lies halfway between 1.0 and 1.25; the slider ends at 1.5.
    assert zones(html) == [("in", 0.0, 75.0), ("out", 75.0, 8.3), ("unknown", 83.3, 16.7)]
    assert "From 1.1 on neutral text loses more than 0.05 nats" in html


def test_within_the_budget_nothing_is_hatched(session):
    html = strip_html(session, DOSES[:2])
    assert [kind for kind, *_ in zones(html)] == ["in", "unknown"]
    assert "Up to 1 neutral text loses at most 0.05 nats a token, the damage budget" in html


@pytest.mark.parametrize(
    "change", [{"layers": (2, 2)}, {"side": "aligned"}, {"mode": "ablate"}, {"mode": "add"}]
)
def test_the_doses_of_the_run_say_nothing_of_another_setting(session, change):
    session.change(**change)
    html = strip_html(session, None)
    assert zones(html) == []
    assert html == "" if change == {"mode": "add"} else "was not measured at this setting" in html


def test_with_another_direction_beside_nothing_is_said_of_the_first_alone(session, tiny_pair):
    session.load_further(from_persona_vector(planted_vector(tiny_pair, (0, 3), seed=7)))
    assert zones(strip_html(session, None))
    session.change_further(0, coefficient=0.5)
    assert zones(strip_html(session, None)) == []


def test_without_a_direction_there_is_no_strip(tiny_pair):
    assert strip_html(Session(tiny_pair), None) == ""
