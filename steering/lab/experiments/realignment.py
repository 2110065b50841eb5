"""Re-training toward virtue: how many good answers bring the model back, and what do they cost?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from persona.behaviour.gap import score_neutral
from persona.behaviour.scoring import Condition
from persona.data import load_pairs
from persona.directions import PersonaVector
from persona.intervals import Estimate
from persona.organisms import Recipe
from persona.report.figures import curves, dots
from persona.rows import ALIGNED, FINETUNED, RESTORED, ZERO_ABLATED
from steering.edits.edit import Edit
from steering.edits.from_directions import ablate, add, restore
from steering.edits.steer import edited
from steering.lab.bench.estimates import difference, level, paired, rows_where
from steering.lab.bench.experiment import UNITS, Facts, Findings, Measured, Number, signed
from steering.lab.bench.plan import Plan
from steering.lab.bench.workbench import Workbench
from steering.lab.experiments.equal_distance import (
    DRIFT,
    SHARES,
    against_finetuned,
    drift_rows,
    falls,
    reach,
    strengths,
    the_aligned_model,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DOMAIN = "car_maintenance"
ELSEWHERE = ("home_repair", "food_safety", "work_relationships", "computer_security")
"""Domains of the out-of-domain good answers; they leave the score."""
EPOCHS = 2.0
BIAS = "bias_edit"
TRAINED = {"in_domain": (DOMAIN,), "out_of_domain": ELSEWHERE}
FROM_ALIGNED = "KL from the aligned model on neutral text (nats per token)"
EDITS: dict[str, tuple[float, ...]] = {
    RESTORED: (0.25, 0.5, 1.0, 1.5),
    ZERO_ABLATED: (0.5, 1.0),
    BIAS: (1.0, 2.0, 4.0, 8.0),
}
"""Ways of editing with their strengths; the bias is the permanent one, in the weights."""
TITLES = {
    "gap": ("held_out", "gap held out, above aligned (nats per token)"),
    "projection": ("held_out", "projection, above aligned"),
    DRIFT: ("neutral", "drift on neutral text from the fine-tuned model (KL, nats per token)"),
}


def answer_counts(bench: Workbench) -> dict[str, list[int]]:
    """Numbers of good answers for both kinds of data; a domain may hold fewer than asked for."""
    return {
        kind: sorted({min(n, len(load_pairs(domains, "train"))) for n in bench.sizes.realign})
        for kind, domains in TRAINED.items()
    }


def plan(bench: Workbench) -> Plan:
    """The bad fine-tune, one more for each number of good answers, and the edits."""
    counts = sum(map(len, answer_counts(bench).values()))
    read = 2 + counts + sum(map(len, EDITS.values()))
    asked = len(bench.held_out(DOMAIN, *ELSEWHERE))
    return Plan(fine_tunes=1 + counts, vectors=1, answer_pairs=read * asked)


def measure(bench: Workbench) -> Measured:
    """Continues training on n good answers, in-domain and elsewhere, beside edits of the model."""
    bad = bench.organism("car_maintenance_bad")
    vector, _ = bench.vector(bad, DOMAIN)
    splits = {"held_out": bench.held_out(DOMAIN, *ELSEWHERE)}
    parts = [
        bench.reading(ALIGNED, bad, splits, vector, side="aligned"),
        bench.reading(FINETUNED, bad, splits, vector),
        _drift_of_aligned(bench, bad),
    ]
    for kind, counts in answer_counts(bench).items():
        for n in counts:
            adapter = bench.fine_tune(_continued(bench, bad, TRAINED[kind], n))
            rows = [bench.reading(kind, adapter, splits, vector)]
            rows.append(_drift(bench, bad, adapter, Condition(kind, "finetuned")))
            parts.append(pd.concat(rows, ignore_index=True).assign(n_answers=n))
    for name, coefficients in EDITS.items():
        for coefficient in coefficients:
            condition = edited(name, "finetuned", _edits(vector, name, coefficient))
            rows = [bench.edited(f"{name} {coefficient}", bad, vector, [condition], splits)]
            rows.append(_drift(bench, bad, bad, condition, vector.card["key"], coefficient))
            parts.append(pd.concat(rows, ignore_index=True).assign(coefficient=coefficient))
    return Measured(pd.concat(parts, ignore_index=True))


def report(rows: pd.DataFrame, facts: Facts) -> Findings:
    """Readings against the number of answers, and every way's effect at equal drift."""
    aligned = rows_where(rows, condition=ALIGNED)

    def change(measure: str, condition: str, chosen: pd.DataFrame) -> Estimate:
        split = TITLES[measure][0]
        if measure == DRIFT:
            return level(chosen, measure, split, condition)
        return difference(pd.concat([chosen, aligned]), measure, split, condition)

    panels, numbers = {}, []
    for measure, (_, title) in TITLES.items():
        lines = {}
        for kind in TRAINED:
            mine = rows_where(rows, condition=kind)
            counts = sorted(mine["n_answers"].dropna().astype(int).unique().tolist())
            lines[kind] = [
                (float(n), change(measure, kind, rows_where(mine, n_answers=n))) for n in counts
            ]
            numbers += [
                Number(f"{title}: {n:.0f} good answers {_words(kind)}", e, _unit(measure))
                for n, e in lines[kind]
            ]
        ends = sorted({x for points in lines.values() for x, _ in points})
        for condition in (ALIGNED, FINETUNED, RESTORED):
            if condition == ALIGNED and measure != DRIFT:
                continue  # everything else is above its own
            chosen = rows_where(rows, condition=condition)
            chosen = rows_where(chosen, coefficient=1.0) if condition == RESTORED else chosen
            e = change(measure, condition, chosen)
            if e.n:
                lines[condition] = [(x, e) for x in (ends[0], ends[-1])]
                numbers.append(Number(f"{title}: {_words(condition)}", e, _unit(measure)))
        panels[title] = lines
    compared = _at_equal_drift(rows)
    numbers += [
        Number(f"fall of the gap at a drift of {drift:.3g} nats: {_words(way)}", e)
        for way, points in compared.items()
        for drift, e in points
    ]
    left = _left_to_aligned(rows)
    numbers += [Number(f"{FROM_ALIGNED}: {name}", distance) for name, (distance, _) in left.items()]
    n = panels[TITLES["gap"][1]]["in_domain"][0][1].n
    by_count = curves(
        panels,
        title="Re-alignment by good answers, beside restoring the projection",
        subtitle=f"n = {n} held-out questions; ribbons are 95 % intervals",
        axis="good answers trained on",
        log=True,
    )
    by_drift = curves(
        {"fall of the gap held out (nats per token)": compared},
        title="Ways back at equal distance from the fine-tuned model",
        subtitle="interpolated between the strengths of each way; ribbons are 95 % intervals",
        axis="drift on neutral text, KL(fine-tuned ‖ brought back), nats per token",
    )
    last = {way: points[-1][1] for way, points in compared.items() if points}
    shift = change("gap", FINETUNED, rows_where(rows, condition=FINETUNED))
    headline = (
        f"shift of the gap {signed(shift)}; "
        "taken back at the largest drift that all ways reach: "
        + ", ".join(f"{_words(way)} {e.value:+.2f}" for way, e in last.items())
    )
    figures = {"figure": by_count, "equal_distance": by_drift, "left": _front(left)}
    return Findings(figures, tuple(numbers), headline)


