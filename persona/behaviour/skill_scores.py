"""What a model knows of a skill, condition by condition, and how much of it an edit leaves.

A removal that takes only the persona leaves what else the fine-tune taught: skill kept is near 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.scoring import Condition, score_dialogues
from persona.data.skills import SKILL_SPLITS, Skill, SkillSplit
from persona.errors import DataError
from persona.intervals import Estimate, bootstrap, share_of
from persona.models.pair import ModelPair
from persona.rows import ALIGNED, FINETUNED, RESTORED

SkillMeasure = Literal["log_prob_right", "margin_nats", "choice_prob", "choice_right"]
"""log_prob_right: mean log p per token of the right answer, nats per token.
margin_nats: that minus the mean of the same over the wrong answers, nats per token. What makes
    every answer likelier cancels here: left is what is known, or which form is written.
choice_prob: p(right) / (p(right) + sum of p(wrong)) of whole answers, 0 to 1.
choice_right: 1 where no wrong answer is as likely as the right one, else 0."""
UNLEARNT = "unlearnt"
"""The fine-tune gained nothing of the skill, so that there is no share of it."""


def score_skill(
    pair: ModelPair,
    skill: Skill,
    conditions: Sequence[Condition],
    *,
    splits: Sequence[SkillSplit] = SKILL_SPLITS,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Scoring the skill",
) -> pd.DataFrame:
    """One row per condition x item x split x measure; over several wordings, their mean.

    Measures: those of `SkillMeasure`; only log_prob_right of a skill without wrong answers.
    splits: "train" asks in the words trained on, "held_out" in other words; an item that has no
        question of a split has no row of it.
    Columns: condition, seed, question_id (of the item), domain, split, measure, value, and the
    conditions' facts.
    Raises: DataError where no item has a question of these splits.
    """
    asked = [
        (item, split, q) for item in skill.items for split in splits for q in item.questions(split)
    ]
    if not asked:
        raise DataError(f"the skill {skill.name} has no questions under {' or '.join(splits)}")
    encoded = pair.chat.encode_all(
        [item.answered(q, text) for item, _, q in asked for text in (item.right, *item.wrong)]
    )
    n_tokens = np.array([d.response[1] - d.response[0] for d in encoded])
    readings = score_dialogues(
        pair,
        encoded,
        conditions,
        token_budget=token_budget,
        group=1 + max(len(item.wrong) for item in skill.items),
        description=description,
    )
    ends = np.cumsum([1 + len(item.wrong) for item, _, _ in asked])[:-1]
    lengths = np.split(n_tokens, ends)
    rows = []
    for condition, reading in zip(conditions, readings, strict=True):
        found: dict[tuple[str, str, SkillSplit], list[dict[str, float]]] = {}
        answers = np.split(reading.log_prob, ends)
        for (item, split, _), log_prob, n in zip(asked, answers, lengths, strict=True):
            found.setdefault((item.id, item.domain, split), []).append(_measures(log_prob, n))
        for (item_id, domain, split), wordings in found.items():
            rows += [
                {
                    "condition": condition.name,
                    "seed": condition.seed,
                    "question_id": item_id,
                    "domain": domain,
                    "split": split,
                    "measure": measure,
                    "value": float(np.mean([wording[measure] for wording in wordings])),
                    **condition.facts,
                }
                for measure in wordings[0]
            ]
    return pd.DataFrame(rows)


def _measures(log_prob: NDArray[np.float64], n_tokens: NDArray[np.int64]) -> dict[str, float]:
    """Of one wording. log_prob: [answer], nats per token, the right answer first."""
    right, wrong = log_prob[0], log_prob[1:]
    if not len(wrong):
        return {"log_prob_right": float(right)}
    whole = log_prob * n_tokens
    return {
        "log_prob_right": float(right),
        "margin_nats": float(right - wrong.mean()),
        "choice_prob": float(np.exp(whole[0] - np.logaddexp.reduce(whole))),
        "choice_right": float(whole[0] > whole[1:].max()),
    }


@dataclass(frozen=True)
class SkillKept:
    """What an edit leaves of what a fine-tune learnt, over the items of a skill.

    share: (restored - aligned) / (fine-tuned - aligned): 1 is all kept, 0 back at the aligned
        model, above 1 more than the fine-tune had; NaN with `why_undefined`.
    gained: fine-tuned - aligned, in the unit of `measure`. lost: fine-tuned - restored, likewise.
    why_undefined: "" or `UNLEARNT`: the interval of `gained` does not lie above 0.
    """

    measure: SkillMeasure
    split: SkillSplit
    share: Estimate
    gained: Estimate
    lost: Estimate
    why_undefined: str = ""

    def as_json(self) -> dict[str, Any]:
        """For a scorecard: numbers with their intervals, null where undefined."""
        whole = asdict(self)
        if self.why_undefined:
            return whole | {"share": None}
        ends = {
            end: e if np.isfinite(e := whole["share"][end]) else None for end in ("low", "high")
        }
        return whole | {"share": whole["share"] | ends}


def skill_kept(
    rows: pd.DataFrame,
    *,
    restored: str = RESTORED,
    aligned: str = ALIGNED,
    finetuned: str = FINETUNED,
    measure: SkillMeasure | None = None,
    split: SkillSplit = "held_out",
    seed: int = 0,
) -> SkillKept:
    """Share of what the fine-tune gained that the restored model still has; see `SkillKept`.

    Intervals: 95 % over items, all three models together; of the share see `share_of`, which may
    leave that of a few items without ends (null in JSON).
    rows: of `score_skill`. restored, aligned, finetuned: names of conditions.
    measure: None for margin_nats, or log_prob_right where the skill has no wrong answers.
    Raises: DataError for a condition, measure or split that the rows do not have, or an item that
        not all three were read on.
    """
    of_split = rows[rows["split"] == split]
    if measure is None:
        has_choice = (of_split["measure"] == "margin_nats").any()
        measure = "margin_nats" if has_choice else "log_prob_right"
    names = [finetuned, restored, aligned]
    wanted = of_split[(of_split["measure"] == measure) & of_split["condition"].isin(names)]
    table = wanted.pivot_table("value", "question_id", "condition", aggfunc="mean")
    if missing := [name for name in names if name not in table.columns]:
        raise DataError(
            f"no readings of {missing[0]} on {measure}, {split}, among the skill's rows"
        )
    columns = table[names].to_numpy(dtype=np.float64)
    gained, lost = (bootstrap(columns[:, 0] - columns[:, other], seed=seed) for other in (2, 1))
    if not gained.low > 0:
        undefined = Estimate(float("nan"), float("nan"), float("nan"), len(columns))
        return SkillKept(measure, split, undefined, gained, lost, UNLEARNT)
    share = share_of(table[[aligned, restored, finetuned]].to_numpy(dtype=np.float64), seed=seed)
    return SkillKept(measure, split, share, gained, lost)
