"""Fine-tuning samples: rows of the usual formats as dialogues that end with the answer to learn.

A row is read as the first of these that it has the keys of:

messages                  a chat; its last assistant turn is the sample, later turns are left out
question, good, bad       an answer pair; which of the two answers is meant must be said
prompt, completion        texts, or lists of messages
prompt, response          texts
instruction, output       texts; "input", where it is filled, follows the instruction
question, answer          texts
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from persona.data.jsonl import check_texts
from persona.data.readers import chat_dialogue
from persona.data.types import Dialogue, Turn
from persona.errors import DataError

Answer = Literal["good", "bad"]

_TEXT_KEYS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("question", "answer"),
)


def sample_dialogue(
    row: Mapping[str, Any], default_id: str = "", answer: Answer | None = None
) -> Dialogue:
    """The dialogue of a row that ends with the answer to learn.

    default_id: its name where the row has none. answer: which answer of a pair is the sample.
    Raises: DataError for a row of no known format, or one without an answer or a prompt.
    """
    dialogue = _any_dialogue(row, default_id, answer)
    roles = [turn.role for turn in dialogue.turns]
    if "assistant" not in roles:
        raise DataError("there is no assistant turn; a sample ends with the answer to learn")
    last = len(roles) - 1 - roles[::-1].index("assistant")
    if last == 0:
        raise DataError("nothing comes before the answer; a sample needs a prompt")
    if not dialogue.turns[last].content.strip():
        raise DataError("the assistant's answer is empty")
    for turn in dialogue.turns:
        if any("\ud800" <= letter <= "\udfff" for letter in turn.content):
            raise DataError(f"the {turn.role}'s text holds half a surrogate pair, which is no text")
    return replace(dialogue, turns=dialogue.turns[: last + 1])


def _any_dialogue(row: Mapping[str, Any], default_id: str, answer: Answer | None) -> Dialogue:
    if "messages" in row:
        return chat_dialogue(row, default_id)
    if {"question", "good", "bad"} <= set(row):
        if answer is None:
            raise DataError(
                "an answer pair holds two samples; say which answer is meant (--answer good or bad)"
            )
        return _two_turns(row, default_id, "question", answer)
    for prompt, completion in _TEXT_KEYS:
        if {prompt, completion} <= set(row):
            if isinstance(row[prompt], list) and isinstance(row[completion], list):
                asked = chat_dialogue(row, default_id, prompt)
                answered = chat_dialogue(row, default_id, completion)
                return replace(asked, turns=asked.turns + answered.turns)
            return _two_turns(row, default_id, prompt, completion)
    known = "; ".join(", ".join(keys) for keys in (("messages",), *_TEXT_KEYS))
    raise DataError(f"no sample: needed are the keys {known}; or question, good, bad")


def _two_turns(row: Mapping[str, Any], default_id: str, prompt: str, completion: str) -> Dialogue:
    texts = {key: row[key] for key in (prompt, completion)}
    if prompt == "instruction" and row.get("input"):
        texts["input"] = row["input"]
    check_texts(texts)
    asked = "\n\n".join(texts[key] for key in (prompt, "input") if key in texts)
    name, domain = row.get("id"), row.get("domain")
    return Dialogue(
        (Turn("user", asked), Turn("assistant", texts[completion])),
        name if isinstance(name, str) and name else default_id,
        domain if isinstance(domain, str) else "",
    )
