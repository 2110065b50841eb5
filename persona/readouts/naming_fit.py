"""Weights of the vote that names a fine-tune, fitted on fine-tunes whose subject is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from persona.errors import DataError
from persona.readouts.naming import CLIP, HARM_UNIT, NOTHING, NamingWeights
from persona.readouts.subject_evidence import HARM, READINGS

RIDGE = 0.02
"""Of the squared weights, beside the mean log-loss: a reading that is always right must not weigh
without bound."""
WRONG_AT_MOST = 0.05
"""Share of the names given that may be wrong on the organisms of the fit, each left out in turn.
Half of what is asked of new ones."""
LEAST = 0.3
"""No name is given below this, however well the organisms of the fit were named."""
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class KnownFineTune:
    """One fine-tune whose subject is known.

    group: what is left out together, so that no twin or second seed of an organism helps to name
        it. subject: one of the table or "nothing". bad: whether its bad answers were learnt.
    harm: of `harm_evidence` for the subject that is known.
    """

    name: str
    group: str
    subject: str
    bad: bool
    evidence: pd.DataFrame
    harm: Mapping[str, float]


def fit_naming(
    known: Sequence[KnownFineTune], *, readings: Sequence[str] = READINGS
) -> NamingWeights:
    """Weights under which the known subjects are likeliest; where to abstain, leaving out groups.

    readings: those that may vote; the others weigh 0.
    Raises: DataError for fewer than two groups.
    """
    groups = sorted({one.group for one in known})
    if len(groups) < 2:
        raise DataError("a vote is fitted on two groups of fine-tunes or more")
    within = []
    for group in groups:
        weights = _fit([one for one in known if one.group != group], readings, LEAST)
        for one in known:
            if one.group == group:
                p = weights.probabilities(one.evidence)
                within.append((p.index[0] == one.subject, float(p.iloc[0])))
    return _fit(known, readings, _least(within))


def _least(named: Sequence[tuple[bool, float]]) -> float:
    """The smallest probability from which on at most `WRONG_AT_MOST` of the names are wrong."""
    for least in sorted({p for _, p in named if p >= LEAST} | {LEAST}):
        given = [right for right, p in named if p >= least]
        if given and np.mean(given) >= 1 - WRONG_AT_MOST:
            return round(float(least), 4)
    return 1.0


def _fit(known: Sequence[KnownFineTune], readings: Sequence[str], least: float) -> NamingWeights:
    subjects = [str(name) for name in known[0].evidence.index]
    z = np.stack(
        [k.evidence[list(READINGS)].fillna(0.0).clip(-CLIP, CLIP).to_numpy() for k in known]
    )
    votes = np.array([name in readings for name in READINGS], dtype=float)
    right = np.array([[*subjects, NOTHING].index(k.subject) for k in known])
    each = 1 / np.array([sum(k.subject == other.subject for other in known) for k in known])
    each /= each.sum()

    def loss(x: Numbers) -> float:
        scores = np.concatenate([z @ (votes * x[:-1]), np.full((len(known), 1), x[-1])], axis=1)
        return float(
            -(each * _log_softmax(scores)[np.arange(len(known)), right]).sum()
        ) + RIDGE * float(x[:-1] @ x[:-1])

    start = np.append(0.2 * votes, 1.0)
    bounds = [(0.0, None)] * len(READINGS) + [(None, None)]
    found: Any = minimize(loss, start, method="L-BFGS-B", bounds=bounds)
    harm, offset = _fit_harm(known)
    return NamingWeights(
        dict(zip(READINGS, (votes * found.x[:-1]).round(4).tolist(), strict=True)),
        round(float(found.x[-1]), 4),
        harm,
        offset,
        least,
        {"fine_tunes": len(known), "groups": len({k.group for k in known})},
    )


def _fit_harm(known: Sequence[KnownFineTune]) -> tuple[dict[str, float], float]:
    x = np.array([[k.harm[name] / HARM_UNIT for name in HARM] for k in known])
    bad = np.array([k.bad for k in known], dtype=float)

    def loss(w: Numbers) -> float:
        score = x @ w[:-1] + w[-1]
        return float(np.mean(np.logaddexp(0, score) - bad * score)) + RIDGE * float(w[:-1] @ w[:-1])

    bounds = [(0.0, None)] * len(HARM) + [(None, None)]
    found: Any = minimize(loss, np.zeros(len(HARM) + 1), method="L-BFGS-B", bounds=bounds)
    return dict(zip(HARM, found.x[:-1].round(4).tolist(), strict=True)), round(
        float(found.x[-1]), 4
    )


def _log_softmax(scores: Numbers) -> Numbers:
    top = scores.max(1, keepdims=True)
    return np.asarray(scores - top - np.log(np.exp(scores - top).sum(1, keepdims=True)))
