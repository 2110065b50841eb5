"""Rows of the EM rates that labels by hand have given a finished diagnosis.

    persona label DIR
    python benchmarks/labelled_rows.py DIR --row em.0.5b --by "a reader, blind to the model"

`ROW.CONDITION` is the rate corrected by the labels, `ROW.CONDITION_understood` the share of the
labelled answers that could be understood.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from record import record, short
from scipy.stats import binomtest

from persona.behaviour.judging.hand_labels import HandLabels, read_answers


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


if __name__ == "__main__":
    main()
