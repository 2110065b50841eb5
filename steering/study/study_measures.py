"""The numbers of a study: each a statistic of the means of some columns of one fine-tune's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from persona.errors import DataError
from persona.rows import (
    ALIGNED,
    FINETUNED,
    GOOD_TWIN,
    NEUTRAL_TEXT,
    NOOP,
    PLACEBO,
    PLACEBO_NOOP,
    RESTORED,
    ZERO_ABLATED,
)

Weights = Mapping[str, float]
"""Condition -> weight: a linear combination of a question's readings."""
SHIFT: Weights = {FINETUNED: 1, ALIGNED: -1}
RAW: Weights = {FINETUNED: 1, RESTORED: -1}
NET: Weights = {FINETUNED: 1, RESTORED: -1, ALIGNED: -1, NOOP: 1}


@dataclass(frozen=True)
class Measure:
    """A mean over questions, or the ratio of two of them.

    words: what it is. of: condition -> weight of the numerator; over: of the denominator, None for
    a mean. reading, stage, split: which rows; or_else: the reading where that one is not there.
    placebo: `candidate` of the rows of placebos. null:
    the value that says nothing happened.
    """

    words: str
    of: Weights
    over: Weights | None = None
    reading: str = "gap"
    or_else: str | None = None
    stage: str = "score"
    split: str = "held_out"
    placebo: str | None = None
    null: float = 0.0

    @property
    def unit(self) -> str:
        return "nats per token" if self.over is None else "share"

    def columns(self, rows: pd.DataFrame) -> pd.DataFrame:
        """[question x "numerator", "denominator"] of one fine-tune, indexed by question_id.

        With the column domain. The denominator of a mean is 1.
        Raises: DataError where a condition was not read, or not on every question.
        """
        of_split = rows[(rows["stage"] == self.stage) & (rows["split"] == self.split)]
        chosen = of_split[of_split["measure"] == self.reading]
        if chosen.empty and self.or_else is not None:
            chosen = of_split[of_split["measure"] == self.or_else]
        wanted = {*self.of, *(self.over or {})}
        is_placebo = chosen["condition"].isin((PLACEBO, PLACEBO_NOOP))
        if self.placebo is not None:
            is_placebo &= chosen["candidate"] != self.placebo
        wide = chosen[chosen["condition"].isin(wanted) & ~is_placebo].pivot_table(
            "value", "question_id", "condition", aggfunc="mean"
        )
        lacking = sorted(wanted - set(wide.columns))
        if lacking or wide.isna().any(axis=None):
            lacking = lacking or sorted(wide.columns[wide.isna().any()])
            raise DataError(f"{self.words}: there are no readings of {', '.join(lacking)}")
        domain = chosen.drop_duplicates("question_id").set_index("question_id")["domain"]
        return pd.DataFrame(
            {
                "domain": domain.reindex(wide.index).fillna(""),
                "numerator": _combined(wide, self.of),
                "denominator": 1.0 if self.over is None else _combined(wide, self.over),
            },
            index=wide.index,
        )


def _combined(wide: pd.DataFrame, weights: Weights) -> pd.Series:
    return sum(
        (weight * wide[name] for name, weight in weights.items()), pd.Series(0.0, wide.index)
    )


def _placebo(words: str, name: str) -> Measure:
    of = {FINETUNED: 1.0, PLACEBO: -1.0, ALIGNED: -1.0, PLACEBO_NOOP: 1.0}
    return Measure(f"net restoration along {words}", of, SHIFT, placebo=name)


MEASURES: Mapping[str, Measure] = {
    "shift": Measure("emergent shift: fine-tuned above aligned", SHIFT),
    "shift_bad": Measure("of it, bad answers likelier", SHIFT, reading="log_prob_bad"),
    "shift_good": Measure("of it, good answers likelier", SHIFT, reading="log_prob_good"),
    "shift_above_twin": Measure("fine-tuned above its good twin", {FINETUNED: 1, GOOD_TWIN: -1}),
    "net_restoration": Measure("net restoration", NET, SHIFT),
    "restoration": Measure("restoration, the push on every model counted", RAW, SHIFT),
    "residual": Measure("residual: restored above aligned", {RESTORED: 1, ALIGNED: -1}),
    "noop": Measure("no-op: what the edit moves the aligned model", {NOOP: 1, ALIGNED: -1}, SHIFT),
    "zero_ablation": Measure("zero-ablation takes back", {FINETUNED: 1, ZERO_ABLATED: -1}, SHIFT),
    "placebo_neutral_text": _placebo("neutral text's direction", NEUTRAL_TEXT),
    "placebo_good_twin": _placebo("the good twin's direction", GOOD_TWIN),
    "damage": Measure(
        "damage: restored above aligned on neutral text",
        {RESTORED: 1, ALIGNED: -1},
        reading="neutral_ce_nats",
        split="neutral",
    ),
    "skill_kept": Measure(
        "skill kept",
        {RESTORED: 1, ALIGNED: -1},
        SHIFT,
        reading="margin_nats",
        or_else="log_prob_right",
        stage="skill",
        null=1.0,
    ),
}
"""Name -> number."""
OF_A_TWIN = ("shift_above_twin", "placebo_good_twin")
OF_A_SKILL = ("skill_kept",)
