"""Talking to a pair of models while one of them is steered: what `persona chat` and `app` share."""

from steering.demo.notebook.exploration import Choice, Exploration, Explored
from steering.demo.notebook.explorer import Explorer, explore
from steering.demo.session.generation import Sampling, Token
from steering.demo.session.session import Answer, Column, Exchange, Session
from steering.demo.session.transcript import save_transcript
from steering.demo.session.vector import (
    DemoVector,
    Setting,
    edits_of,
    from_persona_vector,
    load_vector,
    save_vector,
)

__all__ = [
    "Answer",
    "Choice",
    "Column",
    "DemoVector",
    "Exchange",
    "Exploration",
    "Explored",
    "Explorer",
    "Sampling",
    "Session",
    "Setting",
    "Token",
    "edits_of",
    "explore",
    "from_persona_vector",
    "load_vector",
    "save_transcript",
    "save_vector",
]
