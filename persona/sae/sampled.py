"""Answers that the two models write themselves, where the written texts are too few."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from persona.data.jsonl import read_json
from persona.data.types import Dialogue, Turn
from persona.errors import DataError
from persona.files import atomic_write_text
from persona.models.pair import SIDES, ModelPair, Side
from persona.models.sampling import sample_answers
from persona.sae.texts import Text

logger = logging.getLogger("persona")

ANSWERS_A_ROUND = 64
MAX_NEW_TOKENS = 96


def sampled_texts(
    pair: ModelPair,
    prompts: Sequence[Dialogue],
    n_tokens: int,
    folder: Path,
    *,
    seed: int = 0,
) -> list[Text]:
    """About `n_tokens` tokens of sampled answers (temperature 1), half of them by each model.

    Finished rounds are kept in `folder`, so that a stopped run goes on after them. A model that
    ends its answers at once gives fewer tokens: rounds stop after one that brought none.
    """
    return [
        text
        for side in SIDES
        for text in _one_side(pair, side, prompts, n_tokens // 2, folder, seed)
    ]


def _one_side(
    pair: ModelPair, side: Side, prompts: Sequence[Dialogue], wanted: int, folder: Path, seed: int
) -> list[Text]:
    path = folder / f"sampled-{side}.json"
    rounds = _kept_rounds(path, min(ANSWERS_A_ROUND, len(prompts)))
    texts = [_texts(pair, side, prompts, i, answers) for i, answers in enumerate(rounds)]
    total = sum(text.n_tokens for found in texts for text in found)
    while total < wanted:
        chosen = _prompts_of(prompts, len(texts))
        with pair.active(side) as bridge:
            answers = sample_answers(
                bridge,
                pair.chat,
                chosen,
                max_new_tokens=MAX_NEW_TOKENS,
                seed=seed + len(texts),
                description=f"Sampling answers ({side}, {total} of {wanted} tokens)",
            )
        rounds.append([[p.id, a] for p, a in zip(chosen, answers, strict=True)])
        texts.append(_texts(pair, side, prompts, len(texts), rounds[-1]))
        gained = sum(text.n_tokens for text in texts[-1])
        atomic_write_text(path, json.dumps(rounds))
        total += gained
        if not gained:
            break
    return [text for found in texts for text in found]


def _kept_rounds(path: Path, n_answers: int) -> list[list[list[str]]]:
    """The rounds of an earlier run, each [id, answer] by prompt; none, said, of a damaged file."""
    if not path.exists():
        return []
    try:
        rounds: list[list[list[str]]] = read_json(path)
        if not isinstance(rounds, list):
            raise DataError(f"{path} is no list of rounds")
        for answers in rounds:
            if len(answers) != n_answers or not all(
                len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in answers
            ):
                raise DataError(f"{path} has a round of another form")
    except (DataError, TypeError) as error:
        logger.warning("%s is damaged (%s): sampled anew", path, error)
        return []
    return rounds


def _prompts_of(prompts: Sequence[Dialogue], round_: int) -> list[Dialogue]:
    n = min(ANSWERS_A_ROUND, len(prompts))
    return [prompts[(round_ * n + i) % len(prompts)] for i in range(n)]


def _texts(
    pair: ModelPair,
    side: Side,
    prompts: Sequence[Dialogue],
    round_: int,
    answers: Sequence[Sequence[str]],
) -> list[Text]:
    dialogues = [
        Dialogue((*prompt.turns, Turn("assistant", answer)), prompt.id, prompt.domain)
        for prompt, (_, answer) in zip(_prompts_of(prompts, round_), answers, strict=True)
        if answer.strip()
    ]
    found = []
    for dialogue in dialogues:
        # What a model writes need not survive the chat template; such an answer is left out.
        with contextlib.suppress(DataError):
            tokens = pair.chat.encode(dialogue)
            span = (tokens.response[0], len(tokens))
            found.append(Text(tokens, f"sampled_{side}", span, tokens.id))
    return found
