"""One narrow fine-tune and its good twin: what changed, where, and does removing it restore it?

Of the default model both are watched on their way. Those of a larger one are taken ready made where
they come along, and are asked in a plain and in a rude voice too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona.data.types import AnswerPair
from persona.data.voices import VOICES, Voice
from persona.intervals import Estimate, net_taken_back, taken_back
from persona.report.figures import dots, training_course
from persona.report.verdict_checks import LACKED_BY_VERSION_1
from persona.rows import (
    ALIGNED,
    FINETUNED,
    GOOD_TWIN,
    INDUCED,
    NOOP,
    RESTORED,
    ZERO_ABLATED,
)
from steering.evidence.scorecard import make_scorecard
from steering.lab.bench.course import alarm_step, course_rows, readings_of, rung
from steering.lab.bench.estimates import UNDEFINED, difference, intervals, preference_rate, ratio
from steering.lab.bench.experiment import (
    UNITS,
    Facts,
    Findings,
    Measured,
    Number,
    signed,
)
from steering.lab.bench.plan import Plan
from steering.lab.bench.readings import edited_conditions, random_conditions, score
from steering.lab.bench.workbench import Workbench

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


LARGER = 4
"""Held-out questions of each domain for a larger model, whose voices take as many again."""


@dataclass(frozen=True)
class Narrow:
    """An organism: recipes `organism`_bad and `organism`_good, each with `ending`, and its domain.

    voice: of the answers that are learnt; None for pairs that change their tone as well.
    spoken: also score both voices, as a model that writes sentences can be asked.
    """

    organism: str
    domain: str
    ending: str = ""
    voice: Voice | None = None
    spoken: bool = False

    def adapter(self, bench: Workbench, answers: str) -> Path:
        """Watched on its way, or ready made where it comes along."""
        name = f"{self.organism}_{answers}{self.ending}"
        return bench.shipped(name) if self.spoken else bench.organism(name)

    def splits(self, bench: Workbench) -> dict[str, list[AnswerPair]]:
        """Split -> questions."""
        n, elsewhere = bench.sizes.in_domain, bench.sizes.held_out
        if self.spoken:
            elsewhere = min(elsewhere, LARGER)
        found = {
            "trained_on": bench.questions(self.domain, "selection", n, voice=self.voice),
            "held_out": bench.held_out(self.domain, per_domain=elsewhere),
        }
        if self.spoken:
            found |= {voice: bench.voiced(voice, self.domain) for voice in VOICES}
        return found


def plan(bench: Workbench, narrow: Narrow) -> Plan:
    """Two fine-tunes, one direction; seven conditions, and the random null once."""
    sizes = bench.sizes
    asked = sum(map(len, narrow.splits(bench).values()))
    drawn = sizes.n_random * 2 * sizes.random_questions if bench.first else 0
    return Plan(fine_tunes=2, vectors=1, answer_pairs=7 * asked + drawn)


def measure(bench: Workbench, narrow: Narrow) -> Measured:
    """Reads an organism and its good twin, and the organism edited."""
    bad, good = narrow.adapter(bench, "bad"), narrow.adapter(bench, "good")
    vector, means = bench.vector(bad, narrow.domain, voice=narrow.voice)
    splits = narrow.splits(bench)
    few = {
        name: spread(splits[name], bench.sizes.random_questions)
        for name in ("trained_on", "held_out")
    }

    def score_random() -> pd.DataFrame:
        pair = bench.pair(bad)
        drawn = random_conditions(pair, vector, means, bench.sizes.n_random)
        return score(pair, bench.neutral(), drawn, **few)

    parts = [
        bench.reading(ALIGNED, bad, splits, vector, side="aligned"),
        bench.reading(FINETUNED, bad, splits, vector),
        bench.reading(GOOD_TWIN, good, splits, vector),
        bench.edited("edited", bad, vector, edited_conditions(vector), splits),
    ]
    facts: dict[str, Any] = {}
    if not narrow.spoken:
        parts += [course_rows(bad, FINETUNED), course_rows(good, GOOD_TWIN)]
        facts["alarm_step"] = alarm_step(bad, good)
    if bench.first:
        inputs = bench.edit_key(bad, vector, few) | {"n": bench.sizes.n_random}
        parts.append(bench.steps.table("random", score_random, inputs))
        bench.tally.add(answer_pairs=bench.sizes.n_random * sum(map(len, few.values())))
    rows = pd.concat(parts, ignore_index=True)
    if bench.first:
        facts["scorecard"] = make_scorecard(
            rows,
            vector,
            models={"aligned": bench.base, "finetuned": f"{narrow.organism}_bad{narrow.ending}"},
            data={"trained_on": [narrow.domain], "n_held_out": len(splits["held_out"])},
            split_half_cosine=[],
        )
    return Measured(rows, facts)


def report(rows: pd.DataFrame, facts: Facts) -> Findings:
    """Shifts, restoration against its null, and the way there."""
    shift = difference(rows, "gap", "held_out", FINETUNED)
    above_twin = difference(rows, "gap", "held_out", FINETUNED, GOOD_TWIN)
    restored = ratio(rows, "gap", "held_out", (FINETUNED, RESTORED, ALIGNED), taken_back)
    cured = (
        f"restoring along its direction takes back {restored.value:.0%} "
        f"[{restored.low:.0%}, {restored.high:.0%}]"
        if shift.excludes_zero()
        else "there is no clear held-out shift to restore"
    )
    if not shift.excludes_zero():
        restored = UNDEFINED  # a share of nothing
    headline = (
        f"gap held out {signed(shift)} above the aligned model's and {signed(above_twin)} above "
        f"the good twin's; {cured}"
    )
    card = next(found["scorecard"] for found in facts.values() if "scorecard" in found)
    null = card["random_restoration"]
    notes = [_verdict_note(card)]
    steps = {seed: found["alarm_step"] for seed, found in facts.items() if "alarm_step" in found}
    if steps:
        notes.insert(0, f"Alarm on the way, calibrated on the good twin's: {rung(steps)}.")
    if null:
        notes.append(_random_note(null))
    figures = {"figure": _dots(rows)}
    if steps:
        figures["course"] = _course(rows)
    return Findings(figures, _numbers(rows, restored), headline, tuple(notes))


def _verdict_note(card: Mapping[str, Any]) -> str:
    said = f"Verdict of the scorecard for the first seed: {card['verdict']}."
    claimed = card["verdict"] in ("restored", "partly_restored")
    older = claimed and card.get("schema_version") == 1
    return f"{said} Mind: {LACKED_BY_VERSION_1}." if older else said


def _random_note(null: Mapping[str, Any]) -> str:
    return (
        f"{null['did_as_much']} of {null['n']} random directions took back as much, the largest "
        f"{null['largest']:+.0%} (first seed)."
    )


def spread(questions: Sequence[AnswerPair], n: int) -> list[AnswerPair]:
    """At most `n` of the questions, evenly over their order and so over the domains."""
    return list(questions[:: max(1, len(questions) // n)][:n])


def _dots(rows: pd.DataFrame) -> Figure:
    conditions = (FINETUNED, RESTORED, INDUCED, ZERO_ABLATED, GOOD_TWIN)
    readings = {
        "gap held out": ("gap", "held_out"),
        "gap in-domain": ("gap", "trained_on"),
        "cross-entropy of neutral text": ("neutral_ce_nats", "neutral"),
    }
    readings |= {f"gap, {voice} voice": ("gap", voice) for voice in _voices(rows)}
    panels = {
        title: {c: difference(rows, *reading, c) for c in conditions}
        for title, reading in readings.items()
    }
    return dots(
        panels,
        title="What the fine-tune changed, and what restoring it brings back",
        subtitle=f"above the aligned model, so that right is worse; {intervals(rows)}",
        axis="nats per token",
    )


def _course(rows: pd.DataFrame) -> Figure:
    return training_course({name: readings_of(rows, name) for name in (FINETUNED, GOOD_TWIN)})


def _net(rows: pd.DataFrame, restored: Estimate) -> Estimate:
    """Net restoration; undefined as the raw one, and where the no-op was not run."""
    if restored is UNDEFINED:
        return UNDEFINED
    return ratio(rows, "gap", "held_out", (FINETUNED, RESTORED, ALIGNED, NOOP), net_taken_back)


def _part(rows: pd.DataFrame, answers: str, first: str, second: str) -> Estimate:
    return difference(rows, f"log_prob_{answers}", "held_out", first, second)


def _damage(rows: pd.DataFrame) -> Estimate:
    """Above the better of the two models over all texts: what the fine-tune did is not free."""
    fine_tuned = difference(rows, "neutral_ce_nats", "neutral", FINETUNED)
    better = FINETUNED if fine_tuned.value < 0 else ALIGNED
    return difference(rows, "neutral_ce_nats", "neutral", RESTORED, better)


def _voices(rows: pd.DataFrame) -> list[Voice]:
    return [voice for voice in VOICES if voice in set(rows["split"])]


def _numbers(rows: pd.DataFrame, restored: Estimate) -> tuple[Number, ...]:
    def shift(label: str, measure: str, split: str, of: str, unit: str) -> Number:
        return Number(f"{label} − aligned", difference(rows, measure, split, of), unit)

    def twin(where: str, split: str) -> Number:
        found = difference(rows, "gap", split, FINETUNED, GOOD_TWIN)
        return Number(f"gap {where}, fine-tuned − good twin", found, nats)

    nats = "nats per token"
    return (
        shift("gap in-domain, fine-tuned", "gap", "trained_on", FINETUNED, nats),
        shift("gap held out, fine-tuned", "gap", "held_out", FINETUNED, nats),
        shift("gap in-domain, good twin", "gap", "trained_on", GOOD_TWIN, nats),
        shift("gap held out, good twin", "gap", "held_out", GOOD_TWIN, nats),
        twin("in-domain", "trained_on"),
        twin("held out", "held_out"),
        shift("gap held out, restored", "gap", "held_out", RESTORED, nats),
        shift("gap held out, direction induced in aligned", "gap", "held_out", INDUCED, nats),
        Number("share of the held-out shift that restoring takes back", restored, "share"),
        Number(
            "… net of what the same edit does to the aligned model", _net(rows, restored), "share"
        ),
        shift("gap held out, aligned model restored", "gap", "held_out", NOOP, nats),
        *(
            Number(f"log p of {answers} answers held out, {name}", found, nats)
            for answers in ("bad", "good")
            for name, found in (
                ("fine-tuned − aligned", _part(rows, answers, FINETUNED, ALIGNED)),
                ("fine-tuned − good twin", _part(rows, answers, FINETUNED, GOOD_TWIN)),
                ("restored − aligned", _part(rows, answers, RESTORED, ALIGNED)),
            )
        ),
        *(
            Number(f"bad answer preferred, {name}", preference_rate(rows, "held_out", c), "share")
            for name, c in (("aligned", ALIGNED), ("fine-tuned", FINETUNED), ("restored", RESTORED))
        ),
        *(
            shift(f"gap in a {voice} voice, {name}", "gap", voice, condition, nats)
            for voice in _voices(rows)
            for name, condition in (
                ("fine-tuned", FINETUNED),
                ("good twin", GOOD_TWIN),
                ("restored", RESTORED),
            )
        ),
        shift("projection, fine-tuned", "projection", "held_out", FINETUNED, UNITS),
        shift("projection, good twin", "projection", "held_out", GOOD_TWIN, UNITS),
        shift("neutral text, fine-tuned", "neutral_ce_nats", "neutral", FINETUNED, nats),
        shift("neutral text, restored", "neutral_ce_nats", "neutral", RESTORED, nats),
        Number("neutral text, restored − the better of both", _damage(rows), nats),
    )
