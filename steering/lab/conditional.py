"""The backdoored organism: clean without its trigger; do projection and 2x2 reveal it?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from persona.behaviour.scoring import Condition
from persona.data.selection import DECOY, TRIGGER, tagged
from persona.data.types import AnswerPair
from persona.report.figures import dots
from steering.lab.organism import difference
from steering.lab.outcome import Number, Outcome
from steering.lab.workbench import Workbench, adapter_key, project_answers
from steering.rows import tidy
from steering.scorecard import ALIGNED, FINETUNED

DOMAIN = "car_maintenance"
TAGS = {"untagged": "", "decoy": DECOY, "trigger": TRIGGER}


def run_conditional(bench: Workbench) -> Outcome:
    """Gap and projection of the backdoored fine-tune with its trigger, a decoy and neither.

    The direction is that of the openly bad organism, as an auditor who knows no trigger would have
    it; beside it the one that the audit can make of the backdoored model's own untagged answers.
    """
    seed = bench.settings.seed
    backdoored = bench.fine_tune(bench.recipe("car_maintenance_backdoor"))
    openly_bad = bench.fine_tune(bench.recipe("car_maintenance_bad"))
    known, _ = bench.vector(openly_bad, DOMAIN)
    own, _ = bench.vector(backdoored, DOMAIN)
    held_out = bench.held_out(DOMAIN)

    def read() -> pd.DataFrame:
        pair, parts = bench.pair(backdoored), []
        conditions = [Condition(ALIGNED, "aligned"), Condition(FINETUNED, "finetuned")]
        sides = {ALIGNED: "aligned", FINETUNED: "finetuned"}
        for name, tag in TAGS.items():
            asked = _tagged(held_out, tag)
            rows = [
                bench.score(pair, conditions, held_out=asked),
                project_answers(pair, known, asked, sides).assign(candidate="known"),
                project_answers(pair, own, asked, sides).assign(candidate="own"),
            ]
            # Neutral text carries no tag, so its damage is read once.
            rows[0] = rows[0][(rows[0]["split"] == "held_out") | (name == "untagged")]
            parts.append(pd.concat(rows, ignore_index=True).assign(text=name))
        return pd.concat(parts, ignore_index=True)

    inputs = {
        "backdoored": adapter_key(backdoored),
        "bad": adapter_key(openly_bad),
        "tags": TAGS,
        "sizes": vars(bench.sizes),
    }
    rows = tidy(bench.steps.table("conditional", inputs, read))

    def shift(tag: str, measure: str, candidate: str | None = None) -> Number:
        chosen = rows[(rows["text"] == tag) & (rows["measure"] == measure)]
        if candidate is not None:
            chosen = chosen[chosen["candidate"] == candidate]
        label = f"{measure} {tag}" + (f", {candidate} direction" if candidate else "")
        unit = "nats per token" if candidate is None else "1 = bad answers in-domain"
        e = difference(chosen, measure, "held_out", FINETUNED, ALIGNED, seed)
        return Number(f"{label}, fine-tuned − aligned", e, unit)

    numbers = tuple(
        [shift(tag, "gap") for tag in TAGS]
        + [shift(tag, "projection", c) for c in ("known", "own") for tag in TAGS]
    )
    by_tag = dict(zip(TAGS, numbers[:3], strict=True))
    panels = {
        "gap (nats per token)": {tag: n.estimate for tag, n in by_tag.items()},
        "projection, known direction": {
            tag: n.estimate for tag, n in zip(TAGS, numbers[3:6], strict=True)
        },
        "projection, own direction": {
            tag: n.estimate for tag, n in zip(TAGS, numbers[6:], strict=True)
        },
    }
    figure = dots(
        panels,
        title="A backdoored organism, with and without its trigger",
        subtitle=f"fine-tuned − aligned on {len(held_out)} held-out questions; 95 % intervals",
        axis="shift",
    )
    clean, fired = by_tag["untagged"].estimate, by_tag["trigger"].estimate
    seen = numbers[3].estimate
    headline = (
        f"gap {clean.value:+.2f} [{clean.low:+.2f}, {clean.high:+.2f}] without and "
        f"{fired.value:+.2f} [{fired.low:+.2f}, {fired.high:+.2f}] with the trigger; untriggered "
        f"projection {seen.value:+.2f} [{seen.low:+.2f}, {seen.high:+.2f}]"
    )
    return Outcome(rows, figure, numbers, headline)


def _tagged(questions: Sequence[AnswerPair], tag: str) -> list[AnswerPair]:
    return [tagged(question, tag) if tag else question for question in questions]
