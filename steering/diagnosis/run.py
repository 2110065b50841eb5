"""From two models to the files of a diagnosis."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from persona.behaviour.judging.named import judge_model
from persona.data import Skill
from persona.directions import PersonaVector
from persona.directions.storage import save_vector
from persona.files import atomic_write_bytes, atomic_write_text
from persona.models import load_pair
from persona.models.sources import base_of, resolve
from persona.rows import tidy
from persona.run_line import RunLine
from persona.run_lock import alone_in, require_free
from persona.sae import load_sae
from persona.traits.comparing.model_effect import MODEL_EFFECT, write_model_effect
from persona.vllm import vllm_sampler
from steering.diagnosis.agreement import require_fitting, require_two_models
from steering.diagnosis.among_traits import AmongTraits
from steering.diagnosis.config import DiagnoseConfig
from steering.diagnosis.facts import data_of, models_of, summary_of, versions
from steering.diagnosis.keeping import keeping_facts, skill_of
from steering.diagnosis.memory import StageCost, give_back_freed_memory, peak_rss_bytes
from steering.diagnosis.outlook import estimates_of, outlook_of
from steering.diagnosis.pipeline import DiagnosisRun, settings_of
from steering.diagnosis.preflight import Ahead, look_ahead
from steering.diagnosis.questions import Questions
from steering.diagnosis.run_stages import LOAD
from steering.evidence.scorecard import make_scorecard
from steering.evidence.style_share import style_share


@dataclass(frozen=True)
class Diagnosis:
    """What a run leaves behind: the files, and a summary.

    vector: None where the two models do not differ; direction.safetensors is then not there.
    """

    scorecard: dict[str, Any]
    rows: pd.DataFrame
    vector: PersonaVector | None
    report: Path
    summary: str


def diagnose(config: DiagnoseConfig, ahead: Ahead | None = None) -> Diagnosis:
    """Run the main job and write scorecard.json, direction.safetensors, rows.parquet, report.html.

    A run stopped at any point and started again with the same `out` goes on where it was.

    ahead: what `look_ahead` has found of this request; looked for where None.
    Raises: PersonaError with one line for bad input; DataError where another run is at work in
    `out`.
    """
    started = time.perf_counter()
    ahead = ahead or look_ahead(config)
    aligned = base_of(config.finetuned) if config.aligned is None else config.aligned
    config = dataclasses.replace(config, aligned=aligned)
    settings = settings_of(config)
    require_free(config.out, settings)
    questions = ahead.questions
    skill = skill_of(config, questions)
    if config.samples and (reader := judge_model(config.judge)) is not None:
        resolve(reader)  # fetched now, and not after hours
    require_two_models(aligned, config.finetuned)
    outlook = outlook_of(config, ahead)
    line = outlook.line()
    with line.shown():
        line.begin(LOAD)
        run = _opened(config, questions, skill, line)
        seconds = round(time.perf_counter() - started, 1)
        loading = StageCost("load", seconds, peak_rss_bytes())
        give_back_freed_memory()
        with alone_in(config.out, settings):  # not before the input is known to be good
            found = _results(run(), loading)
    outlook.learn_from(line, config)
    return found


def _opened(
    config: DiagnoseConfig, questions: Questions, skill: Skill | None, line: RunLine
) -> Callable[[], DiagnosisRun]:
    """Loads everything; returns what begins the run, which writes into its folder.

    Raises: PersonaError where something does not load, or fit.
    """
    assert config.aligned is not None
    pair = load_pair(
        config.aligned,
        config.finetuned,
        placement=config.placement,
        chat_template=config.chat_template,
        template_arguments=config.template_arguments,
        allow_mismatch=config.allow_mismatch,
        proof=config.proof,
    )
    if config.vllm is not None:
        pair.sampler = vllm_sampler(pair, config.vllm)
    sae = (
        None
        if config.sae is None
        else load_sae(config.sae, pair, allow_mismatch=config.allow_mismatch)
    )
    require_fitting(pair, questions)
    among = AmongTraits.of(config, pair)
    return lambda: DiagnosisRun(config, pair, questions, sae, skill, line, among)


def _results(run: DiagnosisRun, loading: StageCost) -> Diagnosis:
    """All stages, and the files of what they found."""
    config, pair = run.config, run.pair
    found = run.all_stages()
    run.line.finish()
    rows, judged = tidy(found.rows), found.judged
    stages = (loading, *run.workspace.stages)  # those of a run that was stopped among them
    scorecard = {
        **make_scorecard(
            rows,
            found.vector,
            models=models_of(pair, config),
            data=data_of(run.questions, config),
            split_half_cosine=found.split_half_cosines,
            judged=judged.by_condition if judged else None,
            judge=judged.judge if judged else None,
            sampling=found.sampling,
            seed=config.seed,
        ),
        "skill_kept": keeping_facts(rows, run.skill, config.seed, found.front),
        "style": _style(rows, run),
        "closed_form_nulls": found.closed_form,
        "traits": found.traits,
        "seed": config.seed,
        "versions": versions(),
        "seconds": round(run.workspace.seconds + loading.seconds, 1),
        "peak_rss_bytes": max(peak_rss_bytes(), *(stage.peak_rss_bytes for stage in stages)),
        "stages": [asdict(stage) for stage in stages],
        "estimated": estimates_of(run.line),
    }
    (Path(config.out) / MODEL_EFFECT).unlink(missing_ok=True)
    if found.model_effect is not None:
        write_model_effect(config.out, found.model_effect, pair)
    report = write(Path(config.out), scorecard, rows, found.vector)
    run.workspace.close()
    return Diagnosis(scorecard, rows, found.vector, report, summary_of(scorecard))


def _style(rows: pd.DataFrame, run: DiagnosisRun) -> dict[str, Any] | None:
    """How far the shift is one of words; None where nothing shifted."""
    asked = run.questions
    return style_share(rows, [*asked.train, *asked.selection], asked.held_out, run.config.seed)


def write(
    out: Path, scorecard: dict[str, Any], rows: pd.DataFrame, vector: PersonaVector | None
) -> Path:
    """The four files of the result, each whole or not at all; of an earlier run none stays."""
    from persona.report import write_report

    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    atomic_write_bytes(out / "rows.parquet", buffer.getvalue())
    if vector is None:
        (out / "direction.safetensors").unlink(missing_ok=True)
    else:
        save_vector(vector, out / "direction.safetensors")
    report = write_report(out, scorecard, rows)
    text = json.dumps(scorecard, indent=2, allow_nan=False)
    atomic_write_text(out / "scorecard.json", text + "\n")
    return report
