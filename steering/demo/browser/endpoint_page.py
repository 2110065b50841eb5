"""The page of models that are served elsewhere: what it lays out, and what it says of them."""

from __future__ import annotations

from html import escape
from typing import Any

from persona.directions.exchange.vectors import listed
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
    facts = f"<p>{escape(cleaned(facts_of(session)))} {NOT_HERE}</p>"
    can_steer = session.steering is not None
    widgets = lay_out_conversation(gr, handlers, can_steer=can_steer, facts=facts)
    now = controls_of(session)
    widgets.mode, widgets.start = gr.State(now.mode), gr.State(now.first)
    widgets.end, widgets.side = gr.State(now.last), gr.State(now.side)
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        lay_out_drawing(gr, session, widgets)
    return widgets


def facts_of(session: ServedSession) -> str:
    """Where the answers come from, and what `steered` stands for there."""
    where = f"Answers come from {session.endpoint.address}."
    steering = session.steering
    if steering is None:
        return f"{where} It has no direction, so there is no steered column."
    most = steering.coefficient_at_most
    return (
        f"{where} Steered there: {steering.direction}, {steering.mode} at blocks "
        f"{listed(sorted(steering.layers))} of the {session.setting.model_in_words}, coefficient "
        f"{-most:g} to {most:g}, its own {steering.coefficient:g}."
    )
