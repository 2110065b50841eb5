"""The verdict in words, and what a run like this cannot show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persona.report.random_choices import random_choices
from persona.report.tables import condition_entry
from persona.report.verdict_checks import (
    LACKED_BY_VERSION_1,
    missed_in_words,
    not_measured_in_words,
)
from persona.report.wording import as_float, blocks, cleaned, number, with_interval
from persona.rows import FINETUNED, KL_RESTORED_AT_LEAST, RESTORED_AT_LEAST, is_beyond_chance

NATS = "nats per token"


@dataclass(frozen=True)
class Verdict:
    """headline: two or three words. sentence: one sentence with the interval. kind: for colour."""

    headline: str
    sentence: str
    kind: str


def verdict_words(scorecard: Mapping[str, Any]) -> Verdict:
    """The scorecard's verdict as a headline and one sentence that carries its interval."""
    known = {
        "restored": _restored,
        "partly_restored": _partly,
        "not_restored": _not_restored,
        "no_emergent_shift": _no_shift,
    }
    name = str(scorecard.get("verdict"))
    if name not in known:
        return Verdict(
            "Verdict unknown",
            f"The scorecard's verdict is “{cleaned(name)}”, which this report does not know.",
            "neutral",
        )
    return known[name](scorecard)


def _restored(card: Mapping[str, Any]) -> Verdict:
    return Verdict(
        "Restored",
        f"Moving {moved(card)} to the aligned model's mean takes back {_share(card)} of the "
        f"emergent shift{_where(card)}, {_beyond_chance(card)}, and brings back "
        f"{with_interval(card.get('kl_restoration'))} of the aligned model's distribution (KL)"
        f"{_overshoot(card)}.{_afterwards(card)}",
        "good",
    )


def _partly(card: Mapping[str, Any]) -> Verdict:
    return Verdict(
        "Partly restored",
        f"Moving {moved(card)} to the aligned model's mean takes back {_share(card)} of the "
        f"emergent shift{_where(card)}, {_beyond_chance(card)}, but this is not the aligned model "
        f"again: {_shortfall(card)}{_overshoot(card)}.{_afterwards(card)}",
        "middling",
    )


def _not_restored(card: Mapping[str, Any]) -> Verdict:
    return Verdict(
        "Not restored",
        f"Moving {moved(card)} to the aligned model's mean takes back {_share(card)} of the "
        f"emergent shift{_where(card)}, which is not beyond what random subspaces do "
        f"({_random(card)}).{_missed_too(card)}{_afterwards(card)}",
        "bad",
    )


def _no_shift(card: Mapping[str, Any]) -> Verdict:
    if "direction" in card and card["direction"] is None:
        return Verdict(
            "No emergent shift",
            f"The two models do not differ: they give every answer{_where(card)} the same "
            "probability. There is nothing to find, and nothing to take back.",
            "neutral",
        )
    shift = with_interval(card.get("emergent_shift"), 3, signed=True)
    return Verdict(
        "No emergent shift",
        f"The fine-tune moved the gap{_where(card)} by {shift} {NATS}, an interval that contains "
        "0: there is no emergent shift to take back, and restoration is undefined.",
        "neutral",
    )


def moved(card: Mapping[str, Any]) -> str:
    """`one direction at blocks 13–28`."""
    direction = card.get("direction") or {}
    rank = int(as_float(direction.get("rank")) or 1)
    name = "one direction" if rank == 1 else f"{rank} directions"
    return f"{name} at {blocks(direction.get('layers'))}"


def _share(card: Mapping[str, Any]) -> str:
    """The net restoration with the raw one, or of an older scorecard the raw one alone."""
    raw = with_interval(card.get("restoration"))
    if not card.get("net_restoration"):
        return raw
    net = with_interval(card.get("net_restoration"))
    return f"{net} (net of what it does to the aligned model; {raw} in all)"


def _afterwards(card: Mapping[str, Any]) -> str:
    """What this run did not measure."""
    if not card.get("checks"):
        return f" Mind: {LACKED_BY_VERSION_1}." if card.get("schema_version") == 1 else ""
    lacking = not_measured_in_words(card)
    return f" Not measured: {', '.join(lacking)}." if lacking else ""


def _where(card: Mapping[str, Any]) -> str:
    n = _n_held_out(card)
    return f" on {int(n)} questions from {scored_domains(card)}" if n else ""


def _n_held_out(card: Mapping[str, Any]) -> float | None:
    return as_float((condition_entry(card, FINETUNED).get("gap_held_out") or {}).get("n"))


def training_known(scorecard: Mapping[str, Any]) -> bool:
    """Whether the scorecard knows which domains were fine-tuned on; null says that nobody does."""
    data = scorecard.get("data")
    return not (isinstance(data, Mapping) and data.get("trained_on", "") is None)


def scored_domains(scorecard: Mapping[str, Any]) -> str:
    """What the held-out questions are of, in words."""
    if training_known(scorecard):
        return "domains it was not trained on"
    return "all domains, some of which it may have been trained on"


def _random(card: Mapping[str, Any]) -> str:
    """How many random subspaces did as much, of the kind that is hardest to beat."""
    found = random_choices(card)
    return "no random subspaces were drawn" if found is None else found.in_words()


def _beyond_chance(card: Mapping[str, Any]) -> str:
    how = "beyond random subspaces" if _is_beyond(card) else "not clearly beyond random subspaces"
    return f"{how} ({_random(card)})"


def _is_beyond(card: Mapping[str, Any]) -> bool:
    """As the scorecard checked it; one of version 1 has the numbers alone."""
    for check in card.get("checks") or []:
        if check.get("name") == "beyond_chance":
            return bool(check.get("met"))
    random = card.get("random_restoration") or {}
    over_all = card.get("restoration") or {}
    low = as_float(over_all.get("low"))
    value = as_float((random.get("of_the_edit") or over_all).get("value"))
    limit = as_float(random.get("p97_5"))
    if low is None or value is None or limit is None:
        return False
    return is_beyond_chance(low, value, limit)


def _overshoot(card: Mapping[str, Any]) -> str:
    shown = card.get("net_restoration") or card.get("restoration") or {}
    value = as_float(shown.get("value"))
    return "; above 1 is overshoot, past the aligned model" if value and value > 1 else ""


def _missed_too(card: Mapping[str, Any]) -> str:
    """Every other condition that is not met, where chance alone decides the verdict."""
    others = [c for c in card.get("checks") or [] if c.get("name") != "beyond_chance"]
    named = missed_in_words({**card, "checks": others})
    return f" Nor is it the aligned model again: {'; '.join(named)}." if named else ""


def _shortfall(card: Mapping[str, Any]) -> str:
    """Which bars of `restored` were missed."""
    if named := missed_in_words(card):
        return "; ".join(named)
    missed = []
    low = as_float((card.get("restoration") or {}).get("low"))
    kl = as_float((card.get("kl_restoration") or {}).get("value"))
    if low is not None and low < RESTORED_AT_LEAST:
        missed.append(f"the interval reaches below {RESTORED_AT_LEAST} ({number(low)})")
    if kl is None or kl < KL_RESTORED_AT_LEAST:
        missed.append(f"KL restoration is {number(kl)}, below {KL_RESTORED_AT_LEAST}")
    return " and ".join(missed) or "it misses the bar for restored"
