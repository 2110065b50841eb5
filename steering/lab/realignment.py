"""Re-training toward virtue: how many good answers bring the model back, and what do they cost?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from persona.behaviour.intervals import Estimate
from persona.behaviour.scoring import Condition
from persona.data import load_pairs
from persona.directions import PersonaVector
from persona.organisms import Recipe
from persona.report.figures import curves
from steering.edits import add_direction, restore_to_aligned
from steering.lab.organism import difference
from steering.lab.outcome import Number, Outcome
from steering.lab.workbench import Workbench, adapter_key, edited, project_answers
from steering.rows import tidy
from steering.scorecard import ALIGNED, FINETUNED, RESTORED

DOMAIN = "car_maintenance"
ELSEWHERE = ("home_repair", "food_safety", "work_relationships", "computer_security")
"""Domains of the out-of-domain good answers; they leave the score."""
EPOCHS = 2.0
COEFFICIENTS = (0.25, 0.5, 0.75, 1.0)
BIAS = "bias_edit"


def run_realignment(bench: Workbench) -> Outcome:
    """Continues training on n good answers, in-domain and elsewhere, beside edits of the model."""
    seed = bench.settings.seed
    bad = bench.fine_tune(bench.recipe("car_maintenance_bad"))
    vector, _ = bench.vector(bad, DOMAIN)
    held_out = bench.held_out(DOMAIN, *ELSEWHERE)
    inputs = {"bad": adapter_key(bad), "sizes": vars(bench.sizes)}
    parts = [bench.steps.table("edits", inputs, lambda: _score_edits(bench, bad, vector, held_out))]
    for kind, domains in (("in_domain", (DOMAIN,)), ("out_of_domain", ELSEWHERE)):
        available = len(load_pairs(domains, "train"))
        counts = sorted({min(n, available) for n in bench.sizes.realign})
        for n in counts:
            adapter = bench.fine_tune(_continued(bench, bad, domains, n))

            def read(adapter: Path = adapter, kind: str = kind) -> pd.DataFrame:
                pair = bench.pair(adapter)
                rows = bench.score(pair, [Condition(kind, "finetuned")], held_out=held_out)
                projected = project_answers(pair, vector, held_out, {kind: "finetuned"})
                return pd.concat([rows, projected], ignore_index=True)

            key = {**inputs, "adapter": adapter_key(adapter)}
            parts.append(bench.steps.table("realigned", key, read).assign(rank=n))
    rows = tidy(pd.concat(parts, ignore_index=True))

    def change(measure: str, split: str, condition: str, **where: Any) -> Estimate:
        chosen = rows[rows["condition"].isin([ALIGNED, condition])]
        for column, value in where.items():
            chosen = chosen[(chosen[column] == value) | (chosen["condition"] == ALIGNED)]
        return difference(chosen, measure, split, condition, ALIGNED, seed)

    readings = {
        "gap": ("held_out", "gap held out (nats per token)"),
        "projection": ("held_out", "projection (1 = bad answers in-domain)"),
        "neutral_ce_nats": ("neutral", "cross-entropy of neutral text (nats per token)"),
    }
    numbers, panels = [], {}
    for measure, (split, title) in readings.items():
        lines = {}
        for kind in ("in_domain", "out_of_domain"):
            counts = sorted(rows[rows["condition"] == kind]["rank"].dropna().astype(int).unique())
            lines[kind] = [(float(n), change(measure, split, kind, rank=n)) for n in counts]
            numbers += [
                Number(
                    f"{title}, {n:.0f} good answers {kind.replace('_', ' ')}", e, "above aligned"
                )
                for n, e in lines[kind]
            ]
        ends = sorted({x for points in lines.values() for x, _ in points})
        for condition in (FINETUNED, RESTORED, BIAS):
            whole = {} if condition == FINETUNED else {"coefficient": 1.0}
            level = change(measure, split, condition, **whole)
            if level.n:
                lines[condition] = [(x, level) for x in (ends[0], ends[-1])]
                numbers.append(Number(f"{title}, {condition}", level, "above aligned"))
        panels[title] = lines
    for coefficient in COEFFICIENTS[:-1]:
        for measure in ("gap", "neutral_ce_nats"):
            split, title = readings[measure]
            e = change(measure, split, RESTORED, coefficient=coefficient)
            numbers.append(Number(f"{title}, restored by {coefficient:.0%}", e, "above aligned"))
    figure = curves(
        panels,
        title="Re-alignment by good answers, beside edits of the model",
        subtitle=f"above the aligned model, n = {len(held_out)} held-out questions; ribbons are "
        "95 % intervals",
        axis="good answers trained on",
        log=True,
    )
    before = change("gap", "held_out", FINETUNED)
    last = {kind: panels[readings["gap"][1]][kind][-1] for kind in ("in_domain", "out_of_domain")}
    edit = change("gap", "held_out", RESTORED, coefficient=1.0)
    headline = (
        f"shift of the gap {before.value:+.2f}; after "
        + ", ".join(f"{n:.0f} {k.replace('_', ' ')} {e.value:+.2f}" for k, (n, e) in last.items())
        + f"; restored without training {edit.value:+.2f}"
    )
    return Outcome(rows, figure, tuple(numbers), headline)


def _continued(bench: Workbench, bad: Path, domains: Sequence[str], n: int) -> Recipe:
    """The recipe that trains the bad adapter further on n good answers."""
    further = bench.recipe("car_maintenance_good", domains=tuple(domains), n=n)
    values = further.model_dump(exclude={"lora", "expected"})
    values |= {"name": "realigned", "start_from": str(bad)}
    values["training"]["epochs"] = min(EPOCHS, values["training"]["epochs"])
    return Recipe.model_validate(values)


def _score_edits(
    bench: Workbench, bad: Path, vector: PersonaVector, held_out: Sequence[Any]
) -> pd.DataFrame:
    """Both models, restoration at several coefficients, and a bias: the permanent edit.

    The bias takes the mean shift away after one block, at every token; `steering.weights.add_bias`
    makes it permanent and equals it.
    """
    pair, parts = bench.pair(bad), []
    plain = [Condition(ALIGNED, "aligned"), Condition(FINETUNED, "finetuned")]
    parts.append(bench.score(pair, plain, held_out=held_out))
    sides = {ALIGNED: "aligned", FINETUNED: "finetuned"}
    parts.append(project_answers(pair, vector, held_out, sides))
    middle = vector.direction(vector.layers[len(vector.layers) // 2])
    for coefficient in COEFFICIENTS:
        conditions = [
            edited(RESTORED, "finetuned", restore_to_aligned(vector, coefficient)),
            edited(BIAS, "finetuned", add_direction(middle, -coefficient)),
        ]
        rows = bench.score(pair, conditions, held_out=held_out)
        parts.append(rows.assign(coefficient=coefficient))
    return tidy(pd.concat(parts, ignore_index=True))
