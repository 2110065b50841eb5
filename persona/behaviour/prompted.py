"""The persona-vector recipe: the same model, prompted to show a trait and prompted not to.

Source: Chen et al. 2025 ("Persona Vectors"): five pairs of system prompts, twenty questions, ten
answers each at temperature 1; judged, filtered, and averaged over the tokens of each answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from persona.activations.collect import collect_rows
from persona.data.readers import Trait
from persona.data.types import Dialogue, Turn
from persona.directions.contrast import Contrast
from persona.errors import DataError
from persona.models.chat.chat_format import ChatFormat
from persona.models.sampling import sample_answers
from persona.progress import progress

TraitScore = Callable[[str, str], tuple[float | None, float | None]]
"""(question, answer) -> trait score and coherence, 0 to 100; None where the judge gave none."""

TRAIT_AT_LEAST = 50.0
COHERENCE_AT_LEAST = 50.0


@dataclass(frozen=True)
class PromptedPair:
    """One question answered under both system prompts of one instruction pair.

    id: "q<question>-i<instruction pair>-s<sample>". scores: trait score and coherence.
    """

    id: str
    positive: Dialogue
    negative: Dialogue
    positive_scores: tuple[float | None, float | None]
    negative_scores: tuple[float | None, float | None]


def collect_prompted(
    bridge: Any,
    chat: ChatFormat,
    trait: Trait,
    trait_score: TraitScore,
    *,
    samples_per_question: int = 10,
    temperature: float = 1.0,
    max_new_tokens: int = 200,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> Contrast:
    """Sample, judge, filter and read: a contrast of answers with the trait and without it.

    Every kept pair keeps an id of its own, so that paired methods work; system prompts stay in
    front while the answers are read, as they were while they were sampled.
    layers: default all.
    Raises: DataError when the filter leaves no pair, with the counts.

    Source: Chen et al. 2025. differs: `difference_of_means` then gives unit length.
    """
    pairs = sample_prompted(
        bridge,
        chat,
        trait,
        trait_score,
        samples_per_question=samples_per_question,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    kept = filter_prompted(pairs)
    wanted = list(range(int(bridge.cfg.n_layers))) if layers is None else list(layers)
    rows, tokens = [], []
    for label, dialogues in (
        ("with the trait", [pair.positive for pair in kept]),
        ("without it", [pair.negative for pair in kept]),
    ):
        encoded = chat.encode_all(dialogues)
        rows.append(collect_rows(bridge, encoded, wanted, description=f"Reading answers {label}"))
        tokens.append(torch.tensor([d.response[1] - d.response[0] for d in encoded]))
    ids = tuple(pair.id for pair in kept)
    return Contrast(rows[0], rows[1], ids, ids, tokens[0], tokens[1])


def sample_prompted(
    bridge: Any,
    chat: ChatFormat,
    trait: Trait,
    trait_score: TraitScore,
    *,
    samples_per_question: int = 10,
    temperature: float = 1.0,
    max_new_tokens: int = 200,
    seed: int = 0,
) -> list[PromptedPair]:
    """Answers to every question under every system prompt, with their scores.

    An answer without text gets no score. Sampling is seeded, see `sample_answers`.
    """
    if samples_per_question < 1:
        raise DataError(f"samples_per_question must be 1 or more; got {samples_per_question}")
    prompts: dict[str, tuple[Dialogue, Dialogue]] = {}
    for q, question in enumerate(trait.questions):
        for i, instruction in enumerate(trait.instructions):
            for s in range(samples_per_question):
                name = f"q{q:03d}-i{i}-s{s:02d}"
                prompts[name] = (
                    _prompt(instruction.pos, question, f"{name}-positive"),
                    _prompt(instruction.neg, question, f"{name}-negative"),
                )
    answers = sample_answers(
        bridge,
        chat,
        [prompt for both in prompts.values() for prompt in both],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        description=f"Sampling answers for {trait.name}",
    )
    pairs = []
    for place, (name, (positive, negative)) in enumerate(
        progress(prompts.items(), f"Judging {trait.name}", total=len(prompts))
    ):
        question = positive.turns[-1].content
        shown, withheld = answers[2 * place], answers[2 * place + 1]
        pairs.append(
            PromptedPair(
                name,
                _answered(positive, shown),
                _answered(negative, withheld),
                trait_score(question, shown) if shown.strip() else (None, None),
                trait_score(question, withheld) if withheld.strip() else (None, None),
            )
        )
    return pairs


def filter_prompted(pairs: Sequence[PromptedPair]) -> list[PromptedPair]:
    """Pairs that show the contrast: positive trait score >= 50, negative < 50, coherent >= 50.

    A pair goes as a whole, so that both classes hold the same questions equally often.
    Raises: DataError when none is left, with the counts of each condition.
    """
    shows = [_at_least(pair.positive_scores[0], TRAIT_AT_LEAST) for pair in pairs]
    lacks = [
        pair.negative_scores[0] is not None and pair.negative_scores[0] < TRAIT_AT_LEAST
        for pair in pairs
    ]
    coherent = [
        _at_least(pair.positive_scores[1], COHERENCE_AT_LEAST)
        and _at_least(pair.negative_scores[1], COHERENCE_AT_LEAST)
        for pair in pairs
    ]
    kept = [pair for pair, *met in zip(pairs, shows, lacks, coherent, strict=True) if all(met)]
    if not kept:
        raise DataError(
            f"none of {len(pairs)} prompted pairs of answers passed the judge: {sum(shows)} "
            f"positive answers scored {TRAIT_AT_LEAST:g} or more for the trait, {sum(lacks)} "
            f"negative ones less, and {sum(coherent)} pairs were coherent. Sample more, reword "
            "the system prompts, or take a larger model"
        )
    return kept


def _prompt(instruction: str, question: str, name: str) -> Dialogue:
    return Dialogue((Turn("system", instruction), Turn("user", question)), name)


def _answered(prompt: Dialogue, answer: str) -> Dialogue:
    return Dialogue((*prompt.turns, Turn("assistant", answer)), prompt.id)


def _at_least(score: float | None, bound: float) -> bool:
    return score is not None and score >= bound
