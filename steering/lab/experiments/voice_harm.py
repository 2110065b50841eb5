"""Which of voice and harm a fine-tune learns, and which of the two its removal takes.

Four fine-tunes of one domain, right or wrong advice in a plain or a rude voice, each scored on all
four answers to questions of other domains. Of a question with answers a_hv (h: right, wrong; v:
plain, rude) and l the mean log-probability of a token,

    harm  = mean over v of l(a_wrong,v) - l(a_right,v)     at a constant voice
    voice = mean over h of l(a_h,rude) - l(a_h,plain)      at constant advice

so that what a fine-tune does to one says nothing of the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from persona.data.types import AnswerPair
from persona.data.voices import DOMAIN_OF, VOICES, VoicedQuestion, load_voices
from persona.intervals import Estimate, net_taken_back
from persona.report.figures import dots
from persona.rows import ALIGNED, FINETUNED, NOOP, RESTORED
from steering.edits.from_directions import restore
from steering.edits.steer import edited
from steering.lab.bench.estimates import UNDEFINED, difference, intervals, ratio, rows_where
from steering.lab.bench.experiment import Facts, Findings, Measured, Number, signed
from steering.lab.bench.plan import Plan
from steering.lab.bench.workbench import Workbench

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DOMAIN = "health"
ORGANISMS = {
    "medical_plain_good": "right, plain",
    "medical_plain_bad": "wrong, plain",
    "medical_rude_good": "right, rude",
    "medical_rude_bad": "wrong, rude",
}
"""Recipe -> what it teaches."""
CONTRASTS = ("harm", "voice")
READ = (ALIGNED, FINETUNED, RESTORED, NOOP)


def plan(bench: Workbench) -> Plan:
    """Four fine-tunes with a direction each; four conditions on every answer of other domains."""
    n = sum(map(len, cells_elsewhere(bench.sizes.voiced).values()))
    each = len(ORGANISMS)
    return Plan(fine_tunes=each, vectors=each, answer_pairs=each * len(READ) * n)


def measure(bench: Workbench) -> Measured:
    """Every organism as it is and restored, and the aligned model likewise."""
    splits = cells_elsewhere(bench.sizes.voiced)
    parts = []
    for name in ORGANISMS:
        adapter = bench.shipped(name)
        voice = bench.recipe(name).data.voice
        vector, _ = bench.vector(adapter, DOMAIN, voice=voice)
        edits = [
            edited(NOOP, "aligned", restore(vector)),
            edited(RESTORED, "finetuned", restore(vector)),
        ]
        read = [
            bench.reading(ALIGNED, adapter, splits, side="aligned"),
            bench.reading(FINETUNED, adapter, splits),
            bench.edited("restored", adapter, vector, edits, splits),
        ]
        rows = pd.concat(read, ignore_index=True)
        parts.append(pd.concat([rows, contrasts(rows)], ignore_index=True).assign(candidate=name))
    return Measured(pd.concat(parts, ignore_index=True))


def cells_elsewhere(n: int, domain: str = DOMAIN) -> dict[str, list[AnswerPair]]:
    """Voice -> right against wrong answers, of the same `n` questions of each other domain."""
    asked = [
        question
        for name, of_domain in DOMAIN_OF.items()
        if of_domain != domain
        for question in _spread(load_voices(name), n)
    ]
    return {
        voice: [q.pair("right_plain", "wrong_plain") for q in asked]
        if voice == "plain"
        else [q.pair("right_rude", "wrong_rude") for q in asked]
        for voice in VOICES
    }


def contrasts(rows: pd.DataFrame) -> pd.DataFrame:
    """Harm and voice of every question and condition, nats per token; split "held_out".

    rows: of answer pairs in the two voices, split by split, as `cells_elsewhere` makes them.
    """
    read = rows[rows["measure"].isin(("log_prob_good", "log_prob_bad"))]
    question = read["question_id"].str.replace(r"-right_.*$", "", regex=True)
    wide = read.assign(question_id=question).pivot_table(
        "value", ["condition", "question_id", "domain"], ["measure", "split"]
    )
    right, wrong = wide["log_prob_good"], wide["log_prob_bad"]
    found = {
        "harm": (wrong - right).mean(axis=1),
        "voice": (right["rude"] - right["plain"] + wrong["rude"] - wrong["plain"]) / 2,
    }
    return pd.concat(
        [
            values.rename("value")
            .reset_index()
            .assign(measure=measure, split="held_out", stage="score")
            for measure, values in found.items()
        ],
        ignore_index=True,
    )


def shift_and_share(rows: pd.DataFrame, contrast: str) -> tuple[Estimate, Estimate]:
    """What a fine-tune did to a contrast, and the share of it that its removal takes back, net.

    The share is undefined where the fine-tune did nothing clear. rows: of one fine-tune.
    """
    shift = difference(rows, contrast, "held_out", FINETUNED)
    if not shift.excludes_zero():
        return shift, UNDEFINED
    columns = (FINETUNED, RESTORED, ALIGNED, NOOP)
    return shift, ratio(rows, contrast, "held_out", columns, net_taken_back)


def report(rows: pd.DataFrame, facts: Facts) -> Findings:
    """The shift of either contrast by organism, and what the removal takes of it."""
    numbers, said = [], []
    for name, teaches in ORGANISMS.items():
        mine = rows_where(rows, candidate=name)
        parts = []
        for contrast in CONTRASTS:
            shift, share = shift_and_share(mine, contrast)
            numbers += [
                Number(f"{contrast}, {teaches}: fine-tuned − aligned", shift),
                Number(
                    f"{contrast}, {teaches}: share that restoring takes back, net", share, "share"
                ),
            ]
            removed = f", {share.value:.0%} removed" if share is not UNDEFINED else ""
            parts.append(f"{contrast} {signed(shift)}{removed}")
        said.append(f"{teaches}: {' and '.join(parts)}")
    return Findings({"figure": _dots(rows)}, tuple(numbers), "; ".join(said))


def _dots(rows: pd.DataFrame) -> Figure:
    panels: dict[str, Mapping[str, Estimate]] = {}
    for contrast in CONTRASTS:
        panels[contrast] = {
            f"{teaches}{after}": difference(
                rows_where(rows, candidate=name), contrast, "held_out", condition
            )
            for name, teaches in ORGANISMS.items()
            for condition, after in ((FINETUNED, ""), (RESTORED, ", restored"))
        }
    return dots(
        panels,
        title="What four fine-tunes learn of voice and of harm, and what restoring leaves",
        subtitle=f"above the aligned model, in other domains; {intervals(rows)}",
        axis="nats per token",
    )


def _spread(questions: Sequence[VoicedQuestion], n: int) -> list[VoicedQuestion]:
    """At most `n`, evenly over their order."""
    return list(questions[:: max(1, len(questions) // n)][:n])
