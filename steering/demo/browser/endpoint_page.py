"""The page of models that are served elsewhere: what it lays out, and what it says of them."""

from __future__ import annotations

from html import escape
from typing import Any

from persona.report.wording import cleaned
from steering.demo.browser.conversation_handlers import ConversationHandlers
from steering.demo.browser.page_controls import controls_of
from steering.demo.browser.page_layout import Widgets, lay_out_conversation, lay_out_drawing
from steering.demo.session.served_session import ServedSession

NOT_HERE = (
    "The models run there: what reads or changes activations (colours of tokens, gaps, the light, "
    "dose and response, other directions, modes and blocks) is not on this page."
)


def lay_out_endpoint(gr: Any, handlers: ConversationHandlers[ServedSession]) -> Widgets:
    """The widgets, inside the Blocks that are open.

    Mode, blocks and side are the endpoint's: values that the page hands in, and no widget shows.
    """
    session = handlers.first
    facts = f"<p>{escape(cleaned(session.facts))} {NOT_HERE}</p>"
    can_steer = session.steering is not None
    widgets = lay_out_conversation(gr, handlers, can_steer=can_steer, facts=facts)
    now = controls_of(session)
    widgets.mode, widgets.start = gr.State(now.mode), gr.State(now.first)
    widgets.end, widgets.side = gr.State(now.last), gr.State(now.side)
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        lay_out_drawing(gr, session, widgets)
    return widgets
