"""What the experiments share: fine-tunes made once, pairs, questions, directions, scores."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from persona.activations import collect_rows
from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.scoring import Condition
from persona.data import data_hash, load_neutral, load_pairs
from persona.data.selection import sample
from persona.data.types import AnswerPair, NeutralText
from persona.directions import Cells, PersonaVector, collect_cells, two_by_two
from persona.directions.storage import tool_version
from persona.files import sha256_of_file
from persona.models import ModelPair, load_pair
from persona.models.sources import resolve
from persona.organisms import Recipe, finetune, load_recipe, read_card
from steering.candidates import (
    MODEL_AND_ANSWER_REFIT,
    Means,
    from_bases,
    random_vector,
    refit_candidates,
)
from steering.edits import ablate_to_zero, restore_to_aligned, restore_to_finetuned
from steering.hooks import Edit, steered_by
from steering.identify import within_covariance
from steering.lab.settings import LabSettings
from steering.lab.steps import Steps, content_key
from steering.refit import refit_block_by_block
from steering.rows import tidy
from steering.scorecard import ALIGNED, FINETUNED, INDUCED, RANDOM, RESTORED, ZERO_ABLATED

logger = logging.getLogger("persona")

COVARIANCE_QUESTIONS = 12


class Workbench:
    """One run's settings and its finished steps."""

    def __init__(self, settings: LabSettings) -> None:
        self.settings, self.sizes = settings, settings.sizes
        self.base_revision = resolve(settings.base).revision
        self.steps = Steps(
            settings.out / "steps",
            {
                "base": self.base_revision,
                "seed": settings.seed,
                "dtype": settings.dtype,
                "device": settings.device,
                "tool_version": tool_version(),
            },
        )

    def recipe(self, name: str, **data: Any) -> Recipe:
        """A shipped recipe on this bench's model and seed, with changed fields of its data."""
        shipped = load_recipe(name)
        sizes, settings = self.sizes, self.settings
        training = {
            "seed": settings.seed,
            "epochs": sizes.epochs or shipped.training.epochs,
            "learning_rate": sizes.learning_rate or shipped.training.learning_rate,
        }
        values = shipped.model_dump(exclude={"expected", "start_from"})
        values["data"] = _set_only({**values["data"], "n": sizes.fine_tune, **data})
        values |= {"base": settings.base, "training": {**values["training"], **training}}
        return Recipe.model_validate(values)

    def fine_tune(self, recipe: Recipe) -> Path:
        """The adapter of a recipe, made once for all experiments; a killed one goes on."""
        deciding = recipe.model_dump(mode="json", exclude={"name", "description", "expected"})
        if recipe.data.file is not None:
            deciding["data"]["file"] = sha256_of_file(recipe.data.file)
        if recipe.start_from is not None:
            deciding["start_from"] = read_card(recipe.start_from)["adapter_sha256"]
        deciding |= {"base": self.base_revision, "dtype": self.settings.dtype}
        folder = self.settings.out / "organisms" / f"{recipe.name}-{content_key(deciding)}"
        finetune(recipe, folder, dtype=self.settings.dtype, device=self.settings.device)
        self.steps.seconds += float(read_card(folder)["seconds"])
        return folder

    def pair(self, adapter: Path) -> ModelPair:
        """The aligned model and a fine-tune of it; the last one asked for is kept in memory."""
        return _pair(self.settings.base, str(adapter), self.settings.dtype, self.settings.device)

    def questions(self, domain: str, split: str, n: int | None) -> list[AnswerPair]:
        """At most `n` questions of one domain and split, always the same ones."""
        pairs = load_pairs([domain], split)
        return pairs if n is None else sample(pairs, min(n, len(pairs)), self.settings.seed)

    def held_out(self, *trained_on: str) -> list[AnswerPair]:
        """Questions of every advice domain, and the open ones, that nothing was trained on."""
        domains = sorted({pair.domain for pair in load_pairs()} - set(trained_on))
        return [
            question
            for domain in domains
            for question in sample(load_pairs([domain]), self.sizes.held_out, self.settings.seed)
        ]

    def neutral(self) -> list[NeutralText]:
        """Texts that measure damage, evenly over the kinds."""
        texts = load_neutral()
        return texts[:: max(1, len(texts) // self.sizes.neutral)][: self.sizes.neutral]

    def vector(self, adapter: Path, domain: str) -> tuple[PersonaVector, Means]:
        """The persona vector of a fine-tune, from the training questions of one domain.

        Model effect and answer effect, refitted block by block; see `steering.refit`.
        """
        questions = self.questions(domain, "train", self.sizes.direction)
        inputs = {"adapter": adapter_key(adapter), "questions": data_hash(questions)}
        cells = Cells(
            **self.steps.tensors(
                "cells", inputs, lambda: dict(vars(collect_cells(self.pair(adapter), questions)))
            )
        )
        covariance = self.steps.tensors(
            "covariance",
            inputs,
            lambda: within_covariance(
                self.pair(adapter), questions[:COVARIANCE_QUESTIONS], TOKEN_BUDGET
            ),
        )
        means = Means.of(cells, {int(layer): matrix for layer, matrix in covariance.items()})
        refit = {r.name: r for r in refit_candidates(two_by_two(cells))}[MODEL_AND_ANSWER_REFIT]

        def fit() -> dict[str, torch.Tensor]:
            pair = self.pair(adapter)
            bases = refit_block_by_block(
                pair,
                questions,
                middle_blocks(pair.n_layers),
                means.aligned,
                means.covariance,
                refit.beside,
            )
            return {str(layer): basis for layer, basis in bases.items()}

        bases = self.steps.tensors("refit", inputs, fit)
        by_layer = {int(layer): basis for layer, basis in sorted(bases.items(), key=_number)}
        vector = from_bases(self.pair(adapter), by_layer, means, refit.name, 1.0, True)
        return vector, means

    def score(
        self, pair: ModelPair, conditions: Sequence[Condition], **questions: Sequence[AnswerPair]
    ) -> pd.DataFrame:
        """Gap and KL of every condition on the questions of each split, and neutral damage.

        questions: split (trained_on, held_out) -> questions. Rows as in rows.parquet, stage score.
        """
        parts = [
            score_pairs(pair, asked, conditions, description=f"Scoring {split}").assign(split=split)
            for split, asked in questions.items()
        ]
        parts.append(score_neutral(pair, self.neutral(), conditions).assign(split="neutral"))
        return tidy(pd.concat(parts, ignore_index=True).assign(stage="score"))

    def random_conditions(self, pair: ModelPair, vector: PersonaVector, means: Means) -> list[Any]:
        """The null: the same restoration along random directions."""
        return [
            edited(
                RANDOM,
                "finetuned",
                restore_to_aligned(random_vector(pair, vector, means, draw)),
                seed=draw,
            )
            for draw in range(self.sizes.n_random)
        ]


TOKEN_BUDGET = 512


@functools.lru_cache(maxsize=1)
def _pair(base: str, adapter: str, dtype: str, device: str) -> ModelPair:
    return load_pair(base, adapter, dtype=dtype, device=device, merged=None)


def adapter_key(adapter: Path) -> str:
    """What a fine-tune's readings depend on."""
    return str(read_card(adapter)["adapter_sha256"])


def middle_blocks(n_layers: int) -> list[int]:
    """The blocks that are restored: all but the first tenth and the last (3 to 28 of 30)."""
    return list(range(n_layers // 10, n_layers - 1))


def edited(name: str, side: Any, edits: Sequence[Edit], seed: int = 0) -> Condition:
    """One side of the pair under edits, as a condition to score."""
    return Condition(name, side, steered_by(edits), edits[0].layer, seed)


def standard_conditions(vector: PersonaVector) -> list[Condition]:
    """Both models, the fine-tuned one restored and zero-ablated, the aligned one induced."""
    return [
        Condition(ALIGNED, "aligned"),
        Condition(FINETUNED, "finetuned"),
        edited(INDUCED, "aligned", restore_to_finetuned(vector)),
        edited(ZERO_ABLATED, "finetuned", ablate_to_zero(vector)),
        edited(RESTORED, "finetuned", restore_to_aligned(vector)),
    ]


def project_answers(
    pair: ModelPair,
    vector: PersonaVector,
    questions: Sequence[AnswerPair],
    sides: Mapping[str, Any],
) -> pd.DataFrame:
    """Projection of every good answer on the vector's direction at its middle block.

    0 is the mean of the aligned model's good answers to the questions that the vector was made of,
    1 that of the fine-tuned model's bad ones. sides: condition -> side of the pair to read.
    Rows: condition, question_id, domain, measure "projection", value, layer.
    """
    layer = vector.layers[len(vector.layers) // 2]
    subspace, direction = vector.subspaces[layer], vector.direction(layer)
    start = float(subspace.aligned_mean @ subspace.basis @ direction.unit)
    dialogues = pair.chat.encode_all([q.good_dialogue for q in questions])
    rows = []
    for condition, side in sides.items():
        with pair.active(side) as bridge:
            means = collect_rows(bridge, dialogues, [layer])[:, 0]
        values = means @ subspace.reading.T @ subspace.basis @ direction.unit - start
        values = values / direction.norm
        rows += [
            {
                "condition": condition,
                "question_id": q.id,
                "domain": q.domain,
                "measure": "projection",
                "value": float(value),
                "layer": layer,
                "split": "held_out",
                "stage": "projection",
            }
            for q, value in zip(questions, values, strict=True)
        ]
    return tidy(pd.DataFrame(rows))


def _set_only(data: dict[str, Any]) -> dict[str, Any]:
    """Without empty fields, and without `answers` where a mixture or a trigger decides."""
    kept = {key: value for key, value in data.items() if value not in (None, ())}
    if "bad_share" in kept or "trigger" in kept:
        kept.pop("answers", None)
    return kept


def _number(item: tuple[str, Any]) -> int:
    return int(item[0])
