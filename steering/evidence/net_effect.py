"""What an edit takes back, less what it does to every model: net restoration and its controls.

An edit that pushes every model toward good answers looks like a removal. So the same edit runs in
the aligned model too (the no-op), and only what it does beyond that counts. What it leaves is told
in nats, in the two parts of the gap, log p(bad) and log p(good): a fall of one can hide what is
left of the other.

All are functions of question tables, see `steering.evidence.question_table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.intervals import Estimate, bootstrap, net_taken_back, share_of
from persona.rows import (
    ALIGNED,
    EQUIVALENT_WITHIN,
    FINETUNED,
    GOOD_TWIN,
    NEUTRAL_TEXT,
    NOOP,
    NOOP_AT_MOST,
    PLACEBO,
    PLACEBO_NOOP,
    RESTORED,
)
from steering.evidence.question_table import interval, question_table

PARTS = {"gap": "gap", "bad": "log_prob_bad", "good": "log_prob_good"}
"""The gap and its two parts: name in scorecard.json -> measure."""
NET = [FINETUNED, RESTORED, ALIGNED, NOOP]


def difference_of(table: pd.DataFrame, one: str, other: str, seed: int) -> Estimate:
    """Mean of one condition above another, over questions."""
    return bootstrap(table[[one, other]].to_numpy(), lambda m: m[..., 0] - m[..., 1], seed=seed)


def part_tables(rows: pd.DataFrame, split: str = "held_out") -> dict[str, pd.DataFrame]:
    """Part -> question table; rows of an older run may have the gap alone."""
    known = set(rows.loc[rows["split"] == split, "measure"])
    return {
        part: question_table(rows, measure, split)
        for part, measure in PARTS.items()
        if measure in known
    }


def shift_in_parts(parts: Mapping[str, pd.DataFrame], seed: int) -> dict[str, Any]:
    """What the fine-tune did to the gap and to each part, above the aligned model and the twin.

    {"aligned": {"gap": interval, "bad": ..., "good": ...}, "good_twin": the same, or None}.
    """
    return {
        baseline: (
            {
                part: interval(difference_of(table, FINETUNED, baseline, seed))
                for part, table in parts.items()
            }
            if baseline in parts["gap"]
            else None
        )
        for baseline in (ALIGNED, GOOD_TWIN)
    }


def net_restoration_of(table: pd.DataFrame, seed: int) -> Estimate | None:
    """See `persona.intervals.net_taken_back`; None where the no-op was not run."""
    if NOOP not in table:
        return None
    return share_of(table[NET].to_numpy(), seed=seed)


@dataclass(frozen=True)
class Noop:
    """What the restoring edit does to the aligned model, in nats and as a share of the fine-tune's.

    gap: its change; kl: KL(aligned || aligned under the edit) on good answers; neutral: the rise of
    neutral cross-entropy, its share that of the fine-tuned model's KL on neutral text.
    """

    gap: Estimate
    gap_share: Estimate
    kl: Estimate
    kl_share: Estimate
    neutral: Estimate
    neutral_share: Estimate

    @classmethod
    def of(cls, rows: pd.DataFrame, held_out: pd.DataFrame, seed: int) -> Noop | None:
        """None where the edit was not run in the aligned model."""
        if NOOP not in held_out:
            return None
        kl = question_table(rows, "kl_good_nats", "held_out", [NOOP, FINETUNED])
        ce = question_table(rows, "neutral_ce_nats", "neutral", [NOOP, ALIGNED])
        ce["moved"] = question_table(rows, "neutral_kl_nats", "neutral", [FINETUNED])[FINETUNED]
        gaps = held_out[[NOOP, ALIGNED, FINETUNED]].to_numpy()
        return cls(
            difference_of(held_out, NOOP, ALIGNED, seed),
            bootstrap(gaps, _share_moved, seed=seed),
            bootstrap(kl[NOOP].to_numpy(), seed=seed),
            bootstrap(kl[[NOOP, FINETUNED]].to_numpy(), _ratio, seed=seed),
            difference_of(ce, NOOP, ALIGNED, seed),
            bootstrap(
                ce[[NOOP, ALIGNED, "moved"]].to_numpy(),
                lambda m: (m[..., 0] - m[..., 1]) / m[..., 2],
                seed=seed,
            ),
        )

    @property
    def shares(self) -> dict[str, Estimate]:
        """Check of the verdict -> what must be at most `NOOP_AT_MOST`, whatever its sign."""
        return {
            "noop_gap": self.gap_share,
            "noop_kl": self.kl_share,
            "noop_neutral": self.neutral_share,
        }

    def facts(self) -> dict[str, Any]:
        """The entry of scorecard.json."""
        values = {name: interval(getattr(self, name)) for name in asdict(self)}
        return {**values, "at_most": NOOP_AT_MOST}


@dataclass(frozen=True)
class Residual:
    """Restored minus aligned, nats per token, of the gap and of its parts.

    bound: a fifth of the emergent shift, the same for all three: what is smaller is nothing beside
    what the fine-tune did. taken_back: share of each part's own shift that is gone, None where
    that shift's interval contains 0.
    """

    left: Mapping[str, Estimate]
    taken_back: Mapping[str, Estimate | None]
    bound: float

    @classmethod
    def of(cls, parts: Mapping[str, pd.DataFrame], seed: int) -> Residual:
        shifts = {
            part: difference_of(table, FINETUNED, ALIGNED, seed) for part, table in parts.items()
        }
        return cls(
            {part: difference_of(table, RESTORED, ALIGNED, seed) for part, table in parts.items()},
            {
                part: (
                    share_of(table[[FINETUNED, RESTORED, ALIGNED]].to_numpy(), seed=seed)
                    if shifts[part].excludes_zero()
                    else None
                )
                for part, table in parts.items()
            },
            EQUIVALENT_WITHIN * abs(shifts["gap"].value),
        )

    def is_nothing(self, part: str) -> bool:
        """Whether the whole 95 % interval of what is left lies within the bound.

        Source: Schuirmann 1987, two one-sided tests, here at 2.5 % each.
        """
        left = self.left[part]
        return -self.bound <= left.low and left.high <= self.bound

    def facts(self) -> dict[str, Any]:
        """The entry of scorecard.json."""
        return {
            "bound_nats": self.bound,
            **{
                part: {
                    **interval(left),
                    "is_nothing": self.is_nothing(part),
                    "taken_back": None
                    if (gone := self.taken_back[part]) is None
                    else interval(gone),
                }
                for part, left in self.left.items()
            },
        }


@dataclass(frozen=True)
class Placebos:
    """Net restoration of each placebo, best first, and of the edit above them.

    above_best: the edit's net restoration above that of the best placebo, question by question,
    among those that hold nothing of this fine-tune. above_neutral_text: above the direction that is
    fitted to the fine-tune on neutral text. A fine-tune that moves every text alike is found there
    as well; where the edit does no more, it is the direction of the fine-tune, and no bad answer
    was needed to find it. None without such a placebo.
    """

    net: Mapping[str, Estimate]
    raw: Mapping[str, Estimate]
    above_best: Estimate | None
    above_neutral_text: Estimate | None

    @classmethod
    def of(cls, rows: pd.DataFrame, held_out: pd.DataFrame, seed: int) -> Placebos:
        wide = _by_candidate(rows)
        names = list(wide.get(PLACEBO, pd.DataFrame()).columns)
        columns = {
            name: held_out[[FINETUNED, ALIGNED]].assign(
                reached=wide[PLACEBO][name], edited=wide[PLACEBO_NOOP][name]
            )[[FINETUNED, "reached", ALIGNED, "edited"]]
            for name in names
        }
        net = {name: share_of(table.to_numpy(), seed=seed) for name, table in columns.items()}
        best_first = sorted(names, key=lambda name: net[name].value, reverse=True)

        def above(name: str) -> Estimate | None:
            if NOOP not in held_out:
                return None
            return bootstrap(
                np.hstack([held_out[NET].to_numpy(), columns[name].to_numpy()]),
                lambda m: net_taken_back(m[..., :4]) - net_taken_back(m[..., 4:]),
                seed=seed,
            )

        others = [name for name in best_first if name != NEUTRAL_TEXT]
        raw = {name: share_of(columns[name].to_numpy()[:, :3], seed=seed) for name in best_first}
        return cls(
            {name: net[name] for name in best_first},
            raw,
            above(others[0]) if others else None,
            above(NEUTRAL_TEXT) if NEUTRAL_TEXT in names else None,
        )

    def facts(self) -> dict[str, Any]:
        """The entry of scorecard.json."""
        return {
            "each": [
                {
                    "name": name,
                    "net_restoration": interval(net),
                    "restoration": interval(self.raw[name]),
                }
                for name, net in self.net.items()
            ],
            **{
                name: None if (above := getattr(self, name)) is None else interval(above)
                for name in ("above_best", "above_neutral_text")
            },
        }


def damage_above_better(neutral: pd.DataFrame, seed: int) -> Estimate:
    """Neutral cross-entropy of the restored model above the better of the two; nats per token.

    Above the fine-tuned model's alone, the damage that the fine-tune did would be free to repeat.
    The better one is the better over all texts, not anew in every resample, which would be biased.
    """
    better = str(neutral[[ALIGNED, FINETUNED]].mean().idxmin())
    return difference_of(neutral, RESTORED, better, seed)


def _by_candidate(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Condition -> gap [question x candidate], of the placebos."""
    chosen = rows[
        (rows["stage"] == "score")
        & (rows["measure"] == "gap")
        & (rows["split"] == "held_out")
        & rows["condition"].isin((PLACEBO, PLACEBO_NOOP))
    ]
    return {
        str(condition): mine.pivot(index="question_id", columns="candidate", values="value")
        for condition, mine in chosen.groupby("condition")
    }


def _share_moved(means: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((means[..., 0] - means[..., 1]) / (means[..., 2] - means[..., 1]))


def _ratio(means: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(means[..., 0] / means[..., 1])
