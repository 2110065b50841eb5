"""The stages of one diagnosis, in their order."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.judging.named import judge_named
from persona.behaviour.sampling_plan import READ_QUESTIONS, sampling_plan
from persona.data import Skill, data_hash
from persona.data.shipped import OPEN_QUESTIONS
from persona.data.types import AnswerPair
from persona.directions import PersonaVector
from persona.directions.storage import tool_version
from persona.models import ModelPair
from persona.models.chat.chat_format import ChatFormat
from persona.models.kept_folder import cache_folder
from persona.run_line import RunLine
from persona.sae import SparseAutoencoder
from steering.diagnosis.agreement import baselines, differ, first_look
from steering.diagnosis.among_traits import AmongTraits
from steering.diagnosis.conditions import Scoring
from steering.diagnosis.config import DiagnoseConfig
from steering.diagnosis.keeping import SkillScoring
from steering.diagnosis.memory import MeasuredWorkspace
from steering.diagnosis.questions import Questions, one_each
from steering.evidence.answers import (
    Judged,
    Plans,
    judge_samples,
    sample_conditions,
    sampling_facts,
)
from steering.evidence.scorecard import SCHEMA_VERSION
from steering.identification.identify import Alternative, identify
from steering.identification.latent_screen import latent_rows
from steering.identification.skill_candidates import SkillToKeep

logger = logging.getLogger("persona")


@dataclass(frozen=True)
class Found:
    """What the stages of a diagnosis found.

    vector: None where the two models give every answer the same probability.
    sampling: how answers were sampled and whether a rate is given of them, for the scorecard; None
    where none were.
    closed_form: see `Scoring.closed_form_nulls`. front: see `Identification`.
    model_effect: [layer d_model], fine-tuned less aligned model on the same good answers.
    traits: see `AmongTraits.facts`.
    """

    rows: pd.DataFrame
    vector: PersonaVector | None = None
    split_half_cosines: list[float] = field(default_factory=list)
    judged: Judged | None = None
    sampling: dict[str, Any] | None = None
    closed_form: dict[str, Any] | None = None
    front: tuple[Alternative, ...] = ()
    model_effect: Tensor | None = None
    traits: dict[str, Any] | None = None


def settings_of(config: DiagnoseConfig) -> dict[str, Any]:
    """What of a configuration decides the results."""
    plain = {k: v for k, v in dataclasses.asdict(config).items() if k not in {"out", "engine"}}
    # A run without them is that of before there were any.
    for name, unset in (("traits", ()), ("nonsense", ()), ("label_nulls", None), ("tasks", None)):
        if plain[name] == unset:
            del plain[name]
    return {**plain, "placement": str(config.placement)}


def plans_of(config: DiagnoseConfig, chat: ChatFormat | None, questions: Questions) -> Plans:
    """How a run samples answers: to be read, and to be counted.

    chat: None before a model is there, see `sampling_plan`.
    """
    held_out = [q for q in questions.held_out if q.domain != OPEN_QUESTIONS]
    one_a_domain = one_each(held_out or questions.held_out, READ_QUESTIONS)
    seed, chosen_on = config.seed, questions.chosen_on
    return Plans(
        sampling_plan(
            "read",
            chat,
            held_out=[q.prompt_dialogue for q in one_a_domain],
            chosen_on=chosen_on,
            seed=seed,
        ),
        sampling_plan(
            "rate", chat, quick=not config.counts_answers, chosen_on=chosen_on, seed=seed
        ),
    )


def _for_judge(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What vLLM is told for a judge: its examples are longer than what a cap is made for."""
    kept = (options or {}).items()
    return None if options is None else {k: v for k, v in kept if k != "max_model_len"}


