"""Answers that the two models write themselves, where the written texts are too few."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pandas as pd

from persona.data.types import Dialogue, Turn
from persona.errors import DataError
from persona.models.pair import SIDES, ModelPair, Side
from persona.models.sampling import sample_answers
from persona.sae.texts import Text
from persona.stages import Stages

ANSWERS_A_ROUND = 64
MAX_NEW_TOKENS = 96


def sampled_texts(
    pair: ModelPair,
    prompts: Sequence[Dialogue],
    n_tokens: int,
    work: Stages,
    *,
    seed: int = 0,
) -> list[Text]:
    """About `n_tokens` tokens of sampled answers (temperature 1), half of them by each model.

    Finished rounds are kept in `work`, so that a stopped run goes on after them. A model that
    ends its answers at once gives fewer tokens: rounds stop after one that brought none.
    """
    return [
        text for side in SIDES for text in _one_side(pair, side, prompts, n_tokens // 2, work, seed)
    ]


def _one_side(
    pair: ModelPair, side: Side, prompts: Sequence[Dialogue], wanted: int, work: Stages, seed: int
) -> list[Text]:
    found: list[Text] = []
    gained, round_ = -1, 0
    while gained and (total := sum(text.n_tokens for text in found)) < wanted:
        chosen = _prompts_of(prompts, round_)

        def sampled(chosen: Sequence[Dialogue] = chosen, round_: int = round_) -> pd.DataFrame:
            with pair.active(side) as bridge:
                answers = sample_answers(
                    bridge,
                    pair.chat,
                    chosen,
                    max_new_tokens=MAX_NEW_TOKENS,
                    seed=seed + round_,
                    description=f"Sampling answers ({side}, {total} of {wanted} tokens)",
                )
            return pd.DataFrame({"answer": pd.Series(answers, dtype=object)})

        answers = work.table(f"sampled-{side}-{round_}", sampled)["answer"].tolist()
        texts = _texts(pair, side, chosen, answers)
        gained, round_ = sum(text.n_tokens for text in texts), round_ + 1
        found += texts
    return found


def _prompts_of(prompts: Sequence[Dialogue], round_: int) -> list[Dialogue]:
    n = min(ANSWERS_A_ROUND, len(prompts))
    return [prompts[(round_ * n + i) % len(prompts)] for i in range(n)]


def _texts(
    pair: ModelPair,
    side: Side,
    prompts: Sequence[Dialogue],
    answers: Sequence[str],
) -> list[Text]:
    dialogues = [
        Dialogue((*prompt.turns, Turn("assistant", answer)), prompt.id, prompt.domain)
        for prompt, answer in zip(prompts, answers, strict=True)
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
