"""The four cells of the 2x2, read from a pair."""

from __future__ import annotations

from collections.abc import Sequence

from persona.activations import collect_rows
from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data.types import AnswerPair
from persona.directions.two_by_two import Cells
from persona.models.pair import SIDES, ModelPair


def collect_cells(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    *,
    layers: Sequence[int] | None = None,
    token_set: str = "response",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> Cells:
    """Mean activation of every question's good and bad answer in both models.

    layers: blocks to read, default all. Each answer weighs one.
    """
    wanted = list(range(pair.n_layers)) if layers is None else list(layers)
    read = {}
    for side in SIDES:
        with pair.active(side) as bridge:
            for answer in ("good", "bad"):
                dialogues = [
                    q.good_dialogue if answer == "good" else q.bad_dialogue for q in questions
                ]
                read[f"{side}_{answer}"] = collect_rows(
                    bridge,
                    pair.chat.encode_all(dialogues),
                    wanted,
                    token_set=token_set,
                    token_budget=token_budget,
                    description=f"Reading {answer} answers ({side})",
                )
    return Cells.of(read, [pair.space(layer) for layer in wanted])