class DiagnosisRun:
    """The stages of one diagnosis over one pair."""

    def __init__(
        self,
        config: DiagnoseConfig,
        pair: ModelPair,
        questions: Questions,
        sae: SparseAutoencoder | None = None,
        skill: Skill | None = None,
        line: RunLine | None = None,
        among: AmongTraits | None = None,
    ) -> None:
        """line: of progress, told of every stage that begins."""
        self.config, self.pair, self.questions, self.sae = config, pair, questions, sae
        self.skill, self.among = skill, among or AmongTraits()
        self.line = line or RunLine({})
        self.budget = config.token_budget or DEFAULT_TOKEN_BUDGET
        fingerprint = {
            **settings_of(config),
            "revisions": {side: pair.files(side) for side in pair.revisions},
            "template": pair.chat.fingerprint,
            "questions": questions.hash,
            "tool_version": tool_version(),
            "scorecard": SCHEMA_VERSION,
            "dtype": pair.precision,
            "sae": None if sae is None else sae.fingerprint,
            "skill": None if skill is None else skill.hash,
            "sampler": None if pair.sampler is None else pair.sampler.name,
        }
        if self.among.traits:
            fingerprint["among_traits"] = self.among.fingerprint
        self.workspace = MeasuredWorkspace(Path(config.out), fingerprint, self.line)
        if self.workspace.resumed:
            logger.info("going on with the unfinished run in %s", config.out)

    def all_stages(self) -> Found:
        """Everything from the first look to the judged answers."""
        if not first_look(self.pair, self.questions, self.budget):
            rows = self.workspace.table(
                "baselines", lambda: baselines(self.pair, self.questions, self.budget)
            )
            if not differ(rows):
                logger.warning("the two models do not differ: there is nothing to find")
                return Found(rows)
        scoring = Scoring(self.config, self.pair, self.questions, self.workspace, self.budget)
        parts_of_skill = None if self.skill is None else self.skill.divided()
        found = identify(
            self.pair,
            self.questions.train,
            self.questions.selection,
            self.questions.neutral_selection,
            max_damage=self.config.max_damage,
            seed=self.config.seed,
            token_budget=self.budget,
            stages=self.workspace,
            handed_in=self._handed_in if self.sae is not None or self.among.traits else None,
            keep=None
            if parts_of_skill is None
            else SkillToKeep(
                parts_of_skill.lessons,
                parts_of_skill.chooses,
                scoring.good_twin if self.config.good_twin else None,
            ),
        )
        vector = dataclasses.replace(found.vector, card=self._card())
        plans = (
            plans_of(self.config, self.pair.chat, self.questions) if self.config.samples else None
        )
        keep = (
            None
            if parts_of_skill is None
            else SkillScoring(parts_of_skill.scores, self.workspace.table, self.budget)
        )
        of_twin, placebo_of_twin = scoring.of_good_twin(found, plans, keep)
        placebos = scoring.placebos(found) | placebo_of_twin | scoring.of_other_fine_tune(found)
        moments = scoring.moments(vector, found.means)
        scored = [
            found.rows,
            self.workspace.table("dose", lambda: scoring.dose(vector)),
            *scoring.score(found, vector, placebos, moments),
            *([] if keep is None else [keep.of_pair(self.pair, vector, found.front)]),
            *of_twin,
        ]
        parts = [part for part in scored if len(part)]
        closed_form = scoring.closed_form_nulls(
            vector, found.means, moments, pd.concat(parts, ignore_index=True)
        )
        judged = sampling = None
        if plans is not None:
            parts.append(sample_conditions(self.pair, vector, plans, self.workspace.table))
            judged = self._judge(pd.concat(parts, ignore_index=True), vector, plans)
            by = "generate" if self.pair.sampler is None else self.pair.sampler.name
            sampling = {**sampling_facts(plans, judged), "sampler": by}
        if judged is not None:
            parts.append(judged.rows)
        rows = pd.concat(parts, ignore_index=True)
        cosines, front = found.split_half_cosines, found.front
        effect = found.effects["model_effect_good"].vectors
        traits = self.among.facts(found.cells, self.config.seed)
        return Found(rows, vector, cosines, judged, sampling, closed_form, front, effect, traits)

    def _handed_in(self, questions: Sequence[AnswerPair]) -> Mapping[str, Tensor]:
        """Latents and traits as candidates; a trait is made of no question here."""
        latents = {} if self.sae is None else self._latents(questions)
        return {**latents, **self.among.candidates()}

    def _latents(self, questions: Sequence[AnswerPair]) -> Mapping[str, Tensor]:
        """The autoencoder's latents as candidates."""
        assert self.sae is not None
        found = latent_rows(self.pair, self.sae, questions, token_budget=self.budget)
        if not found:
            logger.warning(
                "no latent of %s is predicted both to cure and to induce; none is a candidate",
                self.sae.name,
            )
        return found

    def _judge(self, rows: pd.DataFrame, vector: PersonaVector, plans: Plans) -> Judged | None:
        """Scores of the sampled answers; without a judge there are none, and no EM rate."""
        judge = judge_named(
            self.config.judge,
            pair=self.pair,
            cache_folder=cache_folder() / "judge",
            placement=self.config.placement,
            announce=logger.info,
            vllm=_for_judge(self.config.vllm),
        )
        if judge is None:
            return None
        samples = rows[rows["stage"] == "sample"]
        scored = self.workspace.table("judge", lambda: judge_samples(judge, samples, vector))
        return Judged.of(scored, judge, vector, plans.rate)

    def _card(self) -> dict[str, Any]:
        """Facts that travel with direction.safetensors."""
        known = self.questions.domains_trained_on
        return {
            "aligned": self.pair.names["aligned"],
            "finetuned": self.pair.names["finetuned"],
            "revisions": dict(self.pair.revisions),
            "trained_on": None if known is None else list(known),
            "data_hash": data_hash(self.questions.train),
            "token_set": "response",
            "chat_format": self.pair.chat.source,
            "dtype": self.pair.precision,
            "seed": self.config.seed,
        }
