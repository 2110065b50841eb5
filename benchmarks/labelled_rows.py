"""Rows of the EM rates that labels by hand have given a finished diagnosis.

    persona label DIR
    python benchmarks/labelled_rows.py DIR --row em.0.5b --by "a reader, blind to the model"

`ROW.CONDITION` is the rate corrected by the labels, `ROW.CONDITION_understood` the share of the
labelled answers that could be understood, `ROW.CONDITION_measured_coherent` that of all answers
which the run's own reader passes. Of the measured coherence against the labels, all conditions
together: `ROW.coherence_auroc`, and `ROW.not_understood_passed`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from record import record, short
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from persona.behaviour.judging.em_rate import coherent_share
from persona.behaviour.judging.hand_labels import (
    A_PERSON,
    HandLabels,
    SampledAnswer,
    read_answers,
)
from persona.behaviour.judging.judge import COHERENT_ABOVE, JudgeScore


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--row", default="em", help="first part of the rows' names")
    parser.add_argument("--by", required=True, help="who labelled, for the note")
    options = parser.parse_args()
    found = json.loads((options.folder / "labelled_rates.json").read_text(encoding="utf-8"))
    answers = read_answers(options.folder)
    labels = HandLabels(options.folder, answers)
    if labels.by != A_PERSON:
        raise SystemExit(f"{labels.path} holds labels by {labels.by}, not by a person")
    of_coherence(options.row, options.by, answers, labels)
    for condition, entry in found["conditions"].items():
        if (rate := entry["rate"]) is None:
            continue
        name = short(condition)
        note = f"{options.by}: {rate['n_labels']} labels; the judge alone {rate['by_judge']:.3f}"
        spread = (rate["low"], rate["high"])
        share = "share of answers"
        record(f"{options.row}.{name}", rate["value"], share, n=rate["n"], spread=spread, note=note)
        given = [labels[one] for one in answers if one.condition == condition and labels[one]]
        understood = sum(label != "incoherent" for label in given)
        ends = binomtest(understood, len(given)).proportion_ci(0.95, method="exact")
        record(
            f"{options.row}.{name}_understood",
            understood / len(given),
            share,
            n=len(given),
            spread=(ends.low, ends.high),
            note=f"{options.by}; Clopper-Pearson interval",
        )
        measured = [one for one in answers if one.condition == condition]
        share = coherent_share(
            [JudgeScore(one.alignment, one.coherence) for one in measured],
            [one.question_id for one in measured],
        )
        if share is not None:
            record(
                f"{options.row}.{name}_measured_coherent",
                share.value,
                "share of answers",
                n=share.n,
                spread=(share.low, share.high),
                note="the run's own reader, coherence > 50; 95 % over questions",
            )


def of_coherence(row: str, by: str, answers: Sequence[SampledAnswer], labels: HandLabels) -> None:
    """How well the measured coherence tells what the reader could understand."""
    given = [one for one in answers if labels[one] is not None]
    understood = np.array([labels[one] != "incoherent" for one in given])
    coherence = np.array([one.coherence for one in given])
    low, high = resampled_auroc(understood, coherence, [one.question_id for one in given])
    conditions = len({one.condition for one in given})
    note = f"{by}; {conditions} conditions together, 95 % over questions"
    value = float(roc_auc_score(understood, coherence))
    record(f"{row}.coherence_auroc", value, "AUROC", n=len(given), spread=(low, high), note=note)
    passed = coherence[~understood] > COHERENT_ABOVE
    record(f"{row}.not_understood_passed", passed.mean(), "share", n=len(passed), note=note)


def resampled_auroc(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], questions: Sequence[str]
) -> tuple[float, float]:
    """95 % interval of an AUROC, questions drawn whole."""
    places = pd.Series(range(len(questions))).groupby(list(questions)).apply(list).tolist()
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        drawn = np.concatenate([places[k] for k in rng.integers(len(places), size=len(places))])
        if 0 < truth[drawn].sum() < len(drawn):
            found.append(roc_auc_score(truth[drawn], scores[drawn]))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
