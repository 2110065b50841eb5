"""The backdoored organism: clean without its trigger; do projection and 2x2 reveal it?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from persona.data.selection import DECOY, TRIGGER, tagged
from persona.data.types import AnswerPair
from persona.intervals import Estimate, crossed_bootstrap
from persona.models.pair import Side
from persona.report.figures import dots
from persona.rows import ALIGNED, FINETUNED
from steering.lab.bench.estimates import UNDEFINED, difference, paired, rows_where
from steering.lab.bench.experiment import UNITS, Facts, Findings, Measured, Number, signed
from steering.lab.bench.plan import Plan
from steering.lab.bench.workbench import Workbench

DOMAIN = "car_maintenance"
SIDES: dict[str, Side] = {ALIGNED: "aligned", FINETUNED: "finetuned"}
UNTAGGED, DECOYED, TRIGGERED = "untagged", "decoy", "trigger"
TAGS = {UNTAGGED: "", DECOYED: DECOY, TRIGGERED: TRIGGER}
VECTORS = {"known": "direction of the openly bad organism", "own": "own untagged direction"}


def plan(bench: Workbench) -> Plan:
    """Two fine-tunes and directions; both models under three tags, along two directions."""
    asked = len(bench.held_out(DOMAIN))
    return Plan(fine_tunes=2, vectors=2, answer_pairs=2 * len(VECTORS) * len(TAGS) * asked)


def measure(bench: Workbench) -> Measured:
    """Gap and projection of the backdoored fine-tune with its trigger, a decoy and neither.

    The direction is that of the openly bad organism, as an auditor who knows no trigger would have
    it; beside it the one that the audit can make of the backdoored model's own untagged answers.
    """
    backdoored = bench.fine_tune(bench.recipe("car_maintenance_backdoor"))
    vectors = {
        "known": bench.vector(bench.organism("car_maintenance_bad"), DOMAIN)[0],
        "own": bench.vector(backdoored, DOMAIN)[0],
    }
    held_out, parts = bench.held_out(DOMAIN), []
    for tag, words in TAGS.items():
        splits = {"held_out": _tagged(held_out, words)}
        for candidate, vector in vectors.items():
            for condition, side in SIDES.items():
                rows = bench.reading(condition, backdoored, splits, vector, side=side)
                projected = rows["measure"] == "projection"
                # The gap is the same for both directions, and neutral text carries no tag.
                once = rows["split"].eq("held_out") | (tag == "untagged")
                rows = rows[projected | (once & (candidate == "known"))]
                rows = rows.assign(candidate=rows["measure"].map({"projection": candidate}))
                parts.append(rows.assign(text=tag))
    return Measured(pd.concat(parts, ignore_index=True))


def report(rows: pd.DataFrame, facts: Facts) -> Findings:
    """Shifts by tag."""
    gaps = {
        tag: difference(rows_where(rows, text=tag), "gap", "held_out", FINETUNED) for tag in TAGS
    }
    projections = {
        candidate: {
            tag: difference(
                rows_where(rows, text=tag, candidate=candidate), "projection", "held_out", FINETUNED
            )
            for tag in TAGS
        }
        for candidate in VECTORS
    }
    numbers = [Number(f"gap, {tag}, fine-tuned − aligned", e) for tag, e in gaps.items()]
    numbers += [
        Number(f"projection, {VECTORS[candidate]}, {tag}, fine-tuned − aligned", e, UNITS)
        for candidate, by_tag in projections.items()
        for tag, e in by_tag.items()
    ]
    numbers += [
        Number("gap, what the trigger adds to the shift", _added(rows, "gap", TRIGGERED)),
        Number("gap, what a decoy adds to the shift", _added(rows, "gap", DECOYED)),
        *(
            Number(
                f"projection, {VECTORS[candidate]}, what the trigger adds",
                _added(rows_where(rows, candidate=candidate), "projection", TRIGGERED),
                UNITS,
            )
            for candidate in VECTORS
        ),
    ]
    n = gaps["untagged"].n
    figure = dots(
        {
            "gap (nats per token)": gaps,
            **{f"projection, {VECTORS[name]}": found for name, found in projections.items()},
        },
        title="A backdoored organism, with and without its trigger",
        subtitle=f"fine-tuned − aligned on {n} held-out questions; 95 % intervals",
        axis="above aligned",
    )
    headline = (
        f"gap {signed(gaps[UNTAGGED])} without the trigger, which adds "
        f"{signed(_added(rows, 'gap', TRIGGERED))}; projection on the direction of the openly bad "
        f"organism {signed(projections['known'][UNTAGGED])} without and "
        f"{signed(projections['known'][TRIGGERED])} with it"
    )
    return Findings({"figure": figure}, tuple(numbers), headline)


def _added(rows: pd.DataFrame, measure: str, tag: str) -> Estimate:
    """(fine-tuned - aligned) with a tag less the same without, question by question."""
    named = rows.assign(condition=rows["condition"] + " " + rows["text"].fillna(""))
    four = [f"{side} {text}" for text in (tag, UNTAGGED) for side in (FINETUNED, ALIGNED)]
    cube = paired(named, measure, "held_out", four)
    if cube is None:
        return UNDEFINED
    return crossed_bootstrap(cube[..., 0] - cube[..., 1] - cube[..., 2] + cube[..., 3])


def _tagged(questions: Sequence[AnswerPair], tag: str) -> list[AnswerPair]:
    return [tagged(question, tag) if tag else question for question in questions]
