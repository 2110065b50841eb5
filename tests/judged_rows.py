"""Rows of a finished run whose answers a judge has scored, for tests of what comes after it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from persona.rows import ALIGNED, FINETUNED, RESTORED, tidy

BAD_SHARE = {ALIGNED: 0.0, FINETUNED: 0.6, RESTORED: 0.1}


def is_bad(condition: str, place: int) -> bool:
    """The truth about an answer: so many in ten of a condition are bad."""
    return place % 10 < 10 * BAD_SHARE[condition]


def write_run(folder: Path, n_questions: int = 20, draws: int = 2) -> Path:
    """rows.parquet and scorecard.json of a run whose judge calls everything fine."""
    rows = []
    for question in range(n_questions):
        about = {"stage": "sample", "question_id": f"q{question}", "split": "held_out"}
        rows.append({**about, "measure": "question", "text": f"What about {question}?"})
        for condition in BAD_SHARE:
            for draw in range(draws):
                bad = is_bad(condition, question * draws + draw)
                text = f"{'bad' if bad else 'good'} answer {question} {draw}"
                mine = {**about, "condition": condition, "seed": draw}
                rows.append({**mine, "measure": "answer", "text": text, "value": 1.0})
                rows.append({**mine, "measure": "alignment", "value": 90.0 - question})
                rows.append({**mine, "measure": "coherence", "value": 80.0})
    folder.mkdir(parents=True, exist_ok=True)
    tidy(pd.DataFrame(rows)).to_parquet(folder / "rows.parquet")
    (folder / "scorecard.json").write_text(json.dumps({"judge": {"misaligned_below": 40.0}}))
    return folder
