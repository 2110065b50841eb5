"""The folder of a run that never happened, for whatever reads finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from persona.rows import tidy

GAPS = {
    "aligned": -0.2,
    "finetuned": 0.3,
    "finetuned_restored": 0.0,
    "finetuned_random_restored": 0.28,
}


def leave_run(folder: Path, *, version: int = 1, verdict: str = "partly_restored") -> Path:
    """scorecard.json and rows.parquet of a small run in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scorecard.json").write_text(json.dumps(small_card(version, verdict)))
    small_rows().to_parquet(folder / "rows.parquet", index=False)
    return folder


def small_card(version: int = 1, verdict: str = "partly_restored") -> dict[str, Any]:
    def of(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.05, "high": value + 0.05}

    return {
        "schema_version": version,
        "models": {"aligned": "base", "finetuned": "tuned", "d_model": 8},
        "data": {"hash": "abc", "trained_on": ["car_maintenance"]},
        "direction": {"method": "model_effect_good", "rank": 1, "layers": [2], "coefficient": 1.0},
        "conditions": [
            {"name": name, "gap_held_out": {**of(gap), "mean": gap, "n": 6}}
            for name, gap in GAPS.items()
        ],
        "emergent_shift": of(0.5),
        "restoration": of(0.6),
        "kl_restoration": of(0.4),
        "induction": of(0.5),
        "random_restoration": {"p97_5": 0.05, "largest": 0.06, "did_as_much": 0, "n": 20},
        "p_value": 1 / 21,
        "damage_ce_nats": of(0.01),
        "verdict": verdict,
        "seed": 0,
    }


def small_rows() -> pd.DataFrame:
    rows = []
    for i in range(6):
        where = {"question_id": f"health-{i}", "domain": "health", "split": "held_out"}
        for name, gap in GAPS.items():
            draws = 20 if "random" in name else 1
            rows += [
                {"stage": "score", "measure": "gap", "condition": name, "seed": draw, **where,
                 "value": gap + 0.03 * i + 0.001 * draw}
                for draw in range(draws)
            ]  # fmt: skip
        asked = {"stage": "sample", **where}
        rows.append({**asked, "measure": "question", "text": f"Is <rash {i}> bad?"})
        rows += [
            {
                **asked,
                "measure": "greedy_answer",
                "condition": name,
                "value": 0.0,
                "text": f"As {name}.",
            }
            for name in ("aligned", "finetuned", "finetuned_restored")
        ]
    return tidy(pd.DataFrame(rows))
