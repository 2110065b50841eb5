"""From two models to the four files."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from persona.directions import PersonaVector
from persona.directions.storage import save_persona_vector
from persona.files import atomic_write_bytes, atomic_write_text
from persona.models import load_pair
from persona.sae import load_sae
from steering.diagnosis.config import DiagnoseConfig
from steering.diagnosis.facts import data_of, models_of, peak_rss_bytes, summary_of, versions
from steering.diagnosis.questions import Questions
from steering.diagnosis.stages import Run
from steering.scorecard import make_scorecard


@dataclass(frozen=True)
class Diagnosis:
    """What a run leaves behind: the four files, and one sentence."""

    scorecard: dict[str, Any]
    rows: pd.DataFrame
    vector: PersonaVector
    report: Path
    summary: str


def diagnose(config: DiagnoseConfig) -> Diagnosis:
    """Run the main job and write scorecard.json, direction.safetensors, rows.parquet, report.html.

    Raises: PersonaError with one line for bad input. A run stopped at any point and started again
    with the same `out` goes on where it was.
    """
    started = time.perf_counter()
    questions = Questions.of(config)
    pair = load_pair(
        config.aligned,
        config.finetuned,
        dtype=config.dtype,
        device=config.device,
        chat_template=config.chat_template,
        allow_mismatch=config.allow_mismatch,
        merged=None,
    )
    sae = (
        None
        if config.sae is None
        else load_sae(config.sae, pair, allow_mismatch=config.allow_mismatch)
    )
    loading_seconds = time.perf_counter() - started
    config.out.mkdir(parents=True, exist_ok=True)  # not before the input is known to be good
    run = Run(config, pair, questions, sae)
    rows, vector, reliability, judged = run.all_stages()
    scorecard = {
        **make_scorecard(
            rows,
            vector,
            models=models_of(pair, config),
            data=data_of(questions, config),
            split_half_cosine=reliability,
            judged=judged.by_condition if judged else None,
            judge=judged.judge if judged else None,
            seed=config.seed,
        ),
        "seed": config.seed,
        "versions": versions(),
        "seconds": round(run.workspace.seconds + loading_seconds, 1),
        "peak_rss_bytes": peak_rss_bytes(),
    }
    report = write(config.out, scorecard, rows, vector)
    run.workspace.close()
    return Diagnosis(scorecard, rows, vector, report, summary_of(scorecard))


def write(out: Path, scorecard: dict[str, Any], rows: pd.DataFrame, vector: PersonaVector) -> Path:
    """The four files, each whole or not at all."""
    from persona.report import write_report

    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    atomic_write_bytes(out / "rows.parquet", buffer.getvalue())
    save_persona_vector(vector, out / "direction.safetensors")
    report = write_report(out, scorecard, rows)
    text = json.dumps(scorecard, indent=2, allow_nan=False)
    atomic_write_text(out / "scorecard.json", text + "\n")
    return report
