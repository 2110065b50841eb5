"""Rows of a file as tokens, with the line in every complaint."""

from __future__ import annotations

from collections.abc import Sequence

from persona.data.jsonl import Line
from persona.data.samples import Answer, sample_dialogue
from persona.errors import DataError
from persona.models.chat.chat_format import ChatFormat, TokenizedDialogue


def encoded_lines(
    chat: ChatFormat, path: str, lines: Sequence[Line], answer: Answer | None = None
) -> list[TokenizedDialogue]:
    """Each line's dialogue as tokens; see `sample_dialogue`.

    Raises: DataError, with the file and the line, for one that is no sample or too long.
    """
    found = []
    for line in lines:
        try:
            dialogue = sample_dialogue(line.json_object(), f"line {line.number}", answer)
            found.append(chat.encode(dialogue))
        except DataError as error:
            raise DataError(f"{path}, line {line.number}: {error}") from error
    return found
