"""What can be known of an audit before a weight is loaded: what is wrong with it, all at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from persona.data.types import AnswerPair
from persona.directions import PersonaVector
from persona.directions.storage import load_vector
from persona.errors import DataError, Mistakes, PersonaError
from persona.files import require_writable
from persona.models.fits_base import require_fits
from persona.models.on_disk import OnDisk, find_on_disk, finetuned_on_disk
from persona.models.shipped_adapters import SHIPPED, shipped_names
from persona.models.sources import short_name
from persona.organisms.learnt_domains import RECIPE
from persona.organisms.recipe import load_recipe
from persona.report.finished_run import FinishedRun, read_run
from persona.rows import ALIGNED, FINETUNED
from persona.run_lock import require_free
from steering.auditing.audit_request import AuditRequest
from steering.auditing.audited_questions import questions_of
from steering.auditing.cue import SHIPPED_CUES, Cue, CueFile, read_cues
from steering.auditing.cue_list import cues_of

logger = logging.getLogger("persona")

Found = TypeVar("Found")

VECTOR = "direction.safetensors"
ROOM = 20_000_000
"""Bytes of rows, page and unfinished stages."""


@dataclass(frozen=True)
class AuditAhead:
    """What the checks have found.

    others: name of a condition -> the fine-tune that it is of (good twin, retrained, guarded).
    held_out: scored. selection: prefixes are searched on these. training: of the domains trained
        on, for cues. to_learn: relearnt, and never seen by the fine-tune where that is known.
    cues: all but the searched ones. prefixes: phrases for the search, after `filler`.
    """

    request: AuditRequest
    run: FinishedRun
    vector: PersonaVector
    aligned: OnDisk
    finetuned: OnDisk
    others: Mapping[str, OnDisk]
    held_out: list[AnswerPair]
    selection: list[AnswerPair]
    training: list[AnswerPair]
    to_learn: list[AnswerPair]
    cues: list[Cue]
    prefixes: tuple[str, ...]
    filler: str

    @property
    def template_arguments(self) -> dict[str, Any]:
        return dict(self.run.scorecard["models"].get("chat_template_arguments") or {})


def look_ahead_of_audit(request: AuditRequest) -> AuditAhead:
    """Checks everything that an audit depends on, as far as it can be known without loading.

    Raises: PersonaError where something is wrong, SeveralErrors where several things are.
    """
    run = read_run(request.run)
    names = _names(run)
    mistakes = Mistakes()

    def noted(check: Callable[[], Found]) -> Found | None:
        with mistakes.noted():
            return check()
        return None

    vector = noted(lambda: _vector(run))
    noted(lambda: _require_template(run, request))
    aligned = noted(lambda: find_on_disk(short_name(names[ALIGNED])))
    tuned = noted(lambda: finetuned_on_disk(names[FINETUNED]))
    wanted = {
        "good_twin": run.scorecard["models"].get("good_twin"),
        "retrained": request.retrained,
        "guarded": request.guarded,
    }
    others = {
        name: noted(lambda ref=ref: finetuned_on_disk(ref))  # type: ignore[misc]
        for name, ref in wanted.items()
        if ref
    }
    if aligned is not None:
        for one in (tuned, *others.values()):
            if one is not None:
                with mistakes.noted():
                    require_fits(one, aligned, allow_mismatch=request.allow_mismatch)
        if not request.allow_mismatch:
            for side, one in ((ALIGNED, aligned), (FINETUNED, tuned)):
                with mistakes.noted():
                    _require_those(run, side, one)
    shipped = read_cues(SHIPPED_CUES, own=False)
    own = None if request.cues is None else noted(lambda: read_cues(Path(str(request.cues))))
    questions = noted(lambda: questions_of(run, request))
    noted(lambda: require_free(request.folder, _settings(request)))
    noted(lambda: require_writable(request.folder, ROOM))
    cues = None
    if questions is not None:
        trigger = _trigger(names[FINETUNED])
        cues = noted(lambda: cues_of(shipped, own, questions.training, questions.domains, trigger))
    mistakes.raise_all()
    assert vector is not None and aligned is not None and tuned is not None
    assert questions is not None and cues is not None
    return AuditAhead(
        request,
        run,
        vector,
        aligned,
        tuned,
        {name: one for name, one in others.items() if one is not None},
        questions.held_out,
        questions.selection,
        questions.training,
        questions.to_learn,
        cues,
        _prefixes(shipped, own),
        shipped.filler,
    )


def _names(run: FinishedRun) -> dict[str, str]:
    models = run.scorecard.get("models")
    if not isinstance(models, Mapping) or not {ALIGNED, FINETUNED} <= set(models):
        raise DataError(f"{run.folder}/scorecard.json does not say which models it is of")
    if not isinstance(run.scorecard.get("data"), Mapping):
        raise DataError(f"{run.folder}/scorecard.json does not say which data it is of")
    return {side: str(models[side]) for side in (ALIGNED, FINETUNED)}


def _vector(run: FinishedRun) -> PersonaVector:
    path = run.folder / VECTOR
    if run.scorecard["verdict"] == "no_emergent_shift" or not path.is_file():
        why = (
            "its two models show no emergent shift"
            if run.scorecard["verdict"] == "no_emergent_shift"
            else f"it holds no {VECTOR}"
        )
        raise DataError(f"{run.folder} has no removal to audit: {why}")
    return load_vector(path)


def _require_template(run: FinishedRun, request: AuditRequest) -> None:
    if run.scorecard["models"].get("chat_format") == "file" and request.chat_template is None:
        raise DataError(
            f"{run.folder} was made with a chat template from a file; name it with --chat-template"
        )


def _require_those(run: FinishedRun, side: str, model: OnDisk | None) -> None:
    """Raises: DataError where the name leads to other weights than the diagnosis read."""
    known = (run.scorecard["models"].get("revisions") or {}).get(side)
    if model is None or model.path is None or not known:
        return
    there = model.source.revision
    if there not in (known, "unknown"):
        raise DataError(
            f"{run.folder} is of other models: its {side} model {model.name} had the weights "
            f"{known}, here it has {there}; diagnose these, or pass --allow-mismatch"
        )


def _trigger(finetuned: str) -> str | None:
    """The phrase of a backdoored fine-tune, where the recipe beside it says it."""
    folder = SHIPPED / finetuned if finetuned in shipped_names() else Path(finetuned)
    try:
        return load_recipe(folder.expanduser() / RECIPE).data.trigger
    except PersonaError:
        return None


def _prefixes(shipped: CueFile, own: CueFile | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*shipped.prefixes, *(own.prefixes if own else ()))))


def _settings(request: AuditRequest) -> dict[str, Any]:
    kept = replace(request, out=None)
    return {name: str(value) for name, value in asdict(kept).items() if name != "out"}
