"""What a stranger's value looks like in an error."""

import pytest

from persona.errors import DataError, Mistakes, ModelError, SeveralErrors, shown


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


def test_mistakes_are_told_together_and_each_once():
    mistakes = Mistakes()
    for error in (DataError("no domain"), ModelError("no model"), DataError("no domain")):
        with mistakes.noted():
            raise error
    with pytest.raises(SeveralErrors) as caught:
        mistakes.raise_all()
    assert [str(error) for error in caught.value.errors] == ["no domain", "no model"]


def test_one_mistake_is_raised_as_it_is_and_none_is_silence():
    mistakes = Mistakes()
    mistakes.raise_all()
    with mistakes.noted():
        raise ModelError("no model")
    with pytest.raises(ModelError, match="^no model$"):
        mistakes.raise_all()


def test_what_is_no_bad_input_is_not_noted():
    with pytest.raises(ZeroDivisionError), Mistakes().noted():
        raise ZeroDivisionError
