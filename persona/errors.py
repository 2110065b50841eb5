"""Errors that the person at the keyboard can act on.

Each carries one clear line: what was needed, what came (name, shape, model), what to do next.
The command line prints that line without a traceback and exits with status 2.
"""


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
