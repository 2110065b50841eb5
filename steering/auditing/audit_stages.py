"""The stages of one audit, in their order, each kept when it is finished."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data import data_hash
from persona.directions.storage import load_vector
from persona.models import ModelPair, Placement, load_pair
from persona.models.sources import short_name
from persona.organisms.recipe import Training
from persona.run_line import RunLine
from persona.stages import Workspace
from steering.auditing.audit_preflight import VECTOR, AuditAhead
from steering.auditing.cost_of_audit import CUES, OTHERS, RELEARN, SEARCH
from steering.auditing.cue import Cue
from steering.auditing.cue_scores import conditions_of, of_another, removal_alone, score_cue
from steering.auditing.cue_search import kept_cues, search_prefixes
from steering.auditing.relearning import ARMS, KINDS, READ_QUESTIONS, Relearning


@dataclass
class AuditStages:
    """The stages of one audit, in their order."""

    ahead: AuditAhead
    pair: ModelPair
    placement: Placement
    workspace: Workspace
    line: RunLine

    def searched(self) -> tuple[list[pd.DataFrame], list[Cue]]:
        """Rows of the search, and all cues, those that it has found at the end."""
        if not self.ahead.request.search:
            return [], self.ahead.cues
        self.line.begin(SEARCH)
        rows = self.workspace.table(
            "search",
            lambda: search_prefixes(
                self.pair,
                self.ahead.selection,
                removal_alone(self._vector),
                self.ahead.filler,
                self.ahead.prefixes,
                seed=self.ahead.request.seed,
                token_budget=self._budget,
            ),
            {"prefixes": list(self.ahead.prefixes), "selection": data_hash(self.ahead.selection)},
        )
        return [rows], [*self.ahead.cues, *kept_cues(rows)]

    def scored(self, cues: list[Cue]) -> list[pd.DataFrame]:
        self.line.begin(CUES)
        n = self.ahead.request.n_random
        conditions = conditions_of(self._vector, n, self.ahead.request.seed)
        return [self._under(self.pair, cue, conditions, {"n_random": n}) for cue in cues]

    def of_others(self, cues: list[Cue]) -> list[pd.DataFrame]:
        """Good twin, retrained and guarded models, each loaded once and only where it is needed."""
        parts = []
        for name, other in self.ahead.others.items():
            self.line.begin(OTHERS)
            made = _Another(self.ahead, self.placement, other.name, self.pair)
            revision = "" if other.path is None else other.source.fingerprint
            parts += [self._under(made, cue, of_another(name), {"model": revision}) for cue in cues]
        return parts

    def relearnt(self) -> list[pd.DataFrame]:
        request = self.ahead.request
        if not request.relearn:
            return []
        self.line.begin(RELEARN)
        models = self.ahead.run.scorecard["models"]
        inputs = {"steps": request.steps, "data": data_hash(self.ahead.to_learn)}
        parts = []
        for arm in ARMS:
            runs = Relearning(
                arm,
                short_name(str(models["aligned"])),
                str(models["finetuned"]),
                self._vector,
                self.pair.chat,
                self.placement,
                self.ahead.held_out[:READ_QUESTIONS],
                self.ahead.to_learn,
                request.steps,
                self._budget,
                Training(),
            )
            for seed in range(request.seed, request.seed + request.n_seeds):
                for kind in KINDS:
                    parts.append(
                        self.workspace.table(
                            f"relearn-{arm}-{kind}-{seed}",
                            lambda runs=runs, kind=kind, seed=seed: runs.rows(kind, seed),  # type: ignore[misc]
                            inputs,
                        )
                    )
            runs.close()
        return parts

    def _under(
        self, pair: ModelPair | _Another, cue: Cue, conditions: list[Any], inputs: dict[str, Any]
    ) -> pd.DataFrame:
        """One cue's rows, kept when they are made."""
        name = f"{conditions[-1].name}-{cue.name}"
        return self.workspace.table(
            f"cue-{name}",
            lambda: score_cue(
                pair.pair if isinstance(pair, _Another) else pair,
                self.ahead.held_out,
                cue,
                conditions,
                self._budget,
            ),
            {"cue": cue.facts(), **inputs},
        )

    @property
    def _budget(self) -> int:
        return self.ahead.request.token_budget or DEFAULT_TOKEN_BUDGET

    @property
    def _vector(self) -> Any:
        return load_vector(
            self.ahead.run.folder / VECTOR,
            self.pair,
            allow_mismatch=self.ahead.request.allow_mismatch,
        )


@dataclass
class _Another:
    """Another fine-tune of the same aligned model, loaded the first time that it is asked for."""

    ahead: AuditAhead
    placement: Placement
    name: str
    beside: ModelPair

    @cached_property
    def pair(self) -> ModelPair:
        return load_audited(self.ahead, self.placement, self.name, self.beside)


def load_audited(
    ahead: AuditAhead, placement: Placement, finetuned: str, beside: ModelPair | None = None
) -> ModelPair:
    return load_pair(
        short_name(str(ahead.run.scorecard["models"]["aligned"])),
        finetuned,
        placement=placement,
        chat_template=ahead.request.chat_template,
        template_arguments=ahead.template_arguments,
        allow_mismatch=ahead.request.allow_mismatch,
        proof=ahead.request.proof,
        beside=beside,
    )