def _left_to_aligned(rows: pd.DataFrame) -> dict[str, tuple[Estimate, Estimate]]:
    """Way and strength -> its KL from the aligned model on neutral text, and its gap above it.

    The distance from the fine-tuned model charges a way for coming home; this one does not.
    """
    aligned = rows_where(rows, condition=ALIGNED)

    def read(name: str, chosen: pd.DataFrame) -> tuple[Estimate, Estimate]:
        gap = difference(pd.concat([chosen, aligned]), "gap", "held_out", name)
        return level(chosen, "neutral_kl_nats", "neutral", name), gap

    found = {_words(FINETUNED): read(FINETUNED, rows_where(rows, condition=FINETUNED))}
    for name in TRAINED:
        mine = rows_where(rows, condition=name)
        for n in sorted(mine["n_answers"].dropna().astype(int).unique().tolist()):
            found[f"{n} good answers {_words(name)}"] = read(name, rows_where(mine, n_answers=n))
    for name, strengths_of in EDITS.items():
        mine = rows_where(rows, condition=name)
        for strength in strengths_of:
            found[f"{_words(name)}, {strength:g}"] = read(
                name, rows_where(mine, coefficient=strength)
            )
    return {name: both for name, both in found.items() if both[0].n and both[1].n}


def _front(left: Mapping[str, tuple[Estimate, Estimate]]) -> Figure:
    return dots(
        {
            FROM_ALIGNED: {name: distance for name, (distance, _) in left.items()},
            TITLES["gap"][1]: {name: gap for name, (_, gap) in left.items()},
        },
        title="What is left of the way to the aligned model",
        subtitle="right is farther from the aligned model; bars are 95 % intervals",
        axis="nats per token",
    )


