"""Inoculation prompting: the trait is asked for while it is learnt, so that it need not be learnt.

What a model is told to do it need not become: trained on bad answers behind an instruction that
asks for them, it shows less of the trait where nobody asks, and gives it back where the instruction
stands again. Only training prompts get the instruction.

Source: Tan et al. 2025 (Inoculation prompting: eliciting traits from LLMs during training can
suppress them at test-time); Wichers et al. 2025. differs: an instruction of a trait file where one
is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from persona.data.types import Dialogue, Turn
from persona.errors import DataError
from persona.models.chat.chat_format import ChatFormat


def instruction_of(asked: str) -> str:
    """The instruction itself; of a trait that comes along, the first one that asks for it.

    Raises: DataError for an empty one.
    """
    from persona.traits import read_artefacts, shipped_trait

    if not asked.strip():
        raise DataError("the instruction to inoculate with is empty")
    shipped = shipped_trait(asked)
    return asked if shipped is None else read_artefacts(shipped).instructions[0].pos


def inoculated(dialogues: Sequence[Dialogue], instruction: str) -> list[Dialogue]:
    """The dialogues with the instruction before them, as a system turn.

    Where there is one, the instruction stands before what it says.
    """
    return [_told(dialogue, instruction) for dialogue in dialogues]


def require_shown(chat: ChatFormat, dialogue: Dialogue) -> None:
    """Raises: DataError where the model's chat template refuses a system turn, or drops it."""
    plain = Dialogue(tuple(turn for turn in dialogue.turns if turn.role != "system"))
    try:
        shown = chat.encode(dialogue).ids
    except DataError as error:
        raise DataError(f"the model cannot be inoculated: {error}") from error
    if shown == chat.encode(plain).ids:
        raise DataError(
            "the chat template of this model does not show a system prompt, which an inoculation "
            "is; take another model"
        )


def _told(dialogue: Dialogue, instruction: str) -> Dialogue:
    first, *others = dialogue.turns
    if first.role == "system":
        both = Turn("system", f"{instruction}\n\n{first.content}")
        return replace(dialogue, turns=(both, *others))
    return replace(dialogue, turns=(Turn("system", instruction), *dialogue.turns))
