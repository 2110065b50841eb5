"""Talking to a pair of models while one of them is steered: what `persona chat` and `app` share."""

from steering.demo.browser.interface import import_gradio, launch
from steering.demo.notebook.exploration import Exploration
from steering.demo.notebook.explorer import Explorer, explore
from steering.demo.notebook.text_readings import Choice, Explored
from steering.demo.session.answer_reading import in_words, limit_of, read_newest
from steering.demo.session.conversation import Conversation
from steering.demo.session.endpoint import EndpointError
from steering.demo.session.exchanges import Answer, Column, Exchange
from steering.demo.session.generation import Sampling, Token
from steering.demo.session.one_prompt import SteeredText, default_way, steered_texts
from steering.demo.session.served_session import ServedSession, open_endpoint
from steering.demo.session.session import Session
from steering.demo.session.starting import direction_file, open_session, parse_layers
from steering.demo.session.transcript import save_transcript
from steering.demo.session.vector import (
    DemoVector,
    Setting,
    edits_of,
    from_persona_vector,
    load_demo_vector,
    model_of_vector,
    save_demo_vector,
)
from steering.demo.terminal.answer_views import View, live_view, plain_view
from steering.demo.terminal.commands import HELP, obey

__all__ = [
    "HELP",
    "Answer",
    "Choice",
    "Column",
    "Conversation",
    "DemoVector",
    "EndpointError",
    "Exchange",
    "Exploration",
    "Explored",
    "Explorer",
    "Sampling",
    "ServedSession",
    "Session",
    "Setting",
    "SteeredText",
    "Token",
    "View",
    "default_way",
    "direction_file",
    "edits_of",
    "explore",
    "from_persona_vector",
    "import_gradio",
    "in_words",
    "launch",
    "limit_of",
    "live_view",
    "load_demo_vector",
    "model_of_vector",
    "obey",
    "open_endpoint",
    "open_session",
    "parse_layers",
    "plain_view",
    "read_newest",
    "save_demo_vector",
    "save_transcript",
    "steered_texts",
]
