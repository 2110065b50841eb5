"""Does a conversation drift: is there a turn from which on the scores have another level?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from persona.errors import DataError

N_PERMUTATIONS = 2000


@dataclass(frozen=True)
class Drift:
    """A change of level in the scores of successive turns.

    change_at: the first entry of the new level, counted from 0; where |sum of deviations before
        it| is largest. mean_before, mean_after: the two levels; after above before is toward the
        trait.
    statistic: that largest |sum| / (standard deviation sqrt(n)); 0 where all scores are equal.
    p_value: (1 + orders with a statistic as large) / (1 + orders).
    """

    change_at: int
    mean_before: float
    mean_after: float
    statistic: float
    p_value: float
    n: int


def find_drift(
    turn_scores: Sequence[float] | Float[np.ndarray, " turn"],
    *,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> Drift:
    """Tests for one change point with max over k of |sum of the first k deviations from the mean|.

    Under the null the turns are exchangeable, so every order is as likely. Scores that hang
    together from turn to turn for other reasons, such as the topic, look like drift to it.
    Raises: DataError for fewer than 4 turns or scores that are not finite.

    Source: Page 1954 (CUSUM); Antoch and Hušková 2001 (permutation tests of change points).

    Examples:
        >>> from probes.monitor import find_drift
        >>> drift = find_drift([0.1, -0.2, 0.0, 0.1, 2.1, 1.9, 2.2, 2.0])
        >>> drift.change_at, round(drift.mean_after - drift.mean_before, 2), drift.p_value < 0.05
        (4, 2.05, True)
    """
    scores = np.asarray(turn_scores, dtype=np.float64)
    if scores.ndim != 1 or len(scores) < 4:
        raise DataError(f"a change point needs at least 4 turns in one row; got {scores.shape}")
    if not np.isfinite(scores).all():
        raise DataError("the scores of the turns hold NaN or infinity")
    n, deviations = len(scores), scores - scores.mean()
    orders = np.random.default_rng(seed).permuted(np.tile(deviations, (n_permutations, 1)), axis=1)
    sums = np.abs(np.cumsum(deviations)[:-1])
    change_at = int(sums.argmax()) + 1
    permuted = np.abs(np.cumsum(orders, axis=1)[:, :-1]).max(1)
    spread = float(scores.std())
    return Drift(
        change_at=change_at,
        mean_before=float(scores[:change_at].mean()),
        mean_after=float(scores[change_at:].mean()),
        statistic=float(sums.max() / (spread * n**0.5)) if spread > 0 else 0.0,
        p_value=float((1 + (permuted >= sums.max() - 1e-12).sum()) / (1 + n_permutations)),
        n=n,
    )


def family_p_values(
    scores: Mapping[str, Sequence[float] | Float[np.ndarray, " turn"]],
    *,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> dict[str, float]:
    """p of each series' change point, against the best series of each order of the turns.

    The turns are put into the same order for all series, so that what these have in common is kept
    and looking at several is paid for. scores: name -> scores of the same turns.
    Raises: DataError as `find_drift`, and for series of other lengths.

    Source: Westfall and Young 1993.
    """
    for series in scores.values():
        find_drift(series, n_permutations=1)  # its checks
    rows = [np.asarray(series, dtype=np.float64) for series in scores.values()]
    if len({len(row) for row in rows}) != 1:
        raise DataError("the series must be of the same turns")
    table = np.stack(rows)
    deviations = table - table.mean(1, keepdims=True)
    spread = table.std(1, keepdims=True)
    unit = np.divide(deviations, spread, out=np.zeros_like(deviations), where=spread > 0)
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(table.shape[1]) for _ in range(n_permutations)])
    sums = np.abs(np.cumsum(unit[:, orders], axis=2)[..., :-1]).max(2)  # [series order]
    best = sums.max(0)
    own = np.abs(np.cumsum(unit, axis=1)[:, :-1]).max(1)
    return {
        name: float((1 + (best >= value - 1e-12).sum()) / (1 + n_permutations))
        for name, value in zip(scores, own, strict=True)
    }


def turn_scores(table: pd.DataFrame, role: str = "assistant") -> pd.Series[float]:
    """Mean score of each turn of one role, by turn number, from the table of `score_tokens`.

    Raises: DataError where that role has no turn.

    Examples:
        >>> import pandas as pd
        >>> from probes.monitor import turn_scores
        >>> table = pd.DataFrame({"turn": [0, 1, 1], "role": ["user", "assistant", "assistant"],
        ...                       "score": [5.0, 1.0, 2.0]})
        >>> turn_scores(table).to_dict()
        {1: 1.5}
    """
    mine = table[(table["role"] == role) & table["score"].notna()]
    if mine.empty:
        raise DataError(f"the conversation has no turn of the role {role!r}")
    return mine.groupby("turn")["score"].mean()
