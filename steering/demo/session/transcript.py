"""A session as JSON lines: what it takes to read it, and to repeat it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from persona.files import atomic_write_text
from steering.demo.session.conversation import Conversation
from steering.demo.session.exchanges import Exchange
from steering.demo.session.generation import NO_ID


def save_transcript(session: Conversation, path: str | Path) -> Path:
    """Write one line about the session, then one for each answer in the order given; the path."""
    head = {
        "type": "session",
        "aligned": session.names["aligned"],
        "finetuned": session.names["finetuned"],
        **session.origin,
    }
    lines = [head, *(exchange_record(exchange) for exchange in session.exchanges)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    # A lone surrogate of a terminal in another encoding is no text that UTF-8 can hold.
    atomic_write_text(path, text.encode("utf-8", "replace").decode("utf-8"))
    return Path(path)


def exchange_record(exchange: Exchange) -> dict[str, Any]:
    """One answer, JSON-able; without tokens where an endpoint sent it in pieces of text."""
    return {
        "type": "answer",
        "column": exchange.column,
        "question": exchange.question,
        "answer": exchange.answer.text.strip(),
        "ended": exchange.answer.ended,
        "alone": exchange.alone,
        "setting": None if exchange.setting is None else dataclasses.asdict(exchange.setting),
        "sampling": dataclasses.asdict(exchange.sampling),
        "direction": exchange.steered_with if exchange.vector is None else exchange.vector.name,
        "system_prompt": exchange.system_prompt,
        "further": [
            {"direction": each.vector.name, "setting": dataclasses.asdict(each.setting)}
            for each in exchange.further
        ],
        "layer": exchange.layer,
        "tokens": [
            [token.text, token.projection] for token in exchange.answer.tokens if token.id != NO_ID
        ],
    }
