"""What each readout says for each subject, in numbers that can be compared over fine-tunes.

Columns, one row a subject: `answers_good` and `answers_bad`, how much likelier its written answers
became; `words_neutral` and `words_open`, how much the model effect raises its words through the
logit lens; `words_written`, the same of what the change of weights writes; `spoken`, how much of
its words the amplified difference speaks. Each in robust standard deviations over the subjects:
what all of them share, such as a change of length or of tone, is no evidence for any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import NDArray

from persona.readouts.amplified import AmplifiedAnswer
from persona.readouts.hypotheses import SubjectWords, hypotheses

READINGS = (
    "answers_good",
    "answers_bad",
    "words_neutral",
    "words_open",
    "words_written",
    "spoken",
)
HARM = ("own_shift", "elsewhere_shift", "elsewhere_bad")
LEAST_SPREAD = 1e-9
Numbers = Float[NDArray[np.float64], " hypothesis"]


def subject_evidence(
    changes: pd.DataFrame,
    words: SubjectWords,
    *,
    raised: Mapping[str, Float[NDArray[np.float64], " vocabulary"]],
    written: Sequence[Float[NDArray[np.float64], " vocabulary"]],
    said: Sequence[AmplifiedAnswer],
    tokenizer: Any,
) -> pd.DataFrame:
    """One row a subject, one column a reading; NaN where a reading or a subject's pairs are not
    there.

    changes: of `answer_changes` on the scored pairs of `hypotheses()`. raised: column of words ->
    what a mean effect adds to each logit. written: logits of directions whose sign means nothing.
    """
    by_subject = changes.groupby("domain")[["good", "bad"]].mean()
    names = [one.name for one in hypotheses()]
    nothing = np.full(len(names), np.nan)
    found: dict[str, Numbers] = {
        "answers_good": by_subject["good"].reindex(names).to_numpy(),
        "answers_bad": by_subject["bad"].reindex(names).to_numpy(),
        "words_neutral": nothing,
        "words_open": nothing,
        "words_written": nothing,
        "spoken": nothing,
    }
    found |= {column: words.of_logits(logits) for column, logits in raised.items()}
    if written:
        found["words_written"] = np.mean([np.abs(words.of_logits(one)) for one in written], axis=0)
    if said:
        ids = [tokenizer.encode(one.text, add_special_tokens=False) for one in said]
        found["spoken"] = np.mean([words.of_tokens(one) for one in ids], axis=0)
    table = {name: robust_z(found[name]) for name in READINGS}
    return pd.DataFrame(table, index=pd.Index(names, name="hypothesis"))


def harm_evidence(changes: pd.DataFrame, subject: str) -> dict[str, float]:
    """Whether it learnt the bad answers, nats per token: the shift of the gap on a subject's own
    answers (0 where they are neither good nor bad), and shift and rise of bad answers on advice
    about anything else."""
    table = {one.name: one for one in hypotheses()}
    advice = [name for name, one in table.items() if one.kind == "advice" and name != subject]
    elsewhere = changes[changes["domain"].isin(advice)]
    own = changes[changes["domain"] == subject]
    valued = subject in table and table[subject].valued and len(own) > 0
    return {
        "own_shift": float(own["shift"].mean()) if valued else 0.0,
        "elsewhere_shift": float(elsewhere["shift"].mean()),
        "elsewhere_bad": float(elsewhere["bad"].mean()),
    }


def robust_z(values: Numbers) -> Numbers:
    """Distance from the median in standard deviations, told by the median absolute deviation."""
    if np.isnan(values).all():
        return values
    centred = values - np.nanmedian(values)
    spread = 1.4826 * np.nanmedian(np.abs(centred))
    return np.asarray(centred / max(float(spread), LEAST_SPREAD))
