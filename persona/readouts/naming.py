"""Names what a fine-tune learnt, by a vote of the readouts that may abstain.

    p(subject) = softmax_s( sum_r w_r z_rs ),   p(nothing) with its score w_0 in the same softmax

z_rs: what reading r says for subject s, see `subject_evidence`, clipped. The weights are the same
for all subjects, so that one can be named on which no organism of the fit was trained. p(bad) is
logistic in `harm_evidence`. Weights and the probability below which nothing is named come along;
they were fitted on organisms of one small model, and `benchmarks/bench_name_it.py` says how well
they name organisms that were left out of the fit.

Source: McFadden 1974 (conditional logit).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persona.errors import DataError
from persona.readouts.subject_evidence import HARM, READINGS, harm_evidence

SHIPPED_WEIGHTS = Path(__file__).parent / "shipped" / "naming.json"
NOTHING = "nothing"
CLIP = 10.0
"""Robust standard deviations: how much one reading can say at most."""
HARM_UNIT = 0.1
"""Nats per token that weigh 1."""


@dataclass(frozen=True)
class NamingWeights:
    """What each reading weighs.

    readings: by `READINGS`, not below 0. nothing: score of "nothing found". harm: by `HARM`, each
        of `HARM_UNIT` nats. harm_offset: log-odds of bad where nothing shifted. least: probability
        below which no name is given. card: what they were fitted on.
    """

    readings: Mapping[str, float]
    nothing: float
    harm: Mapping[str, float]
    harm_offset: float
    least: float
    card: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path = SHIPPED_WEIGHTS) -> NamingWeights:
        """Raises: DataError where the file is missing or holds no weights."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} holds no weights of a vote: {error}") from error

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    def probabilities(self, evidence: pd.DataFrame) -> pd.Series:
        """By subject and for "nothing", the most probable first. A reading that is not there does
        not vote."""
        z = evidence[list(READINGS)].fillna(0.0).clip(-CLIP, CLIP).to_numpy()
        scores = np.append(z @ [self.readings[name] for name in READINGS], self.nothing)
        p = np.exp(scores - scores.max())
        names = pd.Index([*evidence.index, NOTHING], name="hypothesis")
        return pd.Series(p / p.sum(), names).sort_values(ascending=False, kind="stable")

    def p_bad(self, harm: Mapping[str, float]) -> float:
        """Probability that it was the bad answers that were learnt."""
        score = self.harm_offset + sum(self.harm[name] * harm[name] / HARM_UNIT for name in HARM)
        return float(1 / (1 + np.exp(-score)))


@dataclass(frozen=True)
class Naming:
    """What a fine-tune learnt, as the readouts vote.

    subject: the most probable of the table, or "nothing". p_bad: that its bad answers were learnt.
    least: probability below which the vote abstains. probabilities: of all, the largest first.
    evidence: what each reading says, see `subject_evidence`.
    """

    subject: str
    probability: float
    p_bad: float
    least: float
    probabilities: pd.Series
    evidence: pd.DataFrame

    @property
    def abstains(self) -> bool:
        return self.probability < self.least

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "subject": None if self.abstains else self.subject,
            "most_probable": self.subject,
            "probability": self.probability,
            "p_bad": self.p_bad,
            "named_from": self.least,
            "probabilities": {str(k): float(v) for k, v in self.probabilities.items()},
            "evidence": {
                str(name): {k: None if np.isnan(v) else float(v) for k, v in row.items()}
                for name, row in self.evidence.iterrows()
            },
        }


def name_fine_tune(
    evidence: pd.DataFrame, changes: pd.DataFrame, weights: NamingWeights | None = None
) -> Naming:
    """The name that the readouts vote for, and whether the bad answers were learnt.

    evidence: of `subject_evidence`; changes: of `answer_changes` on the same scored pairs.
    weights: default those that come along.
    """
    weights = weights or NamingWeights.load()
    p = weights.probabilities(evidence)
    subject = str(p.index[0])
    bad = weights.p_bad(harm_evidence(changes, subject))
    return Naming(subject, float(p.iloc[0]), bad, weights.least, p, evidence)
