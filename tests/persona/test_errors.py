"""What a stranger's value looks like in an error."""

import pytest

from persona.errors import shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("word", "'word'"),
        (3, "3"),
        (None, "None"),
        ("x" * 500, "'" + "x" * 59),
    ],
)
def test_a_value_is_shown_short(value, text):
    assert shown(value) == text


def test_a_number_too_long_for_python_to_write_is_named():
    assert shown(10**5000) == "a int"


def test_a_value_that_holds_itself_a_billion_fold_is_shown_at_once():
    value = ["x"]
    for _ in range(60):
        value = [value, value]
    assert len(shown(value)) <= 60
    assert len(shown(value, 20)) == 20
