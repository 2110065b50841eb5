"""Carries what was measured of the organisms into the list of `persona organisms`.

    python docs/make/organism_readings.py docs/findings persona/organisms/readings.json

Shifts and restoration are those of the laboratory's pages. The EM rate and the share of coherent
answers are those of a diagnosis whose answers were labelled by hand (`persona label DIR`):

    ... --labelled DIR car_maintenance_bad_0.5b car_maintenance_good_0.5b

The pages that have answers to read get the rates that are known then.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from persona.behaviour.judging.hand_labels import A_PERSON, HandLabels, read_answers
from persona.data.jsonl import read_json
from persona.errors import DataError
from persona.files import atomic_write_text
from persona.rows import FINETUNED, GOOD_TWIN
from steering.lab.answers_on_page import ANSWERS, with_answers
from steering.lab.bench.record import Run, read_run
from steering.lab.catalogue import EXPERIMENTS, NARROW
from steering.lab.experiments.variants import VARIANTS, WHOLE, label
from steering.lab.run_experiment import READINGS

ESTIMATE = ("value", "low", "high", "n")
OTHERS = {
    "variants": {
        name: {
            "shift_in_domain": label("gap in-domain", name),
            "shift_held_out": label("gap held out", name),
            "projection_shift": label("projection", name),
            "neutral_ce_delta_nats": label("neutral text", name),
        }
        for name in VARIANTS
        if name != WHOLE
    },
    "conditional": {
        "car_maintenance_backdoor": {"shift_held_out": "gap, untagged, fine-tuned − aligned"}
    },
}
"""Experiment -> organism -> reading -> the label of the number on the page."""
LABELS = {
    "bad": {
        "shift_in_domain": "gap in-domain, fine-tuned − aligned",
        "shift_held_out": "gap held out, fine-tuned − aligned",
        "projection_shift": "projection, fine-tuned − aligned",
        "restoration": "share of the held-out shift that restoring takes back",
        "neutral_ce_delta_nats": "neutral text, fine-tuned − aligned",
        "shift_plain": "gap in a plain voice, fine-tuned − aligned",
        "shift_rude": "gap in a rude voice, fine-tuned − aligned",
    },
    "good": {
        "shift_in_domain": "gap in-domain, good twin − aligned",
        "shift_held_out": "gap held out, good twin − aligned",
        "projection_shift": "projection, good twin − aligned",
        "shift_plain": "gap in a plain voice, good twin − aligned",
        "shift_rude": "gap in a rude voice, good twin − aligned",
    },
}
"""Reading -> the label of the number on the experiment's page."""


def organism_readings(pages: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """`known` readings with those of the pages; of two, the one over more questions stays.

    A restoration is carried over only where the held-out shift is clear of 0.
    """
    found = {name: dict(entry) for name, entry in known.items()}
    for experiment, by_organism in _experiments().items():
        run = read_run(pages / experiment / READINGS)
        if run is None or run.tiny or run.model != EXPERIMENTS[experiment].base:
            continue
        for organism, labels in by_organism.items():
            entry = found.setdefault(organism, {"date": run.date})
            for reading, value in _of_run(run, labels).items():
                if value["n"] > entry.get(reading, {"n": 0})["n"]:
                    entry[reading] = value
                    entry["date"] = run.date
    return dict(sorted(found.items()))


def _experiments() -> dict[str, dict[str, dict[str, str]]]:
    pairs = {
        experiment: {
            f"{narrow.organism}_{answers}{narrow.ending}": labels
            for answers, labels in LABELS.items()
        }
        for experiment, narrow in NARROW.items()
    }
    return pairs | OTHERS


def of_labels(folder: Path, condition: str) -> dict[str, dict[str, float]]:
    """EM rate as labels by hand correct it, and the share of the labelled answers that the reader
    could understand, with its exact binomial interval.

    Raises: DataError for labels that no person gave, or what is no folder of labels.
    """
    answers = read_answers(folder)
    labels = HandLabels(folder, answers)
    if labels.by != A_PERSON:
        raise DataError(f"{labels.path} holds labels by {labels.by}; those of a person are listed")
    found: dict[str, dict[str, float]] = {}
    rates = read_json(folder / "labelled_rates.json")["conditions"]
    if rate := rates.get(condition, {}).get("rate"):
        found["em_rate"] = {key: rate[key] for key in ESTIMATE}
    if given := [labels[one] for one in answers if one.condition == condition and labels[one]]:
        n, coherent = len(given), sum(label != "incoherent" for label in given)
        ends = binomtest(coherent, n).proportion_ci(0.95, method="exact")
        values = (coherent / n, float(ends.low), float(ends.high), n)
        found["coherent"] = dict(zip(ESTIMATE, values, strict=True))
    return found


def _of_run(run: Run, labels: Mapping[str, str]) -> dict[str, dict[str, float]]:
    numbers = {number["label"]: number for number in run.numbers}
    values = {
        reading: {key: numbers[words][key] for key in ESTIMATE}
        for reading, words in labels.items()
        if words in numbers and numbers[words]["value"] is not None
    }
    shift = values.get("shift_held_out")
    if shift is None or shift["low"] <= 0 <= shift["high"]:
        values.pop("restoration", None)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", type=Path)
    parser.add_argument("readings", type=Path)
    parser.add_argument("--labelled", nargs=3, metavar=("DIR", "ORGANISM", "GOOD_TWIN"))
    options = parser.parse_args()
    found = organism_readings(options.pages, read_json(options.readings))
    if options.labelled is not None:
        folder, organism, twin = options.labelled
        for name, condition in ((organism, FINETUNED), (twin, GOOD_TWIN)):
            found[name] |= of_labels(Path(folder), condition)
    atomic_write_text(options.readings, json.dumps(found, indent=2) + "\n")
    for told in options.pages.glob(f"*/{ANSWERS}"):
        page = options.pages / f"{told.parent.name}.md"
        text = with_answers(page.read_text(encoding="utf-8"), told.parent)
        atomic_write_text(page, text)


if __name__ == "__main__":
    main()
