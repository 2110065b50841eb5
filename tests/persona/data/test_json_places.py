"""The line of a JSON value is the one on which a person finds it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.data.json_places import line_of, lines_of_values

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@given(VALUES)
def test_every_value_of_any_json_has_a_line_and_no_other_has(value):
    text = json.dumps(value, indent=1)
    found = lines_of_values(text)
    assert found[()] == 1

    def count(one):
        inside = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        return 1 + sum(map(count, inside))

    assert len(found) == count(value)
    assert max(found.values()) <= text.count("\n") + 1


def test_the_line_is_the_one_on_which_the_value_begins():
    text = '{\n "a": [\n  "x",\n  {"b": "y\\n\\u00e9"}],\n "c" :\n  3}'
    found = lines_of_values(text)
    assert found[("a",)] == 2
    assert found[("a", 0)] == 3
    assert found[("a", 1, "b")] == 4
    assert found[("c",)] == 6


@pytest.mark.parametrize(
    ("name", "line"),
    [("a[1].b", 3), ("a[1].missing", 3), ("a[7]", 1), ("nothing", None), ("", None)],
)
def test_a_value_that_is_not_there_has_the_line_of_what_should_hold_it(name, line):
    assert line_of('{"a": [\n1,\n{"b": 2}]}', name) == line


@pytest.mark.parametrize("text", ["", "{", '{"a" 1}', "[" * 100_000])
def test_what_is_no_json_has_no_line(text):
    assert line_of(text, "a") is None
