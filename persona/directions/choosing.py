"""Choosing one direction among candidates by a published rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from persona.errors import DataError


@dataclass(frozen=True)
class RefusalEvaluation:
    """What one candidate direction did to the behaviour that it stands for.

    position: token it was read at, counted from the end of the chat template.
    layer: block before which it was read (`resid_pre`).
    ablated_score: log odds of the behaviour, in nats, on prompts that bring it out, with the
        direction ablated everywhere.
    added_score: the same on prompts that do not, with the direction added at its layer.
    kl_nats: KL on prompts that do not, from the model as it is to the ablated one.
    """

    position: int
    layer: int
    ablated_score: float
    added_score: float
    kl_nats: float


def select_by_refusal_rule(
    evaluations: Sequence[RefusalEvaluation],
    n_layers: int,
    *,
    depth: float = 0.8,
    max_kl_nats: float = 0.1,
    min_added_score: float = 0.0,
) -> RefusalEvaluation:
    """The candidate with the smallest behaviour score when ablated, among those that qualify.

    A candidate qualifies where layer < floor(depth * n_layers), kl_nats <= max_kl_nats,
    added_score >= min_added_score (it induces the behaviour when added) and no number is NaN. Of
    equal ones the first stays.

    Raises: DataError where none qualifies; the line says how many each condition left.

    Source: Arditi et al. 2024, section 2.3 and appendix C, with the released code's rounding (down)
    of the depth.
    """
    last = int(n_layers * depth)
    complete = [e for e in evaluations if not any(map(math.isnan, _scores(e)))]
    early = [e for e in complete if e.layer < last]
    harmless = [e for e in early if e.kl_nats <= max_kl_nats]
    inducing = [e for e in harmless if e.added_score >= min_added_score]
    if not inducing:
        raise DataError(
            f"no candidate qualifies: of {len(evaluations)}, {len(early)} are complete and before "
            f"block {last}, {len(harmless)} of them with KL up to {max_kl_nats} nats, none of them "
            f"inducing at least {min_added_score}"
        )
    return min(inducing, key=lambda evaluation: evaluation.ablated_score)


def _scores(evaluation: RefusalEvaluation) -> tuple[float, float, float]:
    return evaluation.ablated_score, evaluation.added_score, evaluation.kl_nats
