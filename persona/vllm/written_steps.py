"""Whether vLLM did with each request what its edits ask for, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from persona.errors import SteeringError
from persona.vllm.edit_sets import EditSet
from persona.vllm.worker_room import Step


def require_written(
    steps: Sequence[Step],
    edits: EditSet | None,
    n_prompt: int,
    answer_begins: int,
    n_tokens: int,
    what: str,
) -> int:
    """How many tokens of a text its edits chose; what they wrote is held against that.

    n_tokens: of the text that the model must have computed.
    Raises: SteeringError where a token was computed that no hook was shown (a hole), or where a
        step wrote another number of tokens than its edits choose of it.
    """
    end = 0
    for step in steps:
        if step.first > end:
            raise SteeringError(
                f"{what}: the tokens {end} to {step.first - 1} were taken from a cache, where no "
                "edit and no reading saw them"
            )
        chosen = 0
        if edits is not None:
            index = torch.arange(step.first, step.first + step.n_tokens)[None]
            begins, prompt = torch.tensor([[answer_begins]]), torch.tensor([[n_prompt]])
            chosen = int(edits.written(index, begins, prompt).sum())
        if step.n_written != chosen:
            raise SteeringError(
                f"{what}: {step.n_written} tokens were written in the step from token "
                f"{step.first} on, where the edits choose {chosen}"
            )
        end = max(end, step.first + step.n_tokens)
    if end != n_tokens:
        raise SteeringError(
            f"{what}: hooks were shown {end} of its {n_tokens} tokens; the others went unedited"
        )
    if edits is None:
        return 0
    index = torch.arange(n_tokens)[None]
    begins, prompt = torch.tensor([[answer_begins]]), torch.tensor([[n_prompt]])
    return int(edits.written(index, begins, prompt).sum())


def require_some(edits: Sequence[EditSet | None], n_written: Sequence[int]) -> None:
    """Raises: SteeringError for edits that met no token to write in any request."""
    totals: dict[int, int] = {}
    by_id = {id(one): one for one in edits if one is not None}
    for one, n in zip(edits, n_written, strict=True):
        if one is not None:
            totals[id(one)] = totals.get(id(one), 0) + n
    for name, total in totals.items():
        if not total:
            edit = by_id[name].edits[0]
            raise SteeringError(
                f"the edit '{edit.label}' at {edit.hook_name} met no token to write: nothing was "
                "steered. Check its positions"
            )
