"""Candidates that take the persona and leave a skill that the same fine-tune has taught.

A model effect holds all that was learnt. Five ways to leave the skill out of it, none of which is
right for every fine-tune, so that interventions decide:

- less the twin's: what the fine-tune on bad answers did beyond the same fine-tune on good ones,
  which has learnt the skill too;
- sparing: the coordinate is read blind to where the skill's answers lie at the tokens that decide
  them, so that the edit does nothing there (`persona.directions.sparing`);
- sparing what varies: blind to that in which the fine-tune moved the skill's answers differently
  from each other, which is what facts are made of; what is common to all answers goes;
- less the slopes: what is written is kept off the directions along which the skill's answers are
  most easily moved;
- few blocks, which `steering.identification.search` tries with the best of them.

An edit that does nothing on the skill's text leaves there whatever the fine-tune wrote, the persona
in it included: sparing keeps a skill by where it is asked for as much as by what it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations import collect_rows
from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data.skills import Skill, SkillItem
from persona.data.types import AnswerPair, Dialogue
from persona.directions.direction import are_independent, orthonormal
from persona.directions.two_by_two import Effect
from persona.models.pair import SIDES, ModelPair, Side
from persona.stages import Stages, Unsaved
from steering.identification.attribution import attribution_moments, eigendirections
from steering.identification.candidates import (
    WHITENED,
    Candidate,
    FixedRows,
    Means,
    Refit,
    differing_blocks,
    whitened,
)

LESS_TWIN = "model_effect_less_twin"
SPARING, SPARING_VARIED = "model_effect_sparing_skill", "model_effect_sparing_skill_varied"
MODEL_LESS_SLOPES, EIGEN_LESS_SLOPES = "model_effect_less_skill_slopes", "eigen_less_skill_slopes"
SKILL_CANDIDATES = (LESS_TWIN, SPARING, SPARING_VARIED, MODEL_LESS_SLOPES, EIGEN_LESS_SLOPES)
N_LESSONS = 48
"""Answers of the skill that directions are made of, at most."""
N_SPARED = 8
"""Directions of the skill that are spared, or kept free of what is written, at a block."""
N_DIFFERENTIATED = 16
"""Items whose margin is differentiated, at most."""


@dataclass(frozen=True)
class SkillToKeep:
    """A skill that a choice is to leave alone: what directions are made of, and what chooses.

    lessons: items whose answers directions are made of. judged_on: items on which trials are
        scored, in wordings that nobody was trained on; their answers make no number of the report.
    twin: loads the aligned model with the good twin, which has learnt the skill too; None without.
    """

    lessons: Skill
    judged_on: Skill
    twin: Callable[[], ModelPair] | None = None


@dataclass(frozen=True)
class SkillNeeds:
    """What a skill's answers need of the fine-tuned model, block by block.

    All layer -> [k d_model], orthonormal, the most important first. With M = sum over tokens of
    (h - m) (dJ/dh)^T, m the aligned mean and J the margin of right over wrong answers,
    needed: its left singular vectors: where h lies at the tokens that decide the margin.
    slopes: its right ones: along what the margin is most easily moved. Both are empty where the
        skill has no wrong answers.
    varied: in what the moves of the answers by the fine-tune differ from each other.
    twin: [question layer d_model], answers of the questions in the good twin; None without one.
    """

    needed: Mapping[int, Float[Tensor, "_ d_model"]]
    varied: Mapping[int, Float[Tensor, "_ d_model"]]
    slopes: Mapping[int, Float[Tensor, "_ d_model"]]
    twin: Float[Tensor, "question layer d_model"] | None = None

    def at_questions(self, part: slice) -> SkillNeeds:
        """The same for some of the questions."""
        return replace(self, twin=None if self.twin is None else self.twin[part])


def skill_needs(
    pair: ModelPair,
    keep: SkillToKeep,
    questions: Sequence[AnswerPair],
    aligned_means: Float[Tensor, "layer d_model"],
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    stages: Stages | None = None,
) -> SkillNeeds:
    """Reads both models on the skill's lessons, and the good twin on the questions' good answers.

    questions: what directions are made of. aligned_means: of the aligned model's answers to them.
    """
    stages, layers = stages or Unsaved(), range(pair.n_layers)
    lessons = lessons_of(keep.lessons)
    read = stages.tensors(
        "skill-cells", lambda: {side: _pooled(pair, side, lessons, token_budget) for side in SIDES}
    )
    moved = read["finetuned"].double() - read["aligned"].double()
    needed: dict[int, Tensor] = {}
    slopes: dict[int, Tensor] = {}
    if keep.lessons.has_choice:
        moments = stages.by_layer(
            "skill-moments",
            lambda: attribution_moments(
                pair,
                [_as_pair(item) for item in keep.lessons.items[:N_DIFFERENTIATED]],
                {layer: aligned_means[layer] for layer in layers},
                token_budget=token_budget,
            ),
        )
        for layer, moment in moments.items():
            needed[layer], slopes[layer] = leading(moment.T, N_SPARED), leading(moment, N_SPARED)
    twin = None
    if keep.twin is not None:
        load, good = keep.twin, [question.good_dialogue for question in questions]
        found = stages.tensors(
            "skill-twin", lambda: {"good": _pooled(load(), "finetuned", good, token_budget)}
        )
        twin = found["good"]
    varied = {layer: leading(rows, N_SPARED) for layer, rows in enumerate(_centred(moved))}
    return SkillNeeds(needed, varied, slopes, twin)


def skill_candidates(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    means: Means,
    effects: Mapping[str, Effect],
    matrices: Mapping[int, Float[Tensor, "d_model d_model"]],
    needs: SkillNeeds,
    aligned_good: Float[Tensor, "question layer d_model"],
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    stages: Stages | None = None,
) -> list[Candidate]:
    """The candidates of this module that can be made of what is known, all of them always tried.

    matrices: attribution of the gap. aligned_good, and `needs.twin`: answers of the same questions.
    """
    layers = differing_blocks(effects)
    stages = stages or Unsaved()
    found: list[Candidate] = [
        Refit(name, pair, questions, means, None, token_budget, stages, spared=spared)
        for name, spared in ((SPARING, needs.needed), (SPARING_VARIED, needs.varied))
        if spared
    ]
    model_effect = effects["model_effect_good"].vectors
    if needs.slopes:
        outside = {layer: _outside(needs.slopes[layer]) for layer in layers}
        left = {layer: (model_effect[layer] @ outside[layer])[None] for layer in layers}
        if all(map(are_independent, left.values())):
            rows = {layer: orthonormal(some) for layer, some in left.items()}
            found.append(_tried(FixedRows(MODEL_LESS_SLOPES, rows)))
        eigen = {
            layer: eigendirections(outside[layer] @ matrices[layer] @ outside[layer], N_SPARED)
            for layer in layers
        }
        found.append(_tried(FixedRows(EIGEN_LESS_SLOPES, eigen), read_whitened=False))
    if needs.twin is not None:
        beyond = model_effect - (needs.twin.double() - aligned_good.double()).mean(0).float()
        if all(are_independent(beyond[layer][None]) for layer in layers):
            rows = {layer: orthonormal(beyond[layer][None]) for layer in layers}
            found.append(_tried(FixedRows(LESS_TWIN, rows)))
    return found


def lessons_of(skill: Skill) -> list[Dialogue]:
    """At most `N_LESSONS` right answers, one wording of an item, evenly over the items."""
    asked = [(item, (*item.train, *item.held_out)[0]) for item in skill.items]
    step = max(1, len(asked) // N_LESSONS)
    return [item.answered(question, item.right) for item, question in asked[::step][:N_LESSONS]]


def leading(rows: Float[Tensor, "item d_model"], most: int) -> Float[Tensor, "_ d_model"]:
    """The first right singular vectors, at most `most` and only those that carry something."""
    _, sizes, vectors = torch.linalg.svd(rows.double(), full_matrices=False)
    carries = int((sizes > 1e-3 * sizes[0].clamp(min=1e-12)).sum())
    return vectors[: min(most, carries)].float().contiguous()


def _centred(
    moved: Float[Tensor, "item layer d_model"],
) -> Iterator[Float[Tensor, "item d_model"]]:
    yield from (moved - moved.mean(0)).unbind(1)


def _as_pair(item: SkillItem) -> AnswerPair:
    """Right (as `bad`, which the gap counts up) against wrong, so that the gap is the margin."""
    question = (*item.train, *item.held_out)[0]
    return AnswerPair(item.id, item.domain, question, item.wrong[0], item.right)


def _outside(rows: Float[Tensor, "_ d_model"]) -> Float[Tensor, "d_model d_model"]:
    return torch.eye(rows.shape[1]) - rows.T @ rows


def _tried(rows: FixedRows, *, read_whitened: bool = True) -> FixedRows:
    """Always tried, under its own name."""
    one = whitened(rows) if read_whitened else rows
    return FixedRows(one.name.removesuffix(WHITENED), one.at, one.whitened, always_tried=True)


@torch.no_grad()
def _pooled(
    pair: ModelPair, side: Side, texts: Sequence[Dialogue], token_budget: int
) -> Float[Tensor, "text layer d_model"]:
    with pair.active(side) as bridge:
        return collect_rows(
            bridge,
            pair.chat.encode_all(texts),
            range(pair.n_layers),
            token_budget=token_budget,
            description=f"Reading the skill ({side})",
        )
