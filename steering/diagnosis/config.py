"""What decides a diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona.choices import MAX_DAMAGE
from persona.engine import Engine
from persona.errors import DataError

if TYPE_CHECKING:
    from persona.models.precision import Placement

LABEL_DRAWS = 10
"""Times that the labels are swapped in a run over all questions."""
UNKNOWN = "none"
"""As the only domain trained on: the person does not know it."""


@dataclass(frozen=True)
class DiagnosisRequest:
    """What is asked for, wherever it runs; making one loads no library.

    out: folder of the results. data: answer pairs in place of the shipped ones.
    trained_on: domains fine-tuned on; all is chosen there and scored on the others. None is for
        the fine-tunes that come along, whose recipes say it; ("none",) says that nobody knows:
        some questions of every domain are then chosen on, and the rest of every domain is scored.
    aligned: None for the model that an adapter was trained on.
    validation_domains: chosen on in place of the domains fine-tuned on, and left out of the score.
    questions_per_domain: most held-out questions of each domain; None for all.
    n_random: draws of each null, at least 20.
    samples: whether the models answer at all, for people to read and for a judge to score.
    em_rate: whether so many answers are drawn that an EM rate can be given of them; None for a
        full run (without questions_per_domain) with a judge.
    other_finetune: another fine-tune of the same aligned model, on something else: its own
        direction is a placebo.
    max_damage: rise of neutral cross-entropy over the fine-tuned model's, nats per token.
    keep: a skill that the removal should leave alone, see `persona.data.load_skill`. A third of its
        items make candidates and choose; the others score.
    sae: autoencoder whose latents are candidates too, see `persona.sae.load_sae`.
    traits: folders of `persona trait`, or vector files, of the aligned model: candidates, and the
        scorecard says which of them the fine-tune resembles. nonsense: meaningless ones, controls.
    template_arguments: what the chat template is told, such as {"enable_thinking": False}.
    label_nulls: times that good and bad answers are swapped at random, for what of the removal
        needs no bad answer; None for ten in a full run, and none in a quick one.
    tasks: whether the shipped tasks are scored too, and stand in the verdict; None for a full run.
    vllm: options of vLLM, which then writes the answers, such as {"tensor_parallel_size": 2};
        None for Transformers' `generate`.
    """

    finetuned: str
    out: str | Path
    aligned: str | None = None
    data: str | Path | None = None
    trained_on: tuple[str, ...] | None = None
    validation_domains: tuple[str, ...] = ()
    judge: str = "none"
    questions_per_domain: int | None = None
    n_random: int = 20
    seed: int = 0
    chat_template: str | Path | None = None
    max_damage: float = MAX_DAMAGE
    good_twin: str | None = None
    other_finetune: str | None = None
    allow_mismatch: bool = False
    proof: bool = True
    token_budget: int | None = None
    samples: bool = True
    em_rate: bool | None = None
    sae: str | None = None
    keep: str | None = None
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    vllm: Mapping[str, Any] | None = None
    traits: tuple[str, ...] = ()
    nonsense: tuple[str, ...] = ()
    label_nulls: int | None = None
    tasks: bool | None = None

    @property
    def label_draws(self) -> int:
        """Times that labels are swapped, for either null that does not know them."""
        if self.label_nulls is not None:
            return self.label_nulls
        return LABEL_DRAWS if self.questions_per_domain is None else 0

    @property
    def scores_tasks(self) -> bool:
        """Whether forced-choice items are scored, and stand in the verdict."""
        return self.questions_per_domain is None if self.tasks is None else self.tasks

    @property
    def counts_answers(self) -> bool:
        """Whether enough answers are drawn for an EM rate."""
        if self.em_rate is not None:
            return self.em_rate
        return self.questions_per_domain is None and self.judge != "none"

    def __post_init__(self) -> None:
        if self.label_nulls is not None and self.label_nulls < 0:
            raise DataError(f"labels are swapped 0 times or more; got {self.label_nulls}")
        if self.n_random < 20:
            raise DataError(f"a null needs at least 20 random draws; got {self.n_random}")
        if self.trained_on is not None and not self.trained_on:
            raise DataError(
                f'name at least one domain that the model was fine-tuned on, or "{UNKNOWN}" where '
                "nobody knows"
            )
        if self.trained_on is not None and UNKNOWN in self.trained_on[1:] + self.trained_on[:-1]:
            raise DataError(
                f'"{UNKNOWN}" says that nobody knows what was trained on; it stands alone, without '
                "a domain"
            )


def _of_this_machine() -> Placement:
    from persona.models.precision import Placement

    return Placement.of()


@dataclass(frozen=True)
class DiagnoseConfig(DiagnosisRequest):
    """Everything that decides a diagnosis: what is asked for, and where it runs.

    placement: number format and device of the models, the judge's too.
    engine: where held-out questions are scored, which takes the longest; decides no number.
    """

    placement: Placement = field(default_factory=_of_this_machine)
    engine: Engine = field(default_factory=Engine)
