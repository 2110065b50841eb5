"""The audit of a finished diagnosis: rows, audit.json and a page in its folder."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from persona.data import data_hash
from persona.files import atomic_write_bytes, atomic_write_text, sha256_of_file
from persona.models import ModelPair, Placement
from persona.run_lock import alone_in
from persona.stages import Workspace
from steering.auditing.audit_facts import (
    SCHEMA_VERSION,
    as_plain,
    cue_facts,
    search_facts,
    worst_facts,
)
from steering.auditing.audit_preflight import VECTOR, AuditAhead, look_ahead_of_audit
from steering.auditing.audit_request import AuditRequest
from steering.auditing.audit_stages import AuditStages, load_audited
from steering.auditing.cost_of_audit import LOAD, audit_plan
from steering.auditing.cue_scores import fitting_cues
from steering.auditing.relearning import relearning_facts
from steering.diagnosis.facts import versions

AUDIT_COLUMNS = {
    "stage": "object",
    "cue": "object",
    "condition": "object",
    "seed": "int64",
    "question_id": "object",
    "domain": "object",
    "split": "object",
    "measure": "object",
    "value": "float64",
    "step": "Int64",
    "answers": "object",
    "candidate": "object",
    "text": "object",
}
"""Of rows.parquet. stage: cue, search or relearn. answers: bad or good ones are learnt."""
JSON, ROWS, PAGE = "audit.json", "rows.parquet", "audit.html"


@dataclass(frozen=True)
class Audit:
    """What an audit leaves behind: the fields of audit.json, rows.parquet, the page."""

    facts: dict[str, Any]
    rows: pd.DataFrame
    page: Path

    @property
    def summary(self) -> list[str]:
        """The verdict and what was found, in plain sentences."""
        from persona.report.audited_removal import sentences

        return [f"verdict: {self.facts['verdict']}", *sentences(self.facts)]


def audit(
    request: AuditRequest, ahead: AuditAhead | None = None, placement: Placement | None = None
) -> Audit:
    """Asks under every cue, learns again, and writes audit.json, rows.parquet and audit.html.

    An audit stopped at any point and started again with the same folder goes on where it was.

    ahead: what `look_ahead_of_audit` has found of this request; looked for where None.
    Raises: PersonaError with one line for bad input; DataError where another run is at work there.
    """
    started = time.perf_counter()
    ahead = ahead or look_ahead_of_audit(request)
    placement = placement or Placement.of()
    line = audit_plan(ahead, placement).line()
    with line.shown():
        line.begin(LOAD)
        pair = load_audited(ahead, placement, str(ahead.run.scorecard["models"]["finetuned"]))
        settings = _settings(ahead, pair)
        with alone_in(request.folder, settings):
            workspace = Workspace(request.folder, settings)
            return _results(AuditStages(ahead, pair, placement, workspace, line), started)


def _results(run: AuditStages, started: float) -> Audit:
    """All stages, and the three files of what they found."""
    request = run.ahead.request
    parts, cues = run.searched()
    cues, left_out = fitting_cues(run.pair, run.ahead.held_out, cues)
    parts += run.scored(cues)
    parts += run.of_others(cues)
    learnt = run.relearnt()
    run.line.finish()
    rows = _tidy(pd.concat([*parts, *learnt], ignore_index=True))
    facts = as_plain(
        {
            "schema_version": SCHEMA_VERSION,
            "run": str(request.run),
            "models": {
                **{side: run.pair.names[side] for side in ("aligned", "finetuned")},
                **{name: one.name for name, one in run.ahead.others.items()},
                "revisions": dict(run.pair.revisions),
            },
            "dtype": run.pair.precision,
            "n_questions": len(run.ahead.held_out),
            "seed": request.seed,
            **worst_facts(rows, request.seed),
            "cues": cue_facts(rows, cues, request.seed),
            "left_out": left_out,
            "search": search_facts(rows),
            "relearning": relearning_facts(rows[rows["stage"] == "relearn"], request.seed)
            if learnt
            else None,
            "versions": versions(),
            "seconds": round(max(run.workspace.seconds, time.perf_counter() - started), 1),
        }
    )
    page = write_audit(request.folder, facts, rows)
    run.workspace.close()
    return Audit(facts, rows, page)


def write_audit(folder: Path, facts: dict[str, Any], rows: pd.DataFrame) -> Path:
    """rows.parquet, the page and, last, audit.json; each whole or not at all."""
    from persona.report.audited_removal import render_audit

    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    atomic_write_bytes(folder / ROWS, buffer.getvalue())
    atomic_write_text(folder / PAGE, render_audit(facts))
    atomic_write_text(folder / JSON, json.dumps(facts, indent=2, allow_nan=False) + "\n")
    return folder / PAGE


def _tidy(rows: pd.DataFrame) -> pd.DataFrame:
    filled = rows.reindex(columns=list(AUDIT_COLUMNS))
    filled["seed"] = filled["seed"].fillna(0)
    for column, kind in AUDIT_COLUMNS.items():
        if kind == "object":
            filled[column] = filled[column].astype(object).where(filled[column].notna(), None)
    return filled.astype(AUDIT_COLUMNS)


def _settings(ahead: AuditAhead, pair: ModelPair) -> dict[str, Any]:
    """What every stage depends on; what one alone does are its inputs."""
    return {
        "models": {side: pair.files(side) for side in ("aligned", "finetuned")},
        "chat_template": pair.chat.fingerprint,
        "dtype": pair.precision,
        "direction": sha256_of_file(ahead.run.folder / VECTOR),
        "questions": data_hash(ahead.held_out),
        "seed": ahead.request.seed,
        "token_budget": ahead.request.token_budget,
    }
