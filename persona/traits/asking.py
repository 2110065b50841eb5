"""Who is asked what: every question of a half, under an instruction for the trait, against it, or
none; and what was answered, in rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from persona.behaviour.judging.judge import JudgeItem
from persona.data.types import Dialogue, Turn
from persona.errors import DataError
from persona.models.hooks import InContext
from persona.models.pair import ModelPair
from persona.models.sampling import sample_answers
from persona.traits.artefacts import TraitArtefacts

Half = Literal["making", "proving"]
Pole = Literal["for", "against", "plain"]


def asked(artefacts: TraitArtefacts, half: Half, pole: Pole, draws: Sequence[int]) -> pd.DataFrame:
    """One row a question and draw: half, pole, question_id, draw, question, system.

    Draw d puts instruction (place of the question + d) before a question, so that every instruction
    meets as many questions; the poles of one row differ in nothing else. system: "" for `plain`.
    """
    questions = artefacts.making if half == "making" else artefacts.proving
    pairs = artefacts.instructions

    def system(place: int, draw: int) -> str:
        pair = pairs[(place + draw) % len(pairs)]
        return {"for": pair.pos, "against": pair.neg, "plain": ""}[pole]

    rows = [
        {
            "half": half,
            "pole": pole,
            "question_id": f"{half}-{place:03d}",
            "draw": draw,
            "question": question,
            "system": system(place, draw),
        }
        for draw in draws
        for place, question in enumerate(questions)
    ]
    return pd.DataFrame(rows)


def answer_rows(
    pair: ModelPair,
    rows: pd.DataFrame,
    *,
    condition: str,
    intervene: InContext | None = None,
    max_new_tokens: int = 40,
    temperature: float = 1.0,
    batch_size: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    """The rows with what the aligned side of a pair answers: columns condition and answer.

    The same seed draws the same random numbers under every condition, which are compared row by
    row. Raises: DataError where the model's template shows no system prompt.
    """
    prompts = [dialogue(row.question, row.system) for row in rows.itertuples()]
    with_system = [prompt for prompt in prompts if len(prompt.turns) > 1]
    if with_system:
        require_system_prompts(pair, with_system[0])
    with pair.active("aligned") as bridge:
        answers = sample_answers(
            bridge,
            pair.chat,
            prompts,
            intervene=intervene,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            batch_size=batch_size,
            seed=seed,
            description=f"Answering ({condition})",
        )
    return rows.assign(condition=condition, answer=answers)


def dialogue(question: str, system: str = "", answer: str | None = None) -> Dialogue:
    """A question behind its instruction, where there is one, and with its answer."""
    turns = [Turn("system", system)] if system else []
    turns.append(Turn("user", question))
    if answer is not None:
        turns.append(Turn("assistant", answer))
    return Dialogue(tuple(turns))


def judged_items(rows: pd.DataFrame) -> list[JudgeItem]:
    """What a judge sees: question and answer, never the instruction."""
    return [JudgeItem(str(row.question), str(row.answer)) for row in rows.itertuples()]


def as_column(scores: Sequence[Any]) -> list[float]:
    """Scores as numbers; NaN where there is none."""
    return [float("nan") if score is None else float(score) for score in scores]


def require_system_prompts(pair: ModelPair, prompt: Dialogue) -> None:
    """Raises: DataError where the template refuses a system prompt, or does not show it."""
    try:
        shown = pair.chat.encode(prompt).ids
    except DataError as error:
        raise DataError(f"questions with an instruction cannot be asked: {error}") from error
    if shown == pair.chat.encode(Dialogue(prompt.turns[1:])).ids:
        raise DataError(
            f"the chat template of {pair.names['aligned']} does not show a system prompt, which a "
            "trait's instructions are; take another model"
        )
