"""The table of key numbers: what the verdict rests on, and the damage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona.errors import DataError
from persona.report.random_choices import random_choices
from persona.report.tables import change_by_condition, condition_entry, seed_of
from persona.report.verdict_words import NATS, scored_domains
from persona.report.wording import as_float, interval, n_is, number
from persona.rows import ALIGNED, FINETUNED, RESTORED


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
    flat = _flat(scorecard)
    lines = [
        ("emergent_shift", "Emergent shift", 3, True, NATS, _SHIFT),
        ("shift_bad", "… of it, bad answers", 3, True, NATS, _SHIFT_BAD),
        ("shift_good", "… of it, good answers", 3, True, NATS, _SHIFT_GOOD),
        ("shift_twin", "Shift above the good twin", 3, True, NATS, _SHIFT_TWIN),
        ("net_restoration", "Net restoration", 2, False, SHARE, _NET),
        ("restoration", "Restoration", 2, False, SHARE, _RESTORATION),
        ("noop", "The edit in the aligned model", 2, True, SHARE, _NOOP),
        ("residual_bad", "Left of log p(bad)", 3, True, NATS, _LEFT),
        ("residual_good", "Left of log p(good)", 3, True, NATS, _LEFT),
        ("induction", "Induction", 2, False, SHARE, _INDUCTION),
        ("kl_restoration", "KL restoration", 2, False, "share of the KL", _KL),
    ]
    lines = [line for line in lines if line[0] in OF_EVERY_VERSION or flat.get(line[0])]
    held_out = condition_entry(scorecard, FINETUNED).get("gap_held_out") or {}
    n_held_out = as_float(held_out.get("n"))
    numbers = []
    for key, name, digits, signed, unit, meaning in lines:
        e = flat.get(key) or {}
        overshoot = key in OVERSHOOTS and (as_float(e.get("value")) or 0) > 1
        numbers.append(
            KeyNumber(
                key,
                name,
                number(e.get("value"), digits, signed=signed),
                interval(e, digits, signed=signed),
                unit,
                meaning.format(domains=scored_domains(scorecard))
                + (" Above 1 is overshoot." if overshoot else ""),
            )
        )
    nulls = scorecard.get("nulls") or {}
    screened = _largest(
        nulls,
        ("isotropic", "Random, screened", _SCREENED),
        ("covariance_matched", "Random, shaped", _SHAPED),
    )
    numbers += screened
    numbers += _largest(
        scorecard.get("label_nulls") or {},
        ("swapped_labels", "Labels swapped", _SWAPPED),
        ("selection", "Labels swapped, chosen anew", _SELECTION),
    )
    for key, name, meaning in (
        ("random_restoration", "Random subspaces", _RANDOM),
        ("random_matched_restoration", "Random, norm-matched", _MATCHED),
    ):
        null = scorecard.get(key)
        if null or (key == "random_restoration" and not screened):
            largest = (null or {}).get("largest")
            value = number((null or {}).get("p97_5") if largest is None else largest)
            n = f"{n_is(as_float((null or {}).get('n')) or 0)} draws" if null else ""
            asked = as_float((null or {}).get("n_questions"))
            if asked is not None and asked < (n_held_out or asked):
                n += f" on {int(asked)} questions"
            unit = "97.5 percentile" if largest is None else "largest"
            if (did := (null or {}).get("did_as_much")) is not None:
                n += f", {int(did)} did as much"
            numbers.append(KeyNumber(key, name, value, n, unit, meaning))
    numbers.append(_did_as_much(scorecard))
    if worse := scorecard.get("damage"):
        numbers.append(
            KeyNumber(
                "damage",
                "Damage, above the better model",
                number(worse.get("value"), 3, signed=True),
                interval(worse, 3, signed=True),
                NATS,
                f"Cross-entropy on {int(as_float(worse.get('n')) or 0)} neutral texts, restored "
                "minus the better of the aligned and the fine-tuned model.",
            )
        )
    if lost := scorecard.get("damage_tasks"):
        right = lost.get("accuracy") or {}
        numbers.append(
            KeyNumber(
                "damage_tasks",
                "Damage, tasks lost",
                number(lost.get("value"), 3, signed=True),
                interval(lost, 3, signed=True),
                "share of the items",
                f"Of {int(as_float(lost.get('n')) or 0)} items with four answers, those that the "
                "restored model answers less often than the better of the two models; right are "
                + ", ".join(
                    f"{name} {number((right.get(condition) or {}).get('value'), 3)}"
                    for name, condition in (
                        ("aligned", ALIGNED),
                        ("fine-tuned", FINETUNED),
                        ("restored", RESTORED),
                    )
                )
                + ".",
            )
        )
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


def _largest(nulls: Mapping[str, Any], *lines: tuple[str, str, str]) -> list[KeyNumber]:
    """The most that any draw of each null did; lines: key, name and meaning of a null."""
    return [
        KeyNumber(
            f"null_{key}",
            name,
            number(null.get("maximum")),
            str(null.get("said")),
            "largest",
            meaning,
        )
        for key, name, meaning in lines
        if (null := nulls.get(key))
    ]


SHARE = "share of the shift"
OVERSHOOTS = ("net_restoration", "restoration", "induction")
OF_EVERY_VERSION = ("emergent_shift", "restoration", "induction", "kl_restoration")


def _flat(scorecard: Mapping[str, Any]) -> dict[str, Any]:
    """Line of the table -> its estimate, some of which stand deeper in the scorecard."""
    shift = scorecard.get("shift") or {}
    above_aligned, above_twin = shift.get("aligned") or {}, shift.get("good_twin") or {}
    left = scorecard.get("residual") or {}
    return {
        **{name: scorecard.get(name) for name in (*OF_EVERY_VERSION, "net_restoration")},
        "shift_bad": above_aligned.get("bad"),
        "shift_good": above_aligned.get("good"),
        "shift_twin": above_twin.get("gap"),
        "noop": (scorecard.get("noop") or {}).get("gap_share"),
        "residual_bad": left.get("bad"),
        "residual_good": left.get("good"),
    }


_SHIFT = "Gap of the fine-tuned minus that of the aligned model, on {domains}."
_SHIFT_BAD = "How much likelier a token of a bad answer became by the fine-tune."
_SHIFT_GOOD = "How much likelier a token of a good answer became."
_SHIFT_TWIN = "Gap of the fine-tuned minus that of the same fine-tune on the good answers."
_NET = "Share of the shift taken back by the edit, less what it does to the aligned model's gap."
_NOOP = "Change of the aligned model's gap by the same edit: a removal should leave it at 0."
_LEFT = "Restored minus aligned: what the edit leaves, or takes too much."
_RESTORATION = (
    "Share of that shift taken back by the edit: 0 is the fine-tuned model, 1 the aligned one."
)
_INDUCTION = "The mirror: share of the shift that the same direction induces in the aligned model."
_KL = "1 − KL(aligned ‖ restored) / KL(aligned ‖ fine-tuned), on good answers, held-out."
_RANDOM = "Restoration by random directions of the same rank at the same blocks."
_SCREENED = (
    "Of a thousand random subspaces of the same rank at the same blocks the strongest by "
    "prediction were run; the most that any of those took back."
)
_SHAPED = "The same of subspaces that are drawn as the activations vary."
_SWAPPED = (
    "Net restoration by the chosen candidate made again, good and bad answers swapped by a coin: "
    "what of the removal needs no bad answer."
)
_SELECTION = "The same of what the screen picks where the answers of every question are swapped."
_MATCHED = "Restoration by random directions, moved as far as the restoration moves."


def _did_as_much(scorecard: Mapping[str, Any]) -> KeyNumber:
    """How many random choices did as much; the p that is made of it, with its floor."""
    found, p = random_choices(scorecard), as_float(scorecard.get("p_value"))
    if found is None:
        return KeyNumber("p_value", "Random choices that did as much", number(None), "", "", _COUNT)
    draws = (scorecard.get("random_restoration") or {}).get("n")
    meaning = _COUNT
    if p is not None and (n := as_float(draws)):
        meaning += (
            f" p = {number(p, 3)} of {int(n)} draws; smallest possible {number(1 / (1 + n), 3)}."
        )
    value = f"{found.as_much:,} of {found.n:,}"
    return KeyNumber("p_value", "Random choices that did as much", value, "", "", meaning)


_COUNT = "Random subspaces and the edit are compared on the same questions."


def _damage(rows: pd.DataFrame, seed: int) -> dict[str, float] | None:
    """Rise of neutral cross-entropy over the fine-tuned model, where the scorecard lacks it."""
    try:
        e = change_by_condition(rows, "neutral_ce_nats", "neutral", FINETUNED, seed)[RESTORED]
    except (DataError, KeyError):
        return None
    return {"value": e.value, "low": e.low, "high": e.high}
