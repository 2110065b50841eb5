"""Which written answers a fine-tune made likelier and unlikelier: where it learnt something.

A pair of answers to one question is scored by both models. The change of an answer is
log p(finetuned) - log p(aligned), mean over its tokens, nats per token; the shift is that of the
gap, bad answer less good one. Above 0 the fine-tune prefers the bad answer more than before.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import UNEDITED
from persona.data.types import AnswerPair
from persona.errors import DataError
from persona.intervals import bootstrap
from persona.models.pair import ModelPair

MEASURES = {"gap": "shift", "log_prob_good": "good", "log_prob_bad": "bad"}
"""Measure of a model -> its change."""


def answer_changes(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> pd.DataFrame:
    """One row a question: question_id, domain, shift, good, bad (nats per token), largest |shift|
    first.

    Raises: DataError for no questions.
    """
    if not questions:
        raise DataError("there are no questions whose answers could have changed")
    rows = score_pairs(
        pair,
        questions,
        UNEDITED,
        kl=False,
        token_budget=token_budget,
        description="Scoring written answers",
    )
    table = rows.pivot_table(
        index=["question_id", "domain", "measure"], columns="condition", values="value"
    )
    change = (table["finetuned"] - table["aligned"]).unstack("measure").rename(columns=MEASURES)
    found = change[list(MEASURES.values())].reset_index()
    order = found["shift"].abs().sort_values(ascending=False, kind="stable").index
    found = found.loc[order].reset_index(drop=True)
    found.columns.name = None
    return found


def changes_by_domain(changes: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """One row a domain: n, and each change with its 95 % interval over questions (low, high)."""
    rows = []
    for domain, group in changes.groupby("domain"):
        row: dict[str, object] = {"domain": domain, "n": len(group)}
        for name in MEASURES.values():
            interval = bootstrap(group[name].to_numpy(), seed=seed)
            row |= {
                name: interval.value,
                f"{name}_low": interval.low,
                f"{name}_high": interval.high,
            }
        rows.append(row)
    found = pd.DataFrame(rows)
    return found.sort_values("shift", ascending=False, key=abs).reset_index(drop=True)
