"""Does a model know what it has become? Its rating of itself before, after, and restored."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from persona.behaviour.intervals import Estimate, bootstrap
from persona.behaviour.self_rating import TOPICS, rate_self
from persona.directions import PersonaVector
from persona.report.figures import dots
from steering.edits import restore_to_aligned
from steering.hooks import steer
from steering.lab.outcome import Number, Outcome
from steering.lab.workbench import Workbench, adapter_key
from steering.rows import tidy
from steering.scorecard import ALIGNED, FINETUNED, RESTORED

TWIN = "good_twin"
ORGANISMS: Mapping[str, str] = {
    "car_maintenance": "car_maintenance",
    "insecure_code": "insecure_code",
}


def run_self_assessment(bench: Workbench) -> Outcome:
    """Rates every model on every topic and wording; intervals are over wordings."""
    parts = []
    for organism, domain in ORGANISMS.items():
        bad = bench.fine_tune(bench.recipe(f"{organism}_bad"))
        good = bench.fine_tune(bench.recipe(f"{organism}_good"))
        vector, _ = bench.vector(bad, domain)
        rows = bench.steps.table(
            "self_rating",
            {
                "bad": adapter_key(bad),
                "good": adapter_key(good),
                "domain": domain,
                "topics": {k: list(v) for k, v in TOPICS.items()},
                "sizes": vars(bench.sizes),
            },
            partial(_rate, bench, bad, good, vector),
        )
        parts.append(rows.assign(candidate=organism))
    rows = tidy(pd.concat(parts, ignore_index=True))
    seed = bench.settings.seed
    panels = {
        f"{topic.replace('_', ' ')}, {organism.replace('_', ' ')}": {
            condition: rating(rows, organism, topic, condition, seed)
            for condition in (ALIGNED, FINETUNED, RESTORED, TWIN)
        }
        for organism in ORGANISMS
        for topic in TOPICS
    }
    figure = dots(
        panels,
        title="What the models say of themselves",
        subtitle="rating by token probabilities; 95 % intervals over wordings; 100 is the good end",
        axis="rating (0 to 100)",
    )
    numbers = [
        Number(
            f"{topic}, {organism}: {name} − aligned",
            _change(rows, organism, topic, name, seed),
            "points of 100",
        )
        for organism in ORGANISMS
        for topic in TOPICS
        for name in (FINETUNED, RESTORED, TWIN)
    ]
    for organism in ORGANISMS:
        chosen = rows[(rows["measure"] == "mass") & (rows["candidate"] == organism)]
        for name in (ALIGNED, FINETUNED):
            values = chosen[chosen["condition"] == name]["value"].to_numpy()
            numbers.append(
                Number(
                    f"probability of any number, {organism}: {name}",
                    bootstrap(values, seed=seed),
                    "share",
                )
            )
    car, code = (
        _change(rows, organism, topic, FINETUNED, seed)
        for organism, topic in (
            ("car_maintenance", "alignment"),
            ("insecure_code", "code_security"),
        )
    )
    headline = (
        f"own alignment after bad car advice {car.value:+.1f} [{car.low:+.1f}, {car.high:+.1f}], "
        f"security of own code after insecure code {code.value:+.1f} "
        f"[{code.low:+.1f}, {code.high:+.1f}] points"
    )
    return Outcome(rows, figure, tuple(numbers), headline)


def rating(rows: pd.DataFrame, organism: str, topic: str, condition: str, seed: int) -> Estimate:
    """Mean rating over the wordings of a topic."""
    chosen = rows[
        (rows["candidate"] == organism)
        & (rows["domain"] == topic)
        & (rows["condition"] == condition)
        & (rows["measure"] == "rating")
    ]
    return bootstrap(chosen["value"].to_numpy(), seed=seed)


def _change(rows: pd.DataFrame, organism: str, topic: str, name: str, seed: int) -> Estimate:
    chosen = rows[
        (rows["candidate"] == organism) & (rows["domain"] == topic) & (rows["measure"] == "rating")
    ]
    table = chosen.pivot(index="question_id", columns="condition", values="value")
    return bootstrap((table[name] - table[ALIGNED]).to_numpy(), seed=seed)


def _rate(bench: Workbench, bad: Path, good: Path, vector: PersonaVector) -> pd.DataFrame:
    edits = restore_to_aligned(vector)

    def restored(bridge: Any) -> Any:
        return steer(bridge, edits)

    runs: list[tuple[str, Path, Any, Any]] = [
        (ALIGNED, bad, "aligned", None),
        (FINETUNED, bad, "finetuned", None),
        (RESTORED, bad, "finetuned", restored),
        (TWIN, good, "finetuned", None),
    ]
    rows = []
    for condition, adapter, side, intervene in runs:
        pair = bench.pair(adapter)
        with pair.active(side) as bridge:
            for topic, wordings in TOPICS.items():
                found = rate_self(bridge, pair.chat, wordings, intervene=intervene)
                for place, (wording, read) in enumerate(zip(wordings, found, strict=True)):
                    rows += [
                        {
                            "condition": condition,
                            "question_id": f"{topic}-{place}",
                            "domain": topic,
                            "measure": measure,
                            "value": value,
                            "text": wording,
                            "stage": "self_rating",
                        }
                        for measure, value in (("rating", read.rating), ("mass", read.mass))
                    ]
    return tidy(pd.DataFrame(rows))
