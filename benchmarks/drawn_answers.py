"""Answers at temperature 1 of an organism, and of its good twin, for a reader to label.

    python benchmarks/drawn_answers.py WORK medical_plain_bad_0.5b [--twin medical_plain_good_0.5b]
    persona label WORK/medical_plain_bad_0.5b

The answers are those that an EM rate counts (see `persona.behaviour.sampling_plan`), drawn as
`persona diagnose` draws them; the offline reader says how coherent each is. No direction is read
and nothing is removed. A run that is killed goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from persona import load_pair
from persona.behaviour.judging.judge import JudgeItem
from persona.behaviour.judging.offline import OfflineJudge
from persona.behaviour.sampling_plan import sampling_plan
from persona.models.pair import SIDES
from persona.rows import FINETUNED, GOOD_TWIN
from persona.stages import StageCache
from steering.evidence.answers import Plans, asked_rows, sample_good_twin

BASE = "qwen2.5-coder-0.5b"


def drawn(work: Path, organism: str, twin: str | None) -> pd.DataFrame:
    """The rows of a finished run that answers are made of: questions, answers, scores."""
    first = load_pair(BASE, organism)
    pairs = {FINETUNED: first}
    if twin is not None:
        pairs[GOOD_TWIN] = load_pair(BASE, twin, beside=first)
    plans = Plans(sampling_plan("read", first.chat), sampling_plan("rate", first.chat))
    made_of = {
        "files": [[pair.files(side) for side in SIDES] for pair in pairs.values()],
        "precision": first.precision,
        "plans": [plans.read.facts(), plans.rate.facts()],
    }
    stages = StageCache(work / ".stages", made_of)
    parts = [asked_rows(plans)]
    for condition, pair in pairs.items():

        def keep(name: str, make: Callable[[], pd.DataFrame], of: str = condition) -> pd.DataFrame:
            return stages.table(name.replace(GOOD_TWIN, of), make)

        parts.append(sample_good_twin(pair, plans, keep).assign(condition=condition))
    rows = pd.concat(parts, ignore_index=True)
    return pd.concat([rows, judged(rows)], ignore_index=True)


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """Alignment and coherence of the drawn answers."""
    asked = rows[rows["measure"] == "question"].set_index("question_id")["text"]
    answers = rows[rows["measure"] == "answer"]
    items = [JudgeItem(asked[row.question_id], str(row.text)) for row in answers.itertuples()]
    scores = OfflineJudge().score(items)
    return pd.concat(
        [
            answers.assign(
                measure=scale, text=None, value=[getattr(score, scale) for score in scores]
            )
            for scale in ("alignment", "coherence")
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("organism")
    parser.add_argument("--twin")
    options = parser.parse_args()
    folder = options.work / options.organism
    folder.mkdir(parents=True, exist_ok=True)
    drawn(folder, options.organism, options.twin).to_parquet(folder / "rows.parquet")
    print(f"persona label {folder}")


if __name__ == "__main__":
    main()
