"""Errors that the person at the keyboard can act on.

Each carries one clear line: what was needed, what came (name, shape, model), what to do next.
The command line prints that line without a traceback and exits with status 2.
"""

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 200


def shown(value: object, length: int = 60) -> str:
    """A stranger's value as an error shows it, cut off at `length`.

    repr would write out a list whose entries share one list, and so on thirty times, as a billion.
    """
    try:
        return _SHORT.repr(value)[:length]
    except (ValueError, RecursionError):  # a number of thousands of digits
        return f"a {type(value).__name__}"


class PersonaError(Exception):
    """Base of every error raised for bad input; its text is one line meant for the user."""


class DataError(PersonaError):
    """A data file is missing, empty or malformed; the message names the file and the line."""


class ModelError(PersonaError):
    """A model, adapter or tokenizer cannot be loaded, or two models do not fit together."""


class SpaceMismatchError(PersonaError):
    """A direction belongs to another activation space than the one it is used in."""


class SteeringError(PersonaError):
    """An intervention is not possible as asked, or one of its hooks never fired."""


class JudgeError(PersonaError):
    """A judge cannot be reached, refuses, or gives no probabilities to read a score from."""


class EngineError(PersonaError):
    """A shard of work could not be done or kept, or the cluster asked for is not there."""


def is_panic(error: BaseException) -> bool:
    """Whether a library written in Rust has stopped, which is no Exception in Python."""
    return type(error).__name__ == "PanicException"
