"""The stages of one diagnosis, in their order."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.judging.named import judge_named
from persona.data import data_hash
from persona.data.shipped import OPEN_QUESTIONS
from persona.data.types import AnswerPair
from persona.directions import PersonaVector
from persona.directions.storage import tool_version
from persona.models import ModelPair
from persona.models.kept_folder import cache_folder
from persona.sae import SparseAutoencoder
from steering.diagnosis.agreement import baselines, differ, first_look
from steering.diagnosis.conditions import Scoring
from steering.diagnosis.config import DiagnoseConfig
from steering.diagnosis.memory import MeasuredWorkspace
from steering.diagnosis.questions import Questions, one_each
from steering.evidence.answers import (
    SAMPLED_QUESTIONS,
    Judged,
    describe_judge,
    judge_samples,
    judged_conditions,
    sample_conditions,
    threshold_of,
)
from steering.identification.identify import identify
from steering.identification.latent_screen import latent_rows

logger = logging.getLogger("persona")


def settings_of(config: DiagnoseConfig) -> dict[str, Any]:
    """What of a configuration decides the results."""
    plain = {k: v for k, v in dataclasses.asdict(config).items() if k not in {"out", "engine"}}
    return {**plain, "placement": str(config.placement)}


class DiagnosisRun:
    """The stages of one diagnosis over one pair."""

    def __init__(
        self,
        config: DiagnoseConfig,
        pair: ModelPair,
        questions: Questions,
        sae: SparseAutoencoder | None = None,
    ) -> None:
        self.config, self.pair, self.questions, self.sae = config, pair, questions, sae
        self.budget = config.token_budget or DEFAULT_TOKEN_BUDGET
        fingerprint = {
            **settings_of(config),
            "revisions": {side: pair.files(side) for side in pair.revisions},
            "template": pair.chat.fingerprint,
            "questions": questions.hash,
            "tool_version": tool_version(),
            "dtype": pair.precision,
            "sae": None if sae is None else sae.fingerprint,
        }
        self.workspace = MeasuredWorkspace(Path(config.out), fingerprint)
        if self.workspace.resumed:
            logger.info("going on with the unfinished run in %s", config.out)

    def all_stages(
        self,
    ) -> tuple[pd.DataFrame, PersonaVector | None, list[float], Judged | None]:
        """Rows, the chosen vector, its split-half cosines, and what a judge said.

        No vector where the two models give every answer the same probability.
        """
        if not first_look(self.pair, self.questions, self.budget):
            rows = self.workspace.table(
                "baselines", lambda: baselines(self.pair, self.questions, self.budget)
            )
            if not differ(rows):
                logger.warning("the two models do not differ: there is nothing to find")
                return rows, None, [], None
        found = identify(
            self.pair,
            self.questions.train,
            self.questions.selection,
            self.questions.neutral_selection,
            max_damage=self.config.max_damage,
            seed=self.config.seed,
            token_budget=self.budget,
            stages=self.workspace,
            handed_in=None if self.sae is None else self._latents,
        )
        vector = dataclasses.replace(found.vector, card=self._card())
        scoring = Scoring(self.config, self.pair, self.questions, self.workspace, self.budget)
        parts = [
            found.rows,
            self.workspace.table("dose", lambda: scoring.dose(vector)),
            *scoring.score(vector, found.means),
        ]
        judged = None
        if self.config.samples:
            samples = self.workspace.table("sample", lambda: self._sample(vector))
            judged = self._judge(samples, vector)
            parts += [samples] if judged is None else [samples, judged.rows]
        rows = pd.concat([part for part in parts if len(part)], ignore_index=True)
        return rows, vector, found.split_half_cosines, judged

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

    def _sample(self, vector: PersonaVector) -> pd.DataFrame:
        """Answers of four conditions to the first held-out questions, open questions first."""
        open_first = sorted(self.questions.held_out, key=lambda q: q.domain != OPEN_QUESTIONS)
        asked = one_each(open_first, SAMPLED_QUESTIONS)
        return sample_conditions(self.pair, vector, asked, self.config.seed)

    def _judge(self, samples: pd.DataFrame, vector: PersonaVector) -> Judged | None:
        """Scores of the sampled answers; without a judge there are none, and no EM rate."""
        judge = judge_named(
            self.config.judge,
            pair=self.pair,
            cache_folder=cache_folder() / "judge",
            placement=self.config.placement,
            announce=logger.info,
        )
        if judge is None:
            return None
        rows = self.workspace.table(
            "judge", lambda: judge_samples(judge, samples, self.questions.held_out, vector)
        )
        by_condition = judged_conditions(rows, self.config.seed, threshold_of(judge))
        return Judged(rows, by_condition, describe_judge(judge, vector))

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
