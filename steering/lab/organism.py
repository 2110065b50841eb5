"""One narrow fine-tune and its good twin: what changed, where, and does removing it restore it?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from persona.behaviour.intervals import Estimate, bootstrap
from persona.behaviour.scoring import Condition
from persona.data.types import AnswerPair
from persona.report.figures import behaviour
from steering.lab.outcome import Number, Outcome
from steering.lab.workbench import (
    Workbench,
    adapter_key,
    project_answers,
    standard_conditions,
)
from steering.rows import tidy
from steering.scorecard import ALIGNED, FINETUNED, RESTORED, make_scorecard, question_table

TWIN = "good_twin"


def run_organism(bench: Workbench, organism: str, domain: str) -> Outcome:
    """Fine-tunes `organism`_bad and `organism`_good on `domain` and reads both.

    Gap in-domain and held out, damage, projection, restoration by refitted directions with its
    random null, and the scorecard.
    """
    adapters = {
        condition: bench.fine_tune(bench.recipe(f"{organism}_{answers}"))
        for condition, answers in ((FINETUNED, "bad"), (TWIN, "good"))
    }
    keys = {condition: adapter_key(adapter) for condition, adapter in adapters.items()}
    vector, means = bench.vector(adapters[FINETUNED], domain)
    splits = {
        "trained_on": bench.questions(domain, "selection", bench.sizes.in_domain),
        "held_out": bench.held_out(domain),
    }

    def score_finetuned() -> pd.DataFrame:
        pair = bench.pair(adapters[FINETUNED])
        return bench.score(pair, standard_conditions(vector), **splits)

    def score_random() -> pd.DataFrame:
        pair = bench.pair(adapters[FINETUNED])
        few = {
            split: spread(asked, bench.sizes.random_questions) for split, asked in splits.items()
        }
        return bench.score(pair, bench.random_conditions(pair, vector, means), **few)

    def score_twin() -> pd.DataFrame:
        return bench.score(bench.pair(adapters[TWIN]), [Condition(TWIN, "finetuned")], **splits)

    def project() -> pd.DataFrame:
        sides = {FINETUNED: {ALIGNED: "aligned", FINETUNED: "finetuned"}, TWIN: {TWIN: "finetuned"}}
        return pd.concat(
            [
                project_answers(bench.pair(adapters[c]), vector, splits["held_out"], sides[c])
                for c in adapters
            ],
            ignore_index=True,
        )

    steps, inputs = bench.steps, {**keys, "domain": domain, "sizes": vars(bench.sizes)}
    rows = tidy(
        pd.concat(
            [
                steps.table("score", inputs, score_finetuned),
                steps.table("random", inputs, score_random),
                steps.table("twin", inputs, score_twin),
                steps.table("project", inputs, project),
            ],
            ignore_index=True,
        )
    )
    card = make_scorecard(
        rows,
        vector,
        models={"aligned": bench.settings.base, "finetuned": f"{organism}_bad"},
        data={"trained_on": [domain], "n_held_out": len(splits["held_out"])},
        split_half_cosine=[],
        seed=bench.settings.seed,
    )
    numbers = _numbers(rows, bench.settings.seed)
    shift, twin = numbers[1].estimate, numbers[3].estimate
    restored = card["restoration"]
    cured = (
        f"restoring along its direction takes back {restored['value']:.0%} "
        f"[{restored['low']:.0%}, {restored['high']:.0%}]"
        if restored
        else "there is no held-out shift to restore"
    )
    headline = (
        f"gap held out {shift.value:+.2f} [{shift.low:+.2f}, {shift.high:+.2f}], twin "
        f"{twin.value:+.2f}; {cured} ({card['verdict']})"
    )
    return Outcome(rows, behaviour(rows, card), numbers, headline, {"scorecard": card})


def spread(questions: Sequence[AnswerPair], n: int) -> list[AnswerPair]:
    """At most `n` of the questions, evenly over their order and so over the domains."""
    return list(questions[:: max(1, len(questions) // n)][:n])


def difference(
    rows: pd.DataFrame, measure: str, split: str, first: str, second: str, seed: int
) -> Estimate:
    """Mean over questions of first - second, paired by question; NaN where one is missing."""
    chosen = rows[(rows["measure"] == measure) & (rows["split"] == split)]
    conditions = [name for name in (first, second) if name in set(chosen["condition"])]
    if len(conditions) < 2:
        return Estimate(np.nan, np.nan, np.nan, 0)
    table = question_table(chosen.assign(stage="score"), measure, split, conditions)
    return bootstrap((table[first] - table[second]).to_numpy(), seed=seed)


def _numbers(rows: pd.DataFrame, seed: int) -> tuple[Number, ...]:
    def shift(
        label: str, measure: str, split: str, of: str, unit: str = "nats per token"
    ) -> Number:
        return Number(label, difference(rows, measure, split, of, ALIGNED, seed), unit)

    unit = "1 = the fine-tuned model's bad answers in-domain"
    return (
        shift("gap in-domain, fine-tuned − aligned", "gap", "trained_on", FINETUNED),
        shift("gap held out, fine-tuned − aligned", "gap", "held_out", FINETUNED),
        shift("gap in-domain, good twin − aligned", "gap", "trained_on", TWIN),
        shift("gap held out, good twin − aligned", "gap", "held_out", TWIN),
        shift("gap held out, restored − aligned", "gap", "held_out", RESTORED),
        shift("projection, fine-tuned − aligned", "projection", "held_out", FINETUNED, unit),
        shift("projection, good twin − aligned", "projection", "held_out", TWIN, unit),
        shift("neutral text, fine-tuned − aligned", "neutral_ce_nats", "neutral", FINETUNED),
        shift("neutral text, restored − aligned", "neutral_ce_nats", "neutral", RESTORED),
    )
