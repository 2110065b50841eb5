"""Of the shift, what words give away: a bag of words is a weak reader, and so a lower bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.data.surface import word_margins
from persona.data.types import AnswerPair
from persona.intervals import bootstrap
from persona.rows import ALIGNED, FINETUNED
from steering.evidence.question_table import interval, question_table

MIN_QUESTIONS = 16
"""Through fewer points a line says nothing."""


def style_share(
    rows: pd.DataFrame,
    chosen_on: Sequence[AnswerPair],
    held_out: Sequence[AnswerPair],
    seed: int = 0,
) -> dict[str, Any] | None:
    """How far the shift of the gap is one of style, by a regression over held-out questions.

    The shift of a question is regressed on its `word_margins`, by a bag of words that has seen
    `chosen_on` alone. What is left at margin 0 is the shift of a pair whose words give nothing
    away.

    Returns {"n", "correlation", "at_zero_margin" (nats per token), "share" (1 - at_zero_margin /
    shift)}, intervals over questions, the bag of words being given; None for fewer than
    `MIN_QUESTIONS` questions, or where all have one margin. A domain's shift and its style may go
    together for other reasons, and a better reader of style may find more.
    """
    gaps = question_table(rows, "gap", "held_out", [FINETUNED, ALIGNED])
    asked = [question for question in held_out if question.id in gaps.index]
    if len(asked) < MIN_QUESTIONS:
        return None
    margins = word_margins(chosen_on, asked)
    shifts = (gaps[FINETUNED] - gaps[ALIGNED])[[q.id for q in asked]].to_numpy()
    if np.ptp(margins) == 0 or np.ptp(shifts) == 0:
        return None
    moments = np.stack([shifts, margins, shifts * margins, margins**2, shifts**2], axis=1)
    at_zero = bootstrap(moments, _at_zero, seed=seed)
    share = bootstrap(moments, lambda m: 1 - _at_zero(m) / m[..., 0], seed=seed)
    correlation = bootstrap(moments, _correlation, seed=seed)
    return {
        "n": len(asked),
        "correlation": interval(correlation),
        "at_zero_margin": interval(at_zero),
        "share": interval(share),
    }


def _at_zero(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intercept of the least-squares line, of the means [..., (y, x, xy, xx, yy)]."""
    y, x, xy, xx, _ = np.moveaxis(means, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(y - x * (xy - x * y) / (xx - x**2))


def _correlation(means: NDArray[np.float64]) -> NDArray[np.float64]:
    y, x, xy, xx, yy = np.moveaxis(means, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((xy - x * y) / np.sqrt((xx - x**2) * (yy - y**2)))
