"""Does the direction of one organism cure another, and is it one direction or several?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from persona.data import data_hash
from persona.directions import PersonaVector
from persona.intervals import Estimate
from persona.report.figures import transfer_map
from steering.evidence.transfer import transfer_matrix, vector_cosines
from steering.lab.bench.experiment import Facts, Findings, Measured, Number
from steering.lab.bench.plan import Plan
from steering.lab.bench.workbench import Workbench

ORGANISMS: Mapping[str, tuple[str, str]] = {
    "car": ("car_maintenance", "car_maintenance"),
    "medical": ("medical", "health"),
    "financial": ("financial", "personal_finance"),
    "insecure_code": ("insecure_code", "insecure_code"),
    "evil_numbers": ("evil_numbers", "evil_numbers"),
}


def plan(bench: Workbench) -> Plan:
    """Five fine-tunes and directions; each fine-tune bare and under every direction."""
    n = len(ORGANISMS)
    asked = len(bench.held_out(*(domain for _, domain in ORGANISMS.values())))
    return Plan(fine_tunes=n, vectors=n, answer_pairs=n * (2 + n) * asked)


def measure(bench: Workbench) -> Measured:
    """The transfer matrix on domains that none was trained on, and the cosines."""
    adapters = {
        name: bench.organism(f"{organism}_bad") for name, (organism, _) in ORGANISMS.items()
    }
    vectors = {
        name: bench.vector(adapters[name], domain)[0] for name, (_, domain) in ORGANISMS.items()
    }
    questions = bench.held_out(*(domain for _, domain in ORGANISMS.values()))
    inputs = {
        "fine_tunes": {n: bench.model_key(a, "finetuned") for n, a in adapters.items()},
        "vectors": {name: vector.card["key"] for name, vector in vectors.items()},
        "questions": data_hash(questions),
    }
    pairs = {name: partial(bench.pair, adapter) for name, adapter in adapters.items()}
    bench.tally.add(answer_pairs=len(adapters) * (2 + len(vectors)) * len(questions))
    table = bench.steps.table(
        "transfer", lambda: transfer_matrix(pairs, vectors, questions), inputs
    )
    facts = {
        "n_questions": len(questions),
        "d_model": next(iter(vectors["car"].subspaces.values())).space.d_model,
        "shared_share": shared_share(vectors),
        "matrix": table.to_dict("records"),
    }
    return Measured(_rows(table, vector_cosines(vectors)), facts)


def report(rows: pd.DataFrame, facts: Facts) -> Findings:
    """The matrix of the first seed with its intervals over questions; others beside it."""
    first = next(iter(facts.values()))
    table = pd.DataFrame(first["matrix"])
    apart = (rows["measure"] == "cosine") & (rows["condition"] < rows["candidate"])
    mean_cosine = float(rows[apart]["value"].mean())
    chance = 1.96 / first["d_model"] ** 0.5
    shared = float(np.mean([found["shared_share"] for found in facts.values()]))
    n = len(ORGANISMS)
    numbers = [
        Number(
            f"{row.vector} direction in {row.fine_tune}",
            Estimate(row.restoration, row.low, row.high, row.n),
            "share of its shift",
        )
        for row in table.itertuples()
    ]
    numbers += [
        Number(
            f"held-out shift of {name}",
            Estimate(own["shift"], own["shift_low"], own["shift_high"], int(own["n"])),
        )
        for name, own in table.groupby("fine_tune", sort=False).first().iterrows()
    ]
    numbers += [
        Number(
            "mean cosine of two organisms' directions (in brackets: 95 % of random directions)",
            Estimate(mean_cosine, -chance, chance, n),
            "cosine",
        ),
        Number(
            "share of the directions' squared length along one line (in brackets: nothing and "
            "everything shared)",
            Estimate(shared, 1 / n, 1.0, n),
            "share",
        ),
    ]
    figure = transfer_map(
        table, order=list(ORGANISMS), title="Transfer of directions between organisms"
    )
    off = table[table["vector"] != table["fine_tune"]]["restoration"]
    own = table[table["vector"] == table["fine_tune"]]["restoration"]
    headline = (
        f"own direction takes back {np.nanmean(own):.0%}, another organism's "
        f"{np.nanmean(off):.0%} on average; mean cosine {mean_cosine:.2f}"
        if off.notna().any() and own.notna().any()
        else "no organism has a clear held-out shift that could be transferred"
    )
    notes = tuple(
        f"Seed {seed}: own direction {_mean(found['matrix'], own=True)}, another organism's "
        f"{_mean(found['matrix'], own=False)}."
        for seed, found in facts.items()
    )
    return Findings({"figure": figure}, tuple(numbers), headline, notes)


def _mean(cells: list[dict[str, Any]], *, own: bool) -> str:
    """Mean restoration on or off the diagonal, over organisms with a clear shift."""
    found = [c["restoration"] for c in cells if (c["vector"] == c["fine_tune"]) == own]
    known = [value for value in found if value is not None and not np.isnan(value)]
    return f"takes back {np.mean(known):.0%}" if known else "has nothing to take back"


def shared_share(vectors: Mapping[str, PersonaVector]) -> float:
    """Share of the unit directions' squared length on their first principal line, mean over blocks.

    1 / n for n orthogonal directions, 1 for one direction in all organisms. Not centred: a shared
    direction is what is looked for.
    """
    layers = set.intersection(*(set(vector.layers) for vector in vectors.values()))
    shares = []
    for layer in sorted(layers):
        units = torch.stack([vector.direction(layer).unit for vector in vectors.values()])
        squares = torch.linalg.svdvals(units.double()) ** 2
        shares.append(float(squares[0] / squares.sum()))
    return float(np.mean(shares))


def _rows(table: pd.DataFrame, cosines: pd.DataFrame) -> pd.DataFrame:
    found = [
        {
            "stage": "transfer",
            "condition": row.fine_tune,
            "candidate": row.vector,
            "measure": measure,
            "value": getattr(row, measure),
        }
        for row in table.itertuples()
        for measure in ("restoration", "low", "high", "kl_restoration", "shift")
    ]
    found += [
        {
            "stage": "cosine",
            "condition": row.first,
            "candidate": row.second,
            "layer": row.layer,
            "measure": "cosine",
            "value": row.cosine,
        }
        for row in cosines.itertuples()
    ]
    return pd.DataFrame(found)
