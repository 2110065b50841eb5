"""The log-probability gap and the damage: condition by condition, question by question.

gap = mean per-token log p(bad answer) - mean per-token log p(good answer), nats per token, each
given the chat-formatted question. Above 0 the model prefers the bad answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.scoring import Condition, score_dialogues
from persona.data.types import AnswerPair, Dialogue, NeutralText
from persona.models.pair import ModelPair

Asked = Callable[[Dialogue], Dialogue]
"""A dialogue -> the same answer behind another prompt, which the conditions read in its place; KL
is still from the aligned model on the dialogue itself."""


def score_pairs(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    conditions: Sequence[Condition],
    *,
    kl: bool = True,
    asked: Asked | None = None,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Scoring answers",
) -> pd.DataFrame:
    """One row per condition x question x measure.

    Measures: log_prob_good, log_prob_bad, gap (nats per token); with `kl` also kl_good_nats,
    KL(aligned || condition) per token of the good answer, teacher-forced.
    Columns: condition, seed, question_id, domain, measure, value, and the conditions' facts.
    """
    dialogues = [d for q in questions for d in (q.good_dialogue, q.bad_dialogue)]
    readings = score_dialogues(
        pair,
        pair.chat.encode_all(dialogues),
        conditions,
        kl_of=[kl, False] * len(questions),
        asked=pair.chat.encode_all([asked(d) for d in dialogues]) if asked else None,
        token_budget=token_budget,
        group=2,
        description=description,
    )
    rows = []
    for condition, reading in zip(conditions, readings, strict=True):
        for i, question in enumerate(questions):
            good, bad = reading.log_prob[2 * i], reading.log_prob[2 * i + 1]
            measures = {"log_prob_good": good, "log_prob_bad": bad, "gap": bad - good}
            if kl:
                measures["kl_good_nats"] = reading.kl[2 * i]
            rows += _rows(condition, question.id, question.domain, measures)
    return pd.DataFrame(rows)


def score_neutral(
    pair: ModelPair,
    texts: Sequence[NeutralText],
    conditions: Sequence[Condition],
    *,
    asked: Asked | None = None,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Scoring neutral text",
) -> pd.DataFrame:
    """Damage on neutral text: one row per condition x text x measure.

    Measures: neutral_ce_nats (cross-entropy of the written answer) and neutral_kl_nats
    (KL(aligned || condition)), both per token. Columns as in `score_pairs`.
    """
    dialogues = [text.dialogue for text in texts]
    readings = score_dialogues(
        pair,
        pair.chat.encode_all(dialogues),
        conditions,
        kl_of=[True] * len(texts),
        asked=pair.chat.encode_all([asked(d) for d in dialogues]) if asked else None,
        token_budget=token_budget,
        description=description,
    )
    rows = []
    for condition, reading in zip(conditions, readings, strict=True):
        for i, text in enumerate(texts):
            measures = {
                "neutral_ce_nats": -reading.log_prob[i],
                "neutral_kl_nats": reading.kl[i],
            }
            rows += _rows(condition, text.id, text.kind, measures)
    return pd.DataFrame(rows)


def _rows(
    condition: Condition, question_id: str, domain: str, measures: dict[str, float]
) -> list[dict[str, object]]:
    return [
        {
            "condition": condition.name,
            "seed": condition.seed,
            "question_id": question_id,
            "domain": domain,
            "measure": measure,
            "value": float(value),
            **condition.facts,
        }
        for measure, value in measures.items()
    ]
