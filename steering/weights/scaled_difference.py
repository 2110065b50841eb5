"""Part of a fine-tune, or more than all of it: the difference of the weights, scaled."""

from __future__ import annotations

import copy
from typing import Any

import torch

from persona.errors import SteeringError
from steering.edits.edit import require_finite


@torch.no_grad()
def scaled_difference(aligned: Any, finetuned: Any, scale: float) -> Any:
    """A copy of the fine-tuned plain model with weights W_a + scale (W_f - W_a).

    0 is the aligned model, 1 the fine-tuned one. Exact up to the rounding of the number format;
    integers are those of the fine-tuned model.
    Raises: SteeringError for a scale that is not finite, and for two models whose weights are not
        of the same names and shapes.
    """
    require_finite(scale, "a scale")
    before = aligned.state_dict()
    mixed = copy.deepcopy(finetuned)
    after = mixed.state_dict()
    if strange := [n for n in {**before, **after} if _shape(before, n) != _shape(after, n)]:
        raise SteeringError(
            f"{strange[0]} is {_shape(before, strange[0])} in the aligned model and "
            f"{_shape(after, strange[0])} in the fine-tuned one: their difference cannot be scaled"
        )
    done: set[int] = set()
    for name, weight in after.items():
        if weight.is_floating_point() and weight.data_ptr() not in done:  # a tied one comes twice
            done.add(weight.data_ptr())
            start = before[name].to(weight.device).float()
            weight.copy_(start + scale * (weight.float() - start))
    return mixed


def _shape(state: dict[str, Any], name: str) -> Any:
    return tuple(state[name].shape) if name in state else "absent"