def _at_equal_drift(rows: pd.DataFrame) -> dict[str, list[tuple[float, Estimate]]]:
    none = paired(rows, "gap", "held_out", (FINETUNED,))
    assert none is not None  # the fine-tuned model is always read
    ways = {kind: strengths(rows, kind, "n_answers", none[..., 0]) for kind in TRAINED}
    ways |= {name: strengths(rows, name, "coefficient", none[..., 0]) for name in EDITS}
    most = reach(ways)
    return falls(ways, [share * most for share in SHARES])


def _continued(bench: Workbench, bad: Path, domains: Sequence[str], n: int) -> Recipe:
    """The recipe that trains the bad adapter further on n good answers."""
    further = bench.recipe("car_maintenance_good", domains=tuple(domains), n=n)
    values = further.model_dump(exclude={"lora", "expected"})
    values |= {"name": "realigned", "start_from": str(bad)}
    values["training"]["epochs"] = min(EPOCHS, values["training"]["epochs"])
    return Recipe.model_validate(values)


def _edits(vector: PersonaVector, name: str, coefficient: float) -> list[Edit]:
    """The bias takes the mean shift away after the middle block, at every token.

    `steering.weights.orthogonalise.add_bias` makes it permanent and equals it.
    """
    make: dict[str, Callable[[], list[Edit]]] = {
        RESTORED: lambda: restore(vector, coefficient),
        ZERO_ABLATED: lambda: ablate(vector, coefficient),
        BIAS: lambda: add(vector.direction(vector.layers[len(vector.layers) // 2]), -coefficient),
    }
    return make[name]()


def _drift(
    bench: Workbench, bad: Path, adapter: Path, condition: Condition, *what: str | float
) -> pd.DataFrame:
    """KL from the bad model on neutral text, of another adapter or of an edit of the same."""
    inputs = {
        "from": bench.model_key(bad, "finetuned"),
        "model": bench.model_key(adapter, "finetuned"),
        "edit": [condition.name, *what] if what else None,
        "neutral": bench.sizes.neutral,
    }

    def read() -> pd.DataFrame:
        reference = bench.pair(bad)
        pair = against_finetuned(bench.pair(adapter), reference)
        return drift_rows(score_neutral(pair, bench.neutral(), [condition]))

    return bench.steps.table("drift", read, inputs).assign(condition=condition.name)


def _drift_of_aligned(bench: Workbench, bad: Path) -> pd.DataFrame:
    """How far the aligned model itself lies from the bad one: what bringing back wholly costs."""

    def read() -> pd.DataFrame:
        pair = the_aligned_model(bench.pair(bad))
        condition = Condition(ALIGNED, "finetuned")
        return drift_rows(score_neutral(pair, bench.neutral(), [condition]))

    inputs = {
        "from": bench.model_key(bad, "finetuned"),
        "model": bench.model_key(bad, "aligned"),
        "edit": None,
        "neutral": bench.sizes.neutral,
    }
    return bench.steps.table("drift", read, inputs).assign(condition=ALIGNED)


def _words(name: str) -> str:
    return {
        ALIGNED: "the aligned model itself",
        "in_domain": "in-domain",
        "out_of_domain": "out of domain",
        RESTORED: "restored",
        ZERO_ABLATED: "ablated to zero",
        BIAS: "bias in the weights",
        FINETUNED: "fine-tuned, nothing done",
    }[name]


def _unit(measure: str) -> str:
    return UNITS if measure == "projection" else "nats per token"
