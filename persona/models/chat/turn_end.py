"""Where an answer ends: the tokens and, in the plain format, the text that close a turn."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from persona.models.chat.chat_format import ChatFormat
from persona.models.hooks import hf_model

PLAIN_ENDS = ("\n\n", "\nQuestion:")
"""What ends an answer in the plain format, which has no end-of-turn token."""


def end_tokens(model: Any, chat: ChatFormat) -> frozenset[int]:
    """The tokens that end a turn of this model: every one that any of its files names.

    The tokenizer's end of text; those that the generation settings add (Llama 3 and Gemma name the
    end of a turn only there); and the one that the chat template writes behind an answer.
    """
    config = getattr(hf_model(model), "generation_config", None)
    named = getattr(config, "eos_token_id", None)
    more = named if isinstance(named, list | tuple) else [named]
    ids = (chat.tokenizer.eos_token_id, *more, chat.end_of_turn)
    return frozenset(int(i) for i in ids if i is not None)


def before_plain_end(chat: ChatFormat, text: str) -> str:
    """The text of an answer before what ends it in the plain format; other formats' as it is."""
    for mark in PLAIN_ENDS if chat.source == "plain" else ():
        text = text.partition(mark)[0]
    return text


def until_end(ids: Sequence[int], ends: Collection[int]) -> list[int]:
    """The tokens of an answer before the first that ends its turn."""
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[:stop])
