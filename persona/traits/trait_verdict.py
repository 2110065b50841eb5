"""Is there such a direction? One rule, in the order of its questions.

1. Does the model show the trait when it is told to? The judge's scores under the instructions for
   it and against it, on the questions that prove. An interval around 0 that also holds a third of
   a spread is *too few answers*; one that does not is *nothing*: what a model does not do, no
   direction of it causes.
2. Are there enough pairs that the vector was made of? Fewer than `LEAST_PAIRS` is *too few
   answers*.
3. Does the vector tell the poles apart where nobody tells the model anything (system prompt
   removed)? The interval of its AUROC must be above 0.5, and its value beyond 97.5 % of those with
   the poles of each question swapped by a coin. Otherwise *too few answers* where the interval
   holds `AUROC_TO_FIND`, else *nothing*.
4. Does writing it cause the trait, or does taking it away cure it, more than every random direction
   and every nonsense vector of the same norm, by an interval above 0? If neither: *too few answers*
   where an effect of a third of what the instruction does is not excluded; else *style only* where
   words or length tell the poles apart as well as the vector, and *nothing* where they do not.
5. Is what it causes more than length? The effects are taken once more with the score's dependence
   on length taken out. If none is left: *style only*. Else *found*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from persona.intervals import Estimate
from persona.traits.answer_plan import AUROC_TO_FIND, answers_for_auroc
from persona.traits.trait_facts import SteeredEffect, TraitFacts

VerdictName = Literal["found", "style only", "nothing", "too few answers"]
LEAST_PAIRS = 10
SHARE_TO_FIND = 1 / 3
"""Of what the instruction does to the score."""


@dataclass(frozen=True)
class Verdict:
    """name: one of four. why: in one sentence. n_needed: answers of a condition, where too few."""

    name: VerdictName
    why: str
    n_needed: int | None = None


def verdict_on(facts: TraitFacts) -> Verdict:
    """The rule of this module."""
    for question in (_is_shown, _has_pairs, _is_read, _is_caused):
        if (found := question(facts)) is not None:
            return found
    effects = _causing(facts)
    if not any(effect.at_equal_length.low > 0 for _, effect in effects):
        return Verdict(
            "style only",
            "what the vector changes is the length of the answers: at equal length no effect on "
            f"the score is left ({_said(effects[0][1].at_equal_length)} points)",
        )
    named, net = " and ".join(name for name, _ in effects), effects[0][1].net
    return Verdict(
        "found",
        "the vector tells the poles apart without their instructions (AUROC "
        f"{_said(facts.reading.vector)}) and its {named} is beyond every control "
        f"({_said(net)} points)",
    )


def _is_shown(facts: TraitFacts) -> Verdict | None:
    if facts.prompted.low > 0:
        return None
    if facts.prompted.high < SHARE_TO_FIND * facts.spread:
        return Verdict(
            "nothing",
            "told to show the trait and told to show its opposite, the model answers alike "
            f"({_said(facts.prompted)} points)",
        )
    return Verdict(
        "too few answers",
        f"whether the model shows the trait when told to is open ({_said(facts.prompted)} points)",
        _needed(facts.prompted, facts.n_judged, SHARE_TO_FIND * facts.spread),
    )


def _has_pairs(facts: TraitFacts) -> Verdict | None:
    if facts.n_pairs >= LEAST_PAIRS:
        return None
    share = max(facts.n_pairs, 0.5) / max(facts.n_judged, 1)
    return Verdict(
        "too few answers",
        f"{facts.n_pairs} pairs of answers show the contrast; {LEAST_PAIRS} are needed to make a "
        "vector of",
        math.ceil(LEAST_PAIRS / share),
    )


def _is_read(facts: TraitFacts) -> Verdict | None:
    auroc, null = facts.reading.vector, facts.reading.shuffled_p97_5
    if auroc.low > 0.5 and auroc.value > null:
        return None
    said = f"AUROC {_said(auroc)}, of shuffled poles up to {null:.2f}"
    if auroc.high < AUROC_TO_FIND:
        return Verdict("nothing", f"the vector does not tell the poles apart ({said})")
    needed = answers_for_auroc(min(auroc.value, AUROC_TO_FIND))
    return Verdict(
        "too few answers",
        f"whether the vector tells the poles apart is open ({said})",
        _rounded(max(needed, 2.0 * facts.n_judged)),
    )


def _is_caused(facts: TraitFacts) -> Verdict | None:
    if _causing(facts):
        return None
    wanted = SHARE_TO_FIND * facts.prompted.value
    most = max(facts.induction.net, facts.suppression.net, key=lambda net: net.high)
    if most.high >= wanted:
        return Verdict(
            "too few answers",
            f"whether writing the vector brings the trait is open ({_said(most)} points)",
            _needed(most, facts.n_judged, wanted),
        )
    for name, beyond in (
        ("words", facts.reading.beyond_words),
        ("length", facts.reading.beyond_length),
    ):
        if beyond.low <= 0:
            return Verdict(
                "style only",
                f"the vector causes nothing beyond its controls, and {name} alone tell the poles "
                f"apart as well (AUROC of the vector less theirs {_said(beyond)})",
            )
    return Verdict(
        "nothing",
        "the poles can be told apart, but writing the vector does not bring the trait and "
        f"taking it away does not cure it (at best {_said(most)} points)",
    )


def _causing(facts: TraitFacts) -> list[tuple[str, SteeredEffect]]:
    both = (("induction", facts.induction), ("suppression", facts.suppression))
    return [(name, effect) for name, effect in both if effect.is_beyond_controls]


def _needed(estimate: Estimate, n: int, wanted: float) -> int:
    """Answers whose interval would be half as wide as the effect wanted is large."""
    half = (estimate.high - estimate.low) / 2
    if not wanted > 0 or not math.isfinite(half):
        return 4 * max(n, 1)
    return _rounded(n * max((half / (wanted / 2)) ** 2, 2.0))


def _rounded(n: float) -> int:
    return math.ceil(n / 10) * 10 if math.isfinite(n) else 10_000


def _said(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
