"""What can be known of an audit before a weight is loaded: what is wrong with it, all at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from persona.data import load_pairs, read_pairs
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
from steering.auditing.audit_request import ANSWERS, AuditRequest
from steering.auditing.cue import SHIPPED_CUES, Cue, CueFile, read_cues
from steering.auditing.cue_list import cues_of

logger = logging.getLogger("persona")

Found = TypeVar("Found")

N_SELECTION = 8
"""Questions that prefixes are searched on; none of them is scored."""
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
    questions = noted(lambda: _questions(run, request))
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


@dataclass(frozen=True)
class _Questions:
    held_out: list[AnswerPair]
    selection: list[AnswerPair]
    training: list[AnswerPair]
    to_learn: list[AnswerPair]
    domains: tuple[str, ...] | None


def _questions(run: FinishedRun, request: AuditRequest) -> _Questions:
    """The pairs of the diagnosis, by what they are for here.

    Raises: DataError where its data is gone or another, or too little is left to choose on.
    """
    data = run.scorecard["data"]
    source = data.get("source", "shipped")
    pairs = load_pairs() if source == "shipped" else read_pairs(source)
    by_id = {pair.id: pair for pair in pairs}
    scored, selected = _ids(run.rows, "held_out", FINETUNED), _ids(run.rows, "selection")
    if missing := [one for one in scored if one not in by_id]:
        raise DataError(
            f"{run.folder} was scored on {missing[0]!r}, which {source} does not hold now; the "
            "audit needs the data of the diagnosis as it was"
        )
    if len(scored) < 2:
        raise DataError(f"{run.folder} scored {len(scored)} held-out questions; two are needed")
    domains = None if data.get("trained_on") is None else tuple(data["trained_on"])
    free = [
        pair
        for pair in pairs
        if pair.id not in scored and (domains is None or pair.domain in domains)
    ]
    selection = [by_id[one] for one in selected if one in by_id and one not in scored]
    training = [pair for pair in free if pair.split == "train"] or free
    unseen = [pair for pair in free if pair.split == "selection"]
    to_learn = unseen if len(unseen) >= ANSWERS else free
    if request.relearn and len(to_learn) < ANSWERS:
        raise DataError(
            f"relearning needs {ANSWERS} answer pairs that are not scored, of the domains trained "
            f"on; there are {len(to_learn)}. Leave it out with --no-relearn"
        )
    if request.search and len(selection or free) < 2:
        raise DataError(
            "the search needs two questions or more that are not scored; leave it out with "
            "--no-search"
        )
    return _Questions(
        _interleaved([by_id[one] for one in scored])[: request.n_questions],
        (selection or free)[:N_SELECTION],
        training,
        to_learn,
        domains,
    )


def _ids(rows: pd.DataFrame, split: str, condition: str | None = None) -> list[str]:
    """The questions of a split, in the order of the rows."""
    mine = rows[(rows["split"] == split) & (rows["measure"] == "gap")]
    if condition is not None:
        mine = mine[(mine["stage"] == "score") & (mine["condition"] == condition)]
    return [str(one) for one in dict.fromkeys(mine["question_id"])]


def _interleaved(pairs: Sequence[AnswerPair]) -> list[AnswerPair]:
    """One of each domain after the other, so that the first n hold all domains alike."""
    by_domain: dict[str, list[AnswerPair]] = {}
    for pair in pairs:
        by_domain.setdefault(pair.domain, []).append(pair)
    deepest = max(map(len, by_domain.values()), default=0)
    return [mine[i] for i in range(deepest) for mine in by_domain.values() if i < len(mine)]


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
