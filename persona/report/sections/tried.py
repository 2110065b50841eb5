"""The interventions that were tried on the selection questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona.errors import DataError
from persona.intervals import bootstrap, net_taken_back, taken_back
from persona.report.tables import question_means, readings
from persona.report.theme import candidate_label
from persona.report.wording import as_float, blocks, cleaned, number, with_interval
from persona.rows import ALIGNED, FINETUNED, IN_ALIGNED


@dataclass(frozen=True)
class Tried:
    """One intervention that was tried on the selection questions."""

    label: str
    chosen: bool
    gap: str
    restoration: str
    net_restoration: str
    noop: str
    kl_restoration: str
    damage: str


def tried_lines(rows: pd.DataFrame, direction: Mapping[str, Any], seed: int = 0) -> list[Tried]:
    """Interventions of the stage "verify", closest to the aligned model's gap first.

    Shares and damage are relative to the two models, undefined where those were not measured.
    """
    try:
        gaps = question_means(readings(rows, "verify", "gap"))
    except DataError:
        return []
    others = {}
    for measure in ("kl_good_nats", "neutral_ce_nats"):
        try:
            others[measure] = question_means(readings(rows, "verify", measure)).mean()
        except DataError:
            others[measure] = pd.Series(dtype="float64")
    kl, ce = others["kl_good_nats"], others["neutral_ce_nats"]
    target = gaps[ALIGNED].mean() if ALIGNED in gaps else float("nan")
    made = _facts(rows)
    of_aligned = {f"{name}{IN_ALIGNED}" for name in gaps.columns}
    known = of_aligned | {ALIGNED, FINETUNED}
    names = [name for name in gaps.columns if name not in known]
    names.sort(key=lambda name: (abs(gaps[name].mean() - target), name))
    lines = []
    for name in names:
        e = bootstrap(gaps[name].dropna().to_numpy(), seed=seed)
        share = net = moved = kl_share = None
        if {ALIGNED, FINETUNED} <= set(gaps.columns):
            share = taken_back(gaps[[FINETUNED, name, ALIGNED]].dropna().mean().to_numpy())
            if (noop := f"{name}{IN_ALIGNED}") in gaps:
                means = gaps[[FINETUNED, name, ALIGNED, noop]].dropna().mean().to_numpy()
                net = net_taken_back(means)
                moved = net - share
        if {name, FINETUNED} <= set(kl.index):
            kl_share = taken_back(kl[[FINETUNED, name]].to_numpy())
        cost = ce[name] - ce[FINETUNED] if {name, FINETUNED} <= set(ce.index) else None
        lines.append(
            Tried(
                _spoken(str(name), made.get(name)),
                _is_chosen(made.get(name), direction),
                with_interval({"value": e.value, "low": e.low, "high": e.high}, signed=True),
                number(share),
                number(net),
                number(moved),
                number(kl_share),
                number(cost, 3, signed=True),
            )
        )
    return lines


@dataclass(frozen=True)
class _Made:
    """What was tried, from the columns of its rows."""

    candidate: str
    rank: int
    layers: tuple[int, int]
    coefficient: float


def _facts(rows: pd.DataFrame) -> dict[str, _Made]:
    """condition -> what was tried; none of a condition whose rows do not say it."""
    columns = ["candidate", "rank", "layer", "last_layer", "coefficient"]
    known = rows[rows["stage"] == "verify"].dropna(subset=columns).drop_duplicates("condition")
    return {
        str(row.condition): _Made(
            str(row.candidate),
            int(row.rank),
            (int(row.layer), int(row.last_layer)),
            float(row.coefficient),
        )
        for row in known.itertuples()
    }


def _spoken(label: str, made: _Made | None) -> str:
    """For people: the label itself where nothing else is known."""
    if made is None:
        return cleaned(label)
    first, last = made.layers
    return (
        f"{candidate_label(made.candidate)}, rank {made.rank}, {blocks(range(first, last + 1))}, "
        f"coefficient {made.coefficient:g}"
    )


def _is_chosen(made: _Made | None, direction: Mapping[str, Any]) -> bool:
    layers = sorted(int(layer) for layer in direction.get("layers") or [])
    if made is None or not layers:
        return False
    coefficient = as_float(direction.get("coefficient"))
    return (
        made.candidate == direction.get("method")
        and made.rank == as_float(direction.get("rank"))
        and made.layers == (layers[0], layers[-1])
        and (coefficient is None or made.coefficient == coefficient)
    )
