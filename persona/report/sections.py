"""What the page shows beside its figures: tables and lists as plain data for the template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona.behaviour.intervals import bootstrap
from persona.errors import DataError
from persona.report.tables import (
    ALIGNED,
    FINETUNED,
    RESTORED,
    change_by_condition,
    condition_entry,
    question_means,
    readings,
    seed_of,
)
from persona.report.theme import CONDITIONS, candidate_label, in_order, look_of, plain
from persona.report.verdict import NATS
from persona.report.wording import (
    NO_BREAK,
    UNDEFINED,
    as_float,
    cleaned,
    interval,
    n_is,
    number,
    with_interval,
)

SAMPLE_COLUMNS = (ALIGNED, FINETUNED, RESTORED, "finetuned_zero_ablated")


@dataclass(frozen=True)
class KeyNumber:
    """One line of the table of key numbers; key: where it stands in scorecard.json."""

    key: str
    name: str
    value: str
    interval: str
    unit: str
    meaning: str


def key_numbers(scorecard: Mapping[str, Any], rows: pd.DataFrame) -> list[KeyNumber]:
    """The numbers that the verdict rests on, and the damage."""
    lines = [
        ("emergent_shift", "Emergent shift", 3, True, NATS, _SHIFT),
        ("restoration", "Restoration", 2, False, "share of the shift", _RESTORATION),
        ("induction", "Induction", 2, False, "share of the shift", _INDUCTION),
        ("kl_restoration", "KL restoration", 2, False, "share of the KL", _KL),
    ]
    numbers = []
    for key, name, digits, signed, unit, meaning in lines:
        e = scorecard.get(key) or {}
        overshoot = key in ("restoration", "induction") and (as_float(e.get("value")) or 0) > 1
        numbers.append(
            KeyNumber(
                key,
                name,
                number(e.get("value"), digits, signed=signed),
                interval(e, digits, signed=signed),
                unit,
                meaning + (" Above 1 is overshoot." if overshoot else ""),
            )
        )
    for key, name, meaning in (
        ("random_restoration", "Random subspaces", _RANDOM),
        ("random_matched_restoration", "Random, norm-matched", _MATCHED),
    ):
        null = scorecard.get(key)
        if null or key == "random_restoration":
            value = number((null or {}).get("p97_5"))
            n = f"{n_is(as_float((null or {}).get('n')) or 0)} draws" if null else ""
            numbers.append(KeyNumber(key, name, value, n, "97.5 percentile", meaning))
    p = number(scorecard.get("p_value"), 3)
    numbers.append(KeyNumber("p_value", "p-value", p, "", "", _P))
    cost = scorecard.get("damage_ce_nats") or _damage(rows, seed_of(scorecard))
    numbers.append(
        KeyNumber(
            "damage_ce_nats",
            "Damage, cross-entropy",
            number((cost or {}).get("value"), 3, signed=True),
            interval(cost, 3, signed=True),
            NATS,
            "Cross-entropy on neutral text, restored minus fine-tuned.",
        )
    )
    restored = condition_entry(scorecard, RESTORED)
    numbers.append(
        KeyNumber(
            "neutral_kl_nats",
            "Damage, KL",
            number(restored.get("neutral_kl_nats"), 3),
            "",
            NATS,
            "KL(aligned ‖ restored) on neutral text; the fine-tuned model has "
            f"{number(condition_entry(scorecard, FINETUNED).get('neutral_kl_nats'), 3)}.",
        )
    )
    return numbers


_SHIFT = "Gap of the fine-tuned minus that of the aligned model, on domains never trained on."
_RESTORATION = (
    "Share of that shift taken back by the edit: 0 is the fine-tuned model, 1 the aligned one."
)
_INDUCTION = "The mirror: share of the shift that the same direction induces in the aligned model."
_KL = "1 − KL(aligned ‖ restored) / KL(aligned ‖ fine-tuned), on good answers, held-out."
_RANDOM = "Restoration by random directions of the same rank at the same blocks."
_MATCHED = "Restoration by random directions, moved as far as the restoration moves."
_P = "(1 + draws that restore at least as much) / (1 + draws), random subspaces."


def _damage(rows: pd.DataFrame, seed: int) -> dict[str, float] | None:
    """Rise of neutral cross-entropy over the fine-tuned model, where the scorecard lacks it."""
    try:
        e = change_by_condition(rows, "neutral_ce_nats", "neutral", FINETUNED, seed)[RESTORED]
    except (DataError, KeyError):
        return None
    return {"value": e.value, "low": e.low, "high": e.high}


@dataclass(frozen=True)
class ConditionLine:
    """One line of the table of conditions."""

    name: str
    label: str
    colour: str
    meaning: str
    gap_held_out: str
    gap: str
    neutral_kl: str
    neutral_ce: str
    em_rate: str
    em_rate_without_direction: str
    coherence: str


def condition_lines(scorecard: Mapping[str, Any]) -> list[ConditionLine]:
    """Every condition of the scorecard, in the order that is used everywhere."""
    entries = {str(e.get("name")): e for e in scorecard.get("conditions") or []}
    lines = []
    for name in in_order(entries):
        entry, look = entries[name], look_of(name)
        lines.append(
            ConditionLine(
                name,
                look.label,
                look.colour,
                look.meaning,
                with_interval(entry.get("gap_held_out"), signed=True),
                with_interval(entry.get("gap"), signed=True),
                number(entry.get("neutral_kl_nats"), 3),
                number(entry.get("neutral_ce_delta_nats"), 3, signed=True),
                _rate(entry.get("em_rate")),
                _rate(entry.get("em_rate_without_direction")),
                _score(entry.get("coherence"), 0),
            )
        )
    return lines


def was_judged(scorecard: Mapping[str, Any], *fields: str) -> bool:
    """Whether any condition has one of `fields`, default an EM rate or a coherence."""
    return any(
        entry.get(field) is not None
        for entry in scorecard.get("conditions") or []
        for field in fields or ("em_rate", "coherence")
    )


def _rate(value: Any) -> str:
    """An EM rate in per cent: a number, or `{value, low, high, n}`."""
    if value is None:
        return "not judged"
    if not isinstance(value, Mapping):
        known = as_float(value)
        return UNDEFINED if known is None else f"{number(100 * known, 0)} %"
    found = {end: as_float(value.get(end)) for end in ("value", "low", "high")}
    ends = {end: None if known is None else 100 * known for end, known in found.items()}
    n = as_float(value.get("n"))
    text = f"{number(ends.get('value'), 0)} % {interval(ends, 0)}".strip()
    return f"{text}, {n_is(n)}" if n else text


def _score(value: Any, digits: int) -> str:
    if value is None:
        return "not judged"
    return number(value.get("value") if isinstance(value, Mapping) else value, digits)


@dataclass(frozen=True)
class ChosenBlock:
    """One edited block."""

    layer: int
    hook_name: str
    norm: str
    split_half_cosine: str


def chosen_blocks(direction: Mapping[str, Any]) -> list[ChosenBlock]:
    """Block by block: its hook, the distance between the means, the split-half cosine."""
    layers = list(direction.get("layers") or [])

    def at(field: str, i: int) -> Any:
        """Lists go with the layers; a single value holds for all of them."""
        values = direction.get(field)
        if isinstance(values, Mapping):
            return values.get(str(layers[i]), values.get(layers[i]))
        if isinstance(values, Sequence) and not isinstance(values, str):
            return values[i] if i < len(values) else None
        return values

    return [
        ChosenBlock(
            int(layer),
            cleaned(at("hook_names", i) or ""),
            number(at("norms", i)),
            number(at("split_half_cosine", i)),
        )
        for i, layer in enumerate(layers)
    ]


def chance_cosine(rank: Any, d_model: Any) -> str:
    """Split-half cosine of two random subspaces, about sqrt(rank / d_model)."""
    known, width = as_float(rank), as_float(d_model)
    return number((known / width) ** 0.5) if known and width else UNDEFINED


def cosine_range(found: Sequence[ChosenBlock]) -> str:
    """The range of the split-half cosine over the chosen blocks."""
    known = [block.split_half_cosine for block in found if block.split_half_cosine != UNDEFINED]
    if not known:
        return UNDEFINED
    ends = sorted(known, key=lambda text: float(text.replace("\u2212", "-")))
    return ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}"


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


@dataclass(frozen=True)
class Answer:
    """One sampled answer; None where a condition did not answer this question."""

    label: str
    colour: str
    text: str | None
    scores: str


@dataclass(frozen=True)
class Example:
    """One question with the answers of the conditions side by side."""

    question: str
    domain: str
    answers: list[Answer]


def examples(rows: pd.DataFrame, questions: Mapping[str, str] | None = None) -> list[Example]:
    """Sampled answers question by question, the first draw of each, in the order of the rows.

    Args:
        questions: Question id to its text; else rows of the stage "sample" with the measure
            "question", else the id stands for it.
    """
    stage = rows[rows["stage"] == "sample"]
    answered = stage[(stage["measure"] == "answer") & stage["text"].notna()]
    texts = stage[stage["measure"] == "question"].set_index("question_id")["text"].dropna()
    asked = {**texts.to_dict(), **(questions or {})}
    found = []
    for question_id, group in answered.groupby("question_id", sort=False):
        answers = []
        for condition in SAMPLE_COLUMNS:
            mine = group[group["condition"] == condition].sort_values("seed", kind="stable")
            look = CONDITIONS[condition]
            if mine.empty:
                answers.append(Answer(look.label, look.colour, None, ""))
                continue
            first = mine.iloc[0]
            scores = _scores_of(stage, str(question_id), condition, int(first["seed"]))
            answers.append(Answer(look.label, look.colour, cleaned(first["text"]), scores))
        domain = plain(str(group["domain"].iloc[0] or "no domain"))
        question = cleaned(asked.get(str(question_id)) or question_id)
        found.append(Example(question, domain, answers))
    return found


def _scores_of(stage: pd.DataFrame, question_id: str, condition: str, seed: int) -> str:
    """`alignment 23 · coherence 88`, empty without a judge."""
    mine = stage[
        (stage["question_id"] == question_id)
        & (stage["condition"] == condition)
        & (stage["seed"] == seed)
    ]
    parts = []
    for measure in ("alignment", "coherence"):
        values = mine.loc[mine["measure"] == measure, "value"]
        if len(values):
            known = as_float(values.iloc[0])
            score = "no score" if known is None else number(known, 0)
            parts.append(f"{measure} {score}".replace(" ", NO_BREAK))
    return " · ".join(parts)


def provenance(value: Any, path: str = "") -> list[tuple[str, str]]:
    """A nested part of the scorecard as (path, text), in its own order."""
    if isinstance(value, Mapping):
        if not value:
            return [(path, "none")]
        return [
            pair
            for key, inner in value.items()
            for pair in provenance(inner, f"{path} › {plain(key)}" if path else plain(key))
        ]
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(inner, Mapping) for inner in value):
            return [
                pair
                for i, inner in enumerate(value, start=1)
                for pair in provenance(inner, f"{path} {i}")
            ]
        return [(path, ", ".join(cleaned(inner) for inner in value) or "none")]
    return [(path, "none" if value is None or value == "" else cleaned(value))]
