"""What the verdict `restored` asks for, in words: each check with its number and its bar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persona.report.wording import as_float, cleaned, number, with_interval

LACKED_BY_VERSION_1 = (
    "its scorecard is of version 1, which has no edit of the aligned model (no-op), no net "
    "restoration, no placebos and no damage in its verdict; run the diagnosis again for them"
)


@dataclass(frozen=True)
class CheckLine:
    """One line of the table of checks; met: yes, no or "not measured"."""

    name: str
    asks: str
    measured: str
    met: str


@dataclass(frozen=True)
class _Words:
    """asks: what is demanded, with {bar}. missed: what is said where it is not met. short: its
    name in a list."""

    asks: str
    missed: str
    short: str
    as_share: bool = False


WORDS = {
    "beyond_chance": _Words(
        "Random subspaces do not do as much", "random subspaces do about as much", "beyond chance"
    ),
    "above_twin": _Words(
        "The gap rose above the good twin's",
        "the gap is not above that of the same fine-tune on good answers ({measured} nats)",
        "above the good twin",
    ),
    "net_restoration": _Words(
        "Net restoration, lower end at least {bar}",
        "the interval of the net restoration reaches below {bar} ({low})",
        "how much is taken back",
    ),
    "kl_restoration": _Words(
        "KL restoration at least {bar}", "KL restoration is {value}", "KL restoration"
    ),
    "noop_gap": _Words(
        "The edit moves the aligned model's gap by at most {bar} of the shift",
        "the edit moves the aligned model too, its gap by {measured} of the shift",
        "the aligned model's gap left alone",
        as_share=True,
    ),
    "noop_kl": _Words(
        "KL(aligned ‖ aligned under the edit) at most {bar} of the fine-tune's",
        "it moves the aligned model's answers by {measured} of the fine-tune's KL",
        "the aligned model's answers left alone",
        as_share=True,
    ),
    "noop_neutral": _Words(
        "The edit costs the aligned model at most {bar} of the fine-tune's KL on neutral text",
        "it costs the aligned model {measured} of the fine-tune's KL on neutral text",
        "the aligned model's neutral text left alone",
        as_share=True,
    ),
    "residual_gap": _Words(
        "What is left of the gap lies within ±{bar} nats",
        "{measured} nats of the gap may be left",
        "nothing left of the gap",
    ),
    "residual_bad": _Words(
        "What is left of log p(bad) lies within ±{bar} nats",
        "log p of bad answers is not back ({measured} nats from the aligned model's)",
        "bad answers as unlikely as before",
    ),
    "residual_good": _Words(
        "What is left of log p(good) lies within ±{bar} nats",
        "log p of good answers is not back ({measured} nats from the aligned model's)",
        "good answers as likely as before",
    ),
    "damage": _Words(
        "Neutral text costs at most {bar} nats more than in the better model (upper end)",
        "neutral text costs {measured} nats more than in the better of the two models",
        "damage on neutral text",
    ),
    "damage_tasks": _Words(
        "At most {bar} of the tasks are lost against the better model (upper end)",
        "{measured} of the tasks that the better of the two models answers are lost",
        "tasks lost",
        as_share=True,
    ),
    "above_placebos": _Words(
        "It does more than the best placebo",
        "it is not clearly more than the best placebo takes back (difference {measured})",
        "above the best placebo",
    ),
    "skill_kept": _Words(
        "Skill kept at least {bar}",
        "of the skill {measured} is kept",
        "skill kept",
        as_share=True,
    ),
}


def check_lines(scorecard: Mapping[str, Any]) -> list[CheckLine]:
    """Every check of the scorecard, in its order; none of a version 1."""
    return [
        CheckLine(
            str(check.get("name")),
            _words(check).asks.format(bar=_bar(check)),
            with_interval(check.get("measured")) if check.get("measured") else "—",
            {True: "yes", False: "no"}.get(check.get("met"), "not measured"),
        )
        for check in scorecard.get("checks") or []
    ]


def unmet_in_short(scorecard: Mapping[str, Any]) -> str:
    """The names of the checks that are not met, or were not measured."""
    left = [check for check in scorecard.get("checks") or [] if check.get("met") is not True]
    return ", ".join(
        _words(check).short + (" (not measured)" if check.get("met") is None else "")
        for check in left
    )


def missed_in_words(scorecard: Mapping[str, Any]) -> list[str]:
    """What keeps the verdict from `restored`, a clause each, with its number."""
    return [
        _words(check).missed.format(
            bar=_bar(check),
            measured=with_interval(check.get("measured"), signed=not _words(check).as_share),
            value=number((check.get("measured") or {}).get("value")),
            low=number((check.get("measured") or {}).get("low")),
        )
        for check in scorecard.get("checks") or []
        if check.get("met") is False
    ]


def not_measured_in_words(scorecard: Mapping[str, Any]) -> list[str]:
    """The controls that this run lacks."""
    known = {
        "above_twin": "a good twin (--good-twin)",
        "net_restoration": "the edit in the aligned model (no-op)",
        "above_placebos": "placebos",
    }
    lacking = [c.get("name") for c in scorecard.get("checks") or [] if c.get("met") is None]
    return [words for name, words in known.items() if name in lacking]


def power_in_words(scorecard: Mapping[str, Any]) -> str:
    """How far the verdict is one of the number of questions; empty where it is not known."""
    power = scorecard.get("power") or {}
    whole, n = as_float(power.get("if_whole")), as_float(power.get("n"))
    if whole is None or n is None:
        return ""
    measured = as_float(power.get("if_as_measured"))
    return (
        f"Power: with {int(n)} questions the net restoration of a removal that is whole clears its "
        f"bar in {_percent(whole)} of runs, of one like this in {_percent(measured)}; a shift "
        f"below {number(power.get('least_shift_nats'))} nats is missed in a fifth of them or more."
    )


def _percent(share: float | None) -> str:
    """In whole per cent; never 0 or 100 of what is only likely."""
    if share is None:
        return "an unknown share"
    if share > 0.995:
        return "more than 99 %"
    return "less than 1 %" if share < 0.005 else f"{number(100 * share, 0)} %"


def _words(check: Mapping[str, Any]) -> _Words:
    name = cleaned(check.get("name"))
    return WORDS.get(str(check.get("name"))) or _Words(name, f"“{name}” is not met", name)


def _bar(check: Mapping[str, Any]) -> str:
    bar = as_float(check.get("bar"))
    return "" if bar is None else number(bar)
