"""The four cells of the 2x2, read from a pair."""

from __future__ import annotations

import typing
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from persona.activations import collect_rows
from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data.types import AnswerPair
from persona.directions.two_by_two import CellName, Cells
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
    names = typing.get_args(CellName)
    read = collect_cells_named(
        pair, questions, names, wanted, token_set=token_set, token_budget=token_budget
    )
    return Cells.of(read, [pair.space(layer) for layer in wanted])


def collect_cells_named(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    names: Sequence[CellName],
    layers: Sequence[int],
    *,
    token_set: str = "response",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> dict[str, Float[Tensor, "question layer d_model"]]:
    """Some of the four cells by name; each side is opened once at most."""
    read = {}
    for side in SIDES:
        answers = [name.removeprefix(f"{side}_") for name in names if name.startswith(side)]
        if not answers:
            continue
        with pair.active(side) as bridge:
            for answer in answers:
                dialogues = [
                    q.good_dialogue if answer == "good" else q.bad_dialogue for q in questions
                ]
                read[f"{side}_{answer}"] = collect_rows(
                    bridge,
                    pair.chat.encode_all(dialogues),
                    layers,
                    token_set=token_set,
                    token_budget=token_budget,
                    description=f"Reading {answer} answers ({side})",
                )
    return read
