"""Errors that the person at the keyboard can act on.

Each carries one clear line: what was needed, what came (name, shape, model), what to do next.
The command line prints that line without a traceback and exits with status 2.
"""

import contextlib
import reprlib
from collections.abc import Iterator, Sequence

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


class SeveralErrors(PersonaError):
    """Several things are wrong, each an error of its own; they are told together."""

    def __init__(self, errors: Sequence[PersonaError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = tuple(errors)


class Mistakes:
    """Collects errors, so that a person is told all of them at once and not one after the other."""

    def __init__(self) -> None:
        self.found: list[PersonaError] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Notes the error that ends the block, if it is bad input, and goes on behind it."""
        try:
            yield
        except SeveralErrors as error:
            self.found += error.errors
        except PersonaError as error:
            self.found.append(error)

    def raise_all(self) -> None:
        """Raises: the error that was noted; SeveralErrors where there are more."""
        unlike = list({str(error): error for error in self.found}.values())
        if len(unlike) == 1:
            raise unlike[0]
        if unlike:
            raise SeveralErrors(unlike)


def is_panic(error: BaseException) -> bool:
    """Whether a library written in Rust has stopped, which is no Exception in Python."""
    return type(error).__name__ == "PanicException"
