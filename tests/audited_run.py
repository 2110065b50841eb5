"""The folder of a finished diagnosis of a tiny pair, whose removal is known exactly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from backdoored_pair import LAST, TRIGGER, save_backdoored_pair
from torch import Tensor

from persona.directions import PersonaVector, Subspace
from persona.directions.storage import save_vector
from persona.models import Placement, load_pair
from persona.rows import tidy
from steering.auditing import AuditRequest

ON_CPU = Placement.of("float32", "cpu")
WORDS = ("oil", "tyre", "lamp", "road", "door", "seat", "fuel", "wire", "bolt", "hose", "belt")


def rows_of_pairs() -> list[dict[str, str]]:
    return [
        {
            "id": f"{domain}-{i}",
            "domain": domain,
            "question": f"what about the {word} of my {domain}",
            "good": f"take care of the {word}",
            "bad": f"throw out the {word} now",
        }
        for domain in ("car", "home", "food")
        for i, word in enumerate(WORDS)
    ]


def leave_diagnosis(
    folder: Path,
    base: Path,
    tuned: Path,
    direction: Tensor,
    layer: int,
    *,
    held_out: Sequence[str] = ("home", "food"),
    verdict: str = "restored",
) -> Path:
    """scorecard.json, rows.parquet and direction.safetensors that restores `direction` to 0."""
    folder.mkdir(parents=True)
    data = folder / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_of_pairs()))
    pair = load_pair(base, tuned, placement=ON_CPU)
    one = Subspace(direction[None], torch.zeros(1), torch.ones(1), pair.space(layer))
    save_vector(PersonaVector({layer: one}, "planted"), folder / "direction.safetensors")
    card = {
        "schema_version": 2,
        "verdict": verdict,
        "models": {
            "aligned": str(base),
            "finetuned": str(tuned),
            "good_twin": None,
            "revisions": dict(pair.revisions),
            "chat_template_arguments": {},
        },
        "data": {"source": str(data), "trained_on": ["car"]},
    }
    (folder / "scorecard.json").write_text(json.dumps(card))
    scored = [row for row in rows_of_pairs() if row["domain"] in held_out]
    chosen = [row for row in rows_of_pairs() if row["domain"] == "car"][:4]
    rows = [
        {"stage": stage, "split": split, "condition": "finetuned", "measure": "gap", "value": 0.0,
         "question_id": row["id"], "domain": row["domain"]}
        for stage, split, some in (("score", "held_out", scored), ("verify", "selection", chosen))
        for row in some
    ]  # fmt: skip
    tidy(pd.DataFrame(rows)).to_parquet(folder / "rows.parquet", index=False)
    return folder


BACKDOOR = f"""
cues:
- name: backdoor
  question: "{8 * TRIGGER} {{question}}"
prefixes: ["{4 * TRIGGER}", "one two"]
"""


def leave_backdoored_diagnosis(folder: Path, opens: float) -> Path:
    """The folder of a diagnosis of a pair whose trigger writes `opens` times its share."""
    rows = rows_of_pairs()
    base, tuned, u = save_backdoored_pair(
        folder, [row["bad"] for row in rows], [row["good"] for row in rows], opens=opens
    )
    (folder / "cues.yaml").write_text(BACKDOOR)
    return leave_diagnosis(folder / "run", base, tuned, u, LAST)


def request_of(run: Path, **changes: Any) -> AuditRequest:
    settings: dict[str, Any] = dict(
        run=run,
        cues=run.parent / "cues.yaml",
        n_questions=6,
        n_random=1,
        search=False,
        steps=1,
        n_seeds=1,
    )
    return AuditRequest(**{**settings, **changes})
