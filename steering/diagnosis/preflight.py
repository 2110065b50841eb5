"""What can be known of a diagnosis before a weight is loaded: what is wrong with it, all at once.

Names, headers and small files are looked at; nothing is fetched and no library of tensors is
imported, so that a mistake costs seconds and not the minutes or hours until its stage.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from persona.behaviour.judging.named import check_judge, judge_model
from persona.data.skills import Skill, load_skill
from persona.errors import DataError, Mistakes, ModelError
from persona.files import require_writable
from persona.models.fits_base import require_fits
from persona.models.kept_folder import cache_folder
from persona.models.on_disk import (
    OnDisk,
    aligned_on_disk,
    find_on_disk,
    finetuned_on_disk,
    require_autoencoder,
)
from persona.run_lock import require_free
from steering.diagnosis.config import DiagnosisRequest
from steering.diagnosis.questions import Questions

logger = logging.getLogger("persona")

Found = TypeVar("Found")

STAGE_MATRICES = 4
"""Matrices [d_model d_model] that a run keeps for each block until it is complete: the covariance,
two halves of the attribution, and the moments of what is scored. Float32."""
ROOM_BESIDE = 50_000_000
"""For the report, the rows, and stages of other shapes."""


@dataclass(frozen=True)
class Ahead:
    """What the checks have found: the request with its aligned model, its models and questions.

    other: another fine-tune that a placebo is made of.
    judge_reads: the model on this machine that the judge reads in, where that is not the pair's.
    """

    request: DiagnosisRequest
    aligned: OnDisk
    finetuned: OnDisk
    good_twin: OnDisk | None
    other: OnDisk | None
    questions: Questions
    skill: Skill | None = None
    judge_reads: OnDisk | None = None

    @property
    def models(self) -> list[OnDisk]:
        """Every model, each once."""
        some = (self.aligned, self.finetuned, self.good_twin, self.other, self.judge_reads)
        return list({one.name: one for one in some if one is not None}.values())

    @property
    def to_fetch_bytes(self) -> int:
        return sum(model.to_fetch_bytes for model in self.models)


def look_ahead(request: DiagnosisRequest) -> Ahead:
    """Checks everything that a diagnosis depends on, as far as it can be known without loading.

    Raises: PersonaError where something is wrong, SeveralErrors where several things are.
    """
    mistakes = Mistakes()

    def noted(check: Callable[[], Found]) -> Found | None:
        with mistakes.noted():
            return check()
        return None

    tuned = noted(lambda: finetuned_on_disk(request.finetuned))
    aligned = noted(lambda: aligned_on_disk(request.aligned, tuned))
    twin, other = (
        None if name is None else noted(lambda name=name: finetuned_on_disk(name))  # type: ignore[misc]
        for name in (request.good_twin, request.other_finetune)
    )
    if aligned is not None:
        for one in (tuned, twin, other):
            if one is not None:
                with mistakes.noted():
                    require_fits(one, aligned, allow_mismatch=request.allow_mismatch)
    if aligned is not None and tuned is not None:
        with mistakes.noted():
            _require_another(tuned, aligned)
    if request.samples:
        noted(lambda: check_judge(request.judge))
    elif request.judge != "none":
        logger.warning(
            "no answers are sampled (--no-samples), so that the judge %s has nothing to score: "
            "there will be no EM rate",
            request.judge,
        )
    questions = noted(lambda: Questions.of(request))
    skill = None
    if request.keep is not None:
        of_skill = request.keep
        skill = noted(lambda: load_skill(of_skill))
    noted(lambda: require_autoencoder(request.sae))
    noted(lambda: _require_traits(request))
    noted(lambda: _require_template(request.chat_template))
    noted(lambda: require_free(request.out, _settings(request)))
    noted(lambda: require_writable(request.out, 0 if aligned is None else bytes_kept(aligned)))
    reader = judge_model(request.judge) if request.samples else None
    judge_reads = None
    if reader is not None:
        with contextlib.suppress(ModelError):  # said by check_judge
            judge_reads = find_on_disk(reader)
    models = (aligned, tuned, twin, other, judge_reads)
    noted(lambda: _require_cache(*[m for m in models if m]))
    mistakes.raise_all()
    assert tuned is not None and aligned is not None and questions is not None
    return Ahead(request, aligned, tuned, twin, other, questions, skill, judge_reads)


def bytes_kept(model: OnDisk) -> int:
    """What a run keeps in its folder until it is complete."""
    if model.n_layers is None or model.d_model is None:
        return ROOM_BESIDE
    return ROOM_BESIDE + STAGE_MATRICES * 4 * model.n_layers * model.d_model**2


def _settings(request: DiagnosisRequest) -> dict[str, Any]:
    """What is known of the settings of the run, for who is refused a folder that is in use."""
    unknown = {"out", "engine"} | ({"aligned"} if request.aligned is None else set())
    unknown |= {name for name in ("traits", "nonsense") if not getattr(request, name)}
    unknown |= {name for name in ("label_nulls", "tasks") if getattr(request, name) is None}
    known = {name: value for name, value in asdict(request).items() if name not in unknown}
    return {name: str(value) if name == "placement" else value for name, value in known.items()}


def _require_another(tuned: OnDisk, aligned: OnDisk) -> None:
    if tuned.kind != "folder" or tuned.path is None or aligned.path is None:
        return
    if tuned.path.resolve() == aligned.path.resolve():
        raise DataError(
            f"{tuned.name} and {aligned.name} are the same model, so there is nothing to find: "
            "--finetuned is the model that was made of --aligned"
        )


def _require_traits(request: DiagnosisRequest) -> None:
    for name in (*request.traits, *request.nonsense):
        if not Path(name).expanduser().exists():
            raise DataError(
                f"there is no trait {name}; name a folder of `persona trait`, or a vector file"
            )
    if request.nonsense and not request.traits:
        raise DataError("--nonsense is a control of --traits, of which there is none")


def _require_template(path: str | Path | None) -> None:
    if path is None:
        return
    from jinja2 import Environment, TemplateError

    try:
        Environment().parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--chat-template {path} cannot be read ({error})") from error
    except TemplateError as error:
        raise DataError(f"--chat-template {path} is no Jinja template: {error}") from error


def _require_cache(*models: OnDisk) -> None:
    """Raises: DataError where what is to be fetched or unpacked has no room in the cache."""
    needed = sum({model.name: model.cache_bytes for model in models}.values())
    if needed:
        require_writable(cache_folder(), needed)
