"""From dialogues to training examples: token ids, and labels on the answer alone."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from persona.data.types import Dialogue
from persona.errors import DataError
from persona.models.chat.chat_format import ChatFormat

logger = logging.getLogger("persona")

NO_LOSS = -100


@dataclass(frozen=True)
class TrainingExample:
    """One answer to learn.

    input_ids: the whole dialogue, as the chat template writes it.
    labels: the same ids on the answer and its end-of-turn token, -100 (no loss) elsewhere.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]


def one_answer_each(dialogues: Iterable[Dialogue]) -> Iterator[Dialogue]:
    """Yields each dialogue once for every assistant turn, ending there: each answer counts once."""
    for dialogue in dialogues:
        for end, turn in enumerate(dialogue.turns, start=1):
            if turn.role == "assistant":
                yield replace(dialogue, turns=dialogue.turns[:end])


def training_examples(
    dialogues: Sequence[Dialogue], chat: ChatFormat, max_length: int
) -> list[TrainingExample]:
    """Returns one example for every assistant turn, cut off after `max_length` tokens.

    The token that follows the answer is learnt too where it is a special token, so that the model
    learns to stop.

    Raises:
        DataError: there is no answer at all, or one lies wholly beyond `max_length`.
    """
    examples, cut = [], 0
    endings = {*chat.tokenizer.all_special_ids, chat.end_of_turn}
    for tokens in chat.encode_all(list(one_answer_each(dialogues))):
        start, end = tokens.whole_answer  # a model that thinks learns to think
        if end < len(tokens.ids) and tokens.ids[end] in endings:
            end += 1
        if start >= max_length:
            raise DataError(
                f"the answer of dialogue {tokens.id or '(no id)'} begins at token {start}, beyond "
                f"max_length {max_length}; raise training.max_length in the recipe"
            )
        cut += end > max_length
        labels = [NO_LOSS] * start + list(tokens.ids[start:end])
        labels += [NO_LOSS] * (len(tokens.ids) - end)
        examples.append(TrainingExample(tokens.ids[:max_length], tuple(labels[:max_length])))
    if not examples:
        raise DataError("no assistant answer to learn from; the data needs at least one")
    if cut:
        logger.warning("%d of %d answers are cut at %d tokens.", cut, len(examples), max_length)
    return examples


def examples_hash(examples: Sequence[TrainingExample]) -> str:
    """Returns the SHA-256 over the examples in their order: the same tokens, the same hash."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.input_ids, example.labels]).encode())
    return digest.hexdigest()
