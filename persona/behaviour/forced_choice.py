"""What a model can still do: which of the given answers does it find likeliest?

The answers to a question are read as chat answers, as in `score_pairs`; nothing is sampled. An item
is correct where the right choice has a higher log-probability than every wrong one, and its margin
is by how much: log p(right) - max log p(wrong). A tie is not correct.

Two log-probabilities of a choice: of the whole answer (the sum over its tokens, nats), and per
token (their mean, nats per token). The sum is the default: it is the probability that the model
says this, the shipped choices are about equally long and none begins with another, and on them the
default aligned model answers more items rightly by it. Choices of unequal length are better
compared per token, since a sum prefers the short ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.scoring import Condition, score_dialogues
from persona.data.tasks import TaskItem
from persona.errors import DataError
from persona.intervals import Estimate, bootstrap
from persona.models.pair import ModelPair
from persona.rows import ALIGNED, FINETUNED

MOST_ITEMS_AT_ONCE = 256
"""Items whose tokens are held together; more are scored in turns."""


def score_tasks(
    pair: ModelPair,
    items: Sequence[TaskItem],
    conditions: Sequence[Condition],
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Scoring tasks",
) -> pd.DataFrame:
    """One row per condition x item x measure.

    Measures: task_correct (1 or 0) and task_margin (nats), by the log-probability of each whole
    choice; task_correct_per_token and task_margin_per_token (nats per token), by its tokens' mean.
    Columns: condition, seed, question_id, domain (the item's kind), measure, value, and the
    conditions' facts. The choices of an item share a row of their question where the model and
    every intervention allow it; no logits are kept.

    Examples:
        >>> from persona import load_pair
        >>> from persona.behaviour import UNEDITED, score_tasks, task_accuracy
        >>> from persona.data import load_tasks
        >>> rows = score_tasks(load_pair(), load_tasks(), UNEDITED)  # doctest: +SKIP
        >>> task_accuracy(rows)["finetuned"].minus_aligned  # doctest: +SKIP
    """
    readings = np.empty((len(conditions), len(items), 4))
    sizes = np.array([len(item.choices) for item in items])
    for n_choices in np.unique(sizes):
        (places,) = np.nonzero(sizes == n_choices)
        for start in range(0, len(places), MOST_ITEMS_AT_ONCE):
            part = places[start : start + MOST_ITEMS_AT_ONCE]
            readings[:, part] = _readings(
                pair, [items[i] for i in part], conditions, token_budget, description
            )
    return pd.DataFrame(
        {
            "condition": condition.name,
            "seed": condition.seed,
            "question_id": item.id,
            "domain": item.kind,
            "measure": measure,
            "value": float(value),
            **condition.facts,
        }
        for condition, of_condition in zip(conditions, readings, strict=True)
        for item, values in zip(items, of_condition, strict=True)
        for measure, value in zip(TASK_MEASURES, values, strict=True)
    )


TASK_MEASURES = (
    "task_correct",
    "task_margin",
    "task_correct_per_token",
    "task_margin_per_token",
)


@dataclass(frozen=True)
class TaskAccuracy:
    """What one condition makes of a set of items.

    accuracy: mean of the measure over the items, with its interval.
    minus_aligned, minus_finetuned: the same items' difference to that model, paired item by item;
        below 0 the condition does worse. None where the rows lack that model. An interval without
        width says that no item differs, not that none ever would.
    """

    accuracy: Estimate
    minus_aligned: Estimate | None
    minus_finetuned: Estimate | None


def task_accuracy(
    rows: pd.DataFrame,
    *,
    measure: str = "task_correct",
    kind: str | None = None,
    seed: int = 0,
) -> dict[str, TaskAccuracy]:
    """Condition -> its accuracy on the items, and how far it lies from both models.

    rows: of `score_tasks`, other measures beside them. Draws of one condition are averaged.
    measure: task_correct gives shares of items, task_margin nats. kind: only these items.
    Intervals are 95 % bootstraps over items.
    Raises: DataError where there are no such rows, one is not a number, or a condition was read on
        an item that one of the two models was not.
    """
    chosen = rows[rows["measure"] == measure]
    if kind is not None:
        chosen = chosen[chosen["domain"] == kind]
    if chosen.empty:
        of_kind = "" if kind is None else f" of the kind {kind!r}"
        raise DataError(f"there are no rows of {measure}{of_kind}; score_tasks makes them")
    if chosen["value"].isna().any():
        first = chosen[chosen["value"].isna()].iloc[0]
        raise DataError(
            f"{measure} is not a number for {first['question_id']!r} under {first['condition']!r}"
        )
    table = chosen.pivot_table("value", "question_id", "condition", aggfunc="mean")
    return {name: _accuracy(table, name, seed) for name in chosen["condition"].unique()}


def _accuracy(table: pd.DataFrame, name: str, seed: int) -> TaskAccuracy:
    read = table[table[name].notna()]
    to_models: dict[str, Estimate | None] = {ALIGNED: None, FINETUNED: None}
    for model in to_models:
        if model not in table:
            continue
        if read[model].isna().any():
            lacking = read.index[read[model].isna()][0]
            raise DataError(f"item {lacking!r} was read under {name!r} but not under {model!r}")
        to_models[model] = bootstrap((read[name] - read[model]).to_numpy(), seed=seed)
    return TaskAccuracy(
        bootstrap(read[name].to_numpy(), seed=seed), to_models[ALIGNED], to_models[FINETUNED]
    )


def _readings(
    pair: ModelPair,
    items: Sequence[TaskItem],
    conditions: Sequence[Condition],
    token_budget: int,
    description: str,
) -> NDArray[np.float64]:
    """[condition item measure], in the order of `TASK_MEASURES`; all items have as many choices."""
    dialogues = pair.chat.encode_all([d for item in items for d in item.dialogues])
    n_choices = len(items[0].choices)
    found = score_dialogues(
        pair,
        dialogues,
        conditions,
        token_budget=token_budget,
        group=n_choices,
        description=description,
    )
    shape = (len(conditions), len(items), n_choices)
    per_token = np.stack([reading.log_prob for reading in found]).reshape(shape)
    n_tokens = np.array([d.response[1] - d.response[0] for d in dialogues]).reshape(shape[1:])
    answers = np.array([item.answer for item in items])
    measures = []
    for log_probs in (per_token * n_tokens, per_token):
        margins = _margins(log_probs, answers)
        measures += [np.where(np.isnan(margins), np.nan, margins > 0), margins]
    return np.stack(measures, axis=-1)


def _margins(log_probs: NDArray[np.float64], answers: NDArray[np.int_]) -> NDArray[np.float64]:
    """[... item choice] -> [... item]: the right choice's less that of the best wrong one."""
    is_right = np.arange(log_probs.shape[-1]) == answers[:, None]
    right = log_probs[..., is_right]
    wrong = np.where(is_right, -np.inf, log_probs).max(axis=-1)
    return np.asarray(right - wrong)
