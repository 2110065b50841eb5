"""Where to raise an alarm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from persona.errors import DataError


def threshold_for(
    scores_of_negatives: Sequence[float] | Float[np.ndarray, " n"], false_alarm_rate: float
) -> float:
    """The threshold that a new text without the trait exceeds with at most that probability.

    With n negatives it is their k-th smallest score, k = n + 1 - floor((n + 1) false_alarm_rate).
    Where the new score and the n are exchangeable (none was used to fit the probe, all are of one
    kind of text), P(new score > threshold) <= false_alarm_rate, averaged over draws of the
    negatives; for this one set it scatters around that, with standard deviation about
    sqrt(false_alarm_rate / n). An alarm is a score above the threshold, not one equal to it.
    Raises: DataError for scores that are not finite, a rate outside (0, 1), or fewer than
    1 / false_alarm_rate - 1 negatives, with which no threshold can promise that.

    Source: Wilks 1941 (order statistics); Vovk, Gammerman and Shafer 2005 (conformal prediction).

    Examples:
        With 99 negatives, five of a hundred new ones are expected above the fifth largest:

        >>> from probes.monitor import threshold_for
        >>> threshold_for(range(99), false_alarm_rate=0.05)
        94.0
    """
    scores = np.sort(np.asarray(scores_of_negatives, dtype=np.float64))
    if not 0 < false_alarm_rate < 1:
        raise DataError(f"the false-alarm rate lies between 0 and 1; got {false_alarm_rate}")
    if not np.isfinite(scores).all():
        raise DataError("the scores of the negatives hold NaN or infinity")
    # The small number undoes the rounding of, say, 100 * 0.29.
    k = len(scores) + 1 - math.floor((len(scores) + 1) * false_alarm_rate + 1e-9)
    if k > len(scores):
        raise DataError(
            f"a false-alarm rate of {false_alarm_rate:g} needs the scores of at least "
            f"{math.ceil(1 / false_alarm_rate - 1e-9) - 1} texts without the trait; got "
            f"{len(scores)}"
        )
    return float(scores[k - 1])
