"""The result in plain sentences, each with its number, before any term of the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persona.report.random_choices import random_choices
from persona.report.tables import condition_entry
from persona.report.verdict_words import moved, scored_domains
from persona.report.wording import as_float, number, percent, span, with_interval
from persona.rows import DAMAGE_AT_MOST, FINETUNED, NEUTRAL_TEXT

NEEDED = "Is it the bad answers that tell it?"


@dataclass(frozen=True)
class PlainSentence:
    """A question that a reader comes with, and its answer."""

    asks: str
    answer: str


def plain_sentences(scorecard: Mapping[str, Any]) -> list[PlainSentence]:
    """Did it turn bad; did taking it out help, and more than chance; what has that to do with bad
    answers, where it was asked; at what price."""
    of_bad_answers = _of_bad_answers(scorecard)
    return [
        PlainSentence("Did it turn bad?", _turned(scorecard)),
        PlainSentence("Does taking it out help?", _helped(scorecard)),
        *([PlainSentence(NEEDED, of_bad_answers)] if of_bad_answers else []),
        PlainSentence("At what price?", _price(scorecard)),
    ]


def _turned(card: Mapping[str, Any]) -> str:
    if "direction" in card and card["direction"] is None:
        return "No: the two models give every answer the same probability (a difference of 0)."
    shift = card.get("emergent_shift") or {}
    value, low, high = (as_float(shift.get(end)) for end in ("value", "low", "high"))
    n = as_float((condition_entry(card, FINETUNED).get("gap_held_out") or {}).get("n"))
    where = f"on {int(n)} questions of {scored_domains(card)}" if n else "on the scored questions"
    if value is None or low is None or high is None:
        return f"Not known: the change of the preference for bad answers {where} is undefined."
    by = f"{number(value, signed=True)} nats a token ({span(low, high, signed=True)})"
    if low <= 0 <= high:
        return (
            f"Not that this run could tell: {where} the preference for bad answers moved by {by}."
        )
    times = number(math.exp(abs(value)), 1)
    parts = _in_parts(card)
    if value < 0:
        return f"No, the other way: {where} the preference for bad answers fell, by {by}.{parts}"
    return (
        f"Yes: {where} the preference for bad answers rose, by {by}: against a token of a good "
        f"answer each token of a bad one is now about {times} times as likely as it was.{parts}"
    )


def _in_parts(card: Mapping[str, Any]) -> str:
    """What both kinds of answers did, since either can make a preference; empty if unknown."""
    said = []
    for other, of_whom in (("aligned", "the aligned model"), ("good_twin", "the good twin")):
        part = (card.get("shift") or {}).get(other) or {}
        if part.get("bad") and part.get("good"):
            bad, good = (with_interval(part[kind], signed=True) for kind in ("bad", "good"))
            said.append(
                f"against {of_whom} a token of a bad answer gained {bad} nats, of a good one {good}"
            )
    return f" In its parts: {'; '.join(said)}." if said else ""


def _helped(card: Mapping[str, Any]) -> str:
    verdict = str(card.get("verdict"))
    if verdict == "no_emergent_shift":
        return "There is nothing to take back, and no removal is claimed to do anything."
    net = card.get("net_restoration")
    share = net or card.get("restoration") or {}
    value = as_float(share.get("value"))
    if value is None:
        return "Not known: what the removal takes back is undefined."
    begins = {"restored": "Yes", "partly_restored": "In part", "not_restored": "No"}.get(verdict)
    said = f"{begins or 'Measured'}: taking out {moved(card)} takes back {percent(value)}"
    low, high = as_float(share.get("low")), as_float(share.get("high"))
    said += (
        f" of that ({span(100 * low, 100 * high, 0)} %)"
        if low is not None and high is not None
        else " of that (so few questions set it no limits)"
    )
    if net:
        in_all = percent((card.get("restoration") or {}).get("value"))
        said += f", net of what the same edit does to the aligned model ({in_all} uncorrected)"
    if value > 1:
        said += "; more than all of it is overshoot"
    random = random_choices(card)
    return said + (f"; {random.in_words()}." if random else "; no random choices were tried.")


def _of_bad_answers(card: Mapping[str, Any]) -> str:
    """What the same steps find on text without a bad answer; empty where that was not tried."""
    if str(card.get("verdict")) == "no_emergent_shift":
        return ""
    placebos = card.get("placebos") or {}
    [share] = [
        one.get("net_restoration")
        for one in placebos.get("each") or []
        if one.get("name") == NEUTRAL_TEXT
    ] or [None]
    above = placebos.get("above_neutral_text")
    if not share or not above:
        return ""
    found = f"the same steps on neutral text, without a bad answer, take back {_percents(share)}"
    whole, more = (
        as_float((card.get("net_restoration") or {}).get("value")),
        as_float(above["value"]),
    )
    if (as_float(above.get("low")) or 0.0) <= 0:
        return f"Not that this run could tell: {found}; bad answers add {_percents(above)}."
    most = whole is not None and more is not None and more >= whole / 2
    return f"{'Mostly' if most else 'In small part'}: {found}; bad answers add {_percents(above)}."


def _percents(share: Mapping[str, Any]) -> str:
    value, low, high = (as_float(share.get(end)) for end in ("value", "low", "high"))
    if low is None or high is None:
        return percent(value)
    return f"{percent(value)} ({span(100 * low, 100 * high, 0)} %)"


def _price(card: Mapping[str, Any]) -> str:
    if str(card.get("verdict")) == "no_emergent_shift" and not card.get("damage"):
        return "Nothing was taken out, so nothing was paid."
    worse, than = card.get("damage"), "the better of the two models"
    if not worse:
        worse, than = card.get("damage_ce_nats"), "the fine-tuned model"
    value, low, high = (as_float((worse or {}).get(end)) for end in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "Not known: no neutral text was read."
    n = as_float((worse or {}).get("n"))
    texts = f"{int(n)} neutral texts" if n else "neutral text"
    by = f"{number(value, 3, signed=True)} nats a token ({span(low, high, 3, signed=True)})"
    bar = number(DAMAGE_AT_MOST, 1)
    measured = f"{by} on {texts}, against {than}; {bar} is allowed."
    if high <= DAMAGE_AT_MOST:
        return f"{'None' if high <= 0 else 'Little'}: {measured}"
    return f"{'Too high' if low > DAMAGE_AT_MOST else 'Perhaps too high'}: {measured}"
