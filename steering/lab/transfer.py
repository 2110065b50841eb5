"""Does the direction of one organism cure another, and is it one direction or several?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
import torch

from persona.behaviour.intervals import Estimate
from persona.directions import PersonaVector
from persona.report.figures import transfer_map
from steering.lab.outcome import Number, Outcome
from steering.lab.workbench import Workbench, adapter_key
from steering.rows import tidy
from steering.transfer import transfer_matrix, vector_cosines

ORGANISMS: Mapping[str, tuple[str, str]] = {
    "car": ("car_maintenance", "car_maintenance"),
    "medical": ("medical", "health"),
    "financial": ("financial", "personal_finance"),
    "insecure_code": ("insecure_code", "insecure_code"),
    "evil_numbers": ("evil_numbers", "evil_numbers"),
}


def run_transfer(bench: Workbench) -> Outcome:
    """The transfer matrix on domains that none was trained on, cosines, and the shared share."""
    adapters = {
        name: bench.fine_tune(bench.recipe(f"{organism}_bad"))
        for name, (organism, _) in ORGANISMS.items()
    }
    vectors = {
        name: bench.vector(adapters[name], domain)[0] for name, (_, domain) in ORGANISMS.items()
    }
    questions = bench.held_out(*(domain for _, domain in ORGANISMS.values()))
    table = bench.steps.table(
        "transfer",
        {
            **{name: adapter_key(adapter) for name, adapter in adapters.items()},
            "sizes": vars(bench.sizes),
        },
        lambda: transfer_matrix(
            {name: partial(bench.pair, adapter) for name, adapter in adapters.items()},
            vectors,
            questions,
            seed=bench.settings.seed,
        ),
    )
    cosines = vector_cosines(vectors)
    shared = shared_share(vectors)
    rows = _rows(table, cosines)
    mean_cosine = cosines[cosines["first"] < cosines["second"]]["cosine"].mean()
    d_model = next(iter(vectors["car"].subspaces.values())).space.d_model
    numbers = [
        Number(
            f"{row.vector} vector in {row.fine_tune}",
            Estimate(row.restoration, row.low, row.high, row.n),
            "share of its shift",
        )
        for row in table.itertuples()
    ]
    numbers += [
        Number(
            f"held-out shift of {name}",
            Estimate(own["shift"], own["shift_low"], own["shift_high"], own["n"]),
        )
        for name, own in table.groupby("fine_tune", sort=False).first().iterrows()
    ]
    numbers += [
        Number(
            "mean cosine of two organisms' directions (in place of an interval: 95 % of random "
            "directions)",
            Estimate(float(mean_cosine), -1.96 / d_model**0.5, 1.96 / d_model**0.5, len(vectors)),
            "cosine",
        ),
        Number(
            "share of the directions' squared length along one line (in place of an interval: "
            "of nothing and everything shared)",
            Estimate(shared, 1 / len(vectors), 1.0, len(vectors)),
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
        else "no organism has a held-out shift that could be transferred"
    )
    return Outcome(rows, figure, tuple(numbers), headline)


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
    return tidy(pd.DataFrame(found))
