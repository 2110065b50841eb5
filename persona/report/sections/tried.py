"""The interventions that were tried on the selection questions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona.errors import DataError
from persona.intervals import bootstrap
from persona.report.tables import question_means, readings
from persona.report.theme import candidate_label
from persona.report.wording import as_float, cleaned, number, with_interval
from persona.rows import ALIGNED, FINETUNED


@dataclass(frozen=True)
class Tried:
    """One intervention that was tried on the selection questions."""

    label: str
    chosen: bool
    gap: str
    restoration: str
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
    names = [name for name in gaps.columns if name not in (ALIGNED, FINETUNED)]
    names.sort(key=lambda name: (abs(gaps[name].mean() - target), name))
    lines = []
    for name in names:
        e = bootstrap(gaps[name].dropna().to_numpy(), seed=seed)
        share = None
        if {ALIGNED, FINETUNED} <= set(gaps.columns):
            table = gaps[[FINETUNED, name, ALIGNED]].dropna().mean()
            shift = table[FINETUNED] - table[ALIGNED]
            share = (table[FINETUNED] - table[name]) / shift if shift else None
        kl_share = 1 - kl[name] / kl[FINETUNED] if {name, FINETUNED} <= set(kl.index) else None
        cost = ce[name] - ce[FINETUNED] if {name, FINETUNED} <= set(ce.index) else None
        lines.append(
            Tried(
                _spoken(str(name)),
                _is_chosen(str(name), direction),
                with_interval({"value": e.value, "low": e.low, "high": e.high}, signed=True),
                number(share),
                number(kl_share),
                number(cost, 3, signed=True),
            )
        )
    return lines


_LABEL = re.compile(r"(\S+) r(\d+) (blocks? \d+(?:-\d+)?) c([\d.]+)")


def _spoken(label: str) -> str:
    """`attribution_eigen r4 blocks 13-28 c1` for people."""
    match = _LABEL.fullmatch(label)
    if not match:
        return cleaned(label)
    name, rank, where, coefficient = match.groups()
    return (
        f"{candidate_label(name)}, rank {rank}, {where.replace('-', '–')}, "
        f"coefficient {float(coefficient):g}"
    )


def _is_chosen(label: str, direction: Mapping[str, Any]) -> bool:
    match = _LABEL.fullmatch(label)
    layers = sorted(int(layer) for layer in direction.get("layers") or [])
    if not match or not layers:
        return False
    where = f"blocks {layers[0]}-{layers[-1]}" if len(layers) > 1 else f"block {layers[0]}"
    coefficient = as_float(direction.get("coefficient"))
    return (
        match[1] == direction.get("method")
        and int(match[2]) == as_float(direction.get("rank"))
        and match[3] == where
        and (coefficient is None or float(match[4]) == coefficient)
    )
