"""What was measured of a trait's vector, on questions that made and chose nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from persona.intervals import Estimate


@dataclass(frozen=True)
class PoleTexts:
    """Answers of both poles. shows: whether each was drawn for the trait. questions: their ids."""

    answers: Sequence[str]
    shows: NDArray[np.bool_]
    questions: Sequence[str]


@dataclass(frozen=True)
class TraitReading:
    """How well the poles are told apart where no instruction is read; n counts questions.

    vector, words, length: AUROC of projections, of a bag of words, of lengths.
    beyond_words, beyond_length: the vector's AUROC less the baseline's.
    shuffled_p97_5: of the vector's AUROC, the poles of each question swapped by a coin. p_value:
        (1 + swaps as good) / (1 + their number).
    held_out_cosine: between the vector and the mean difference of the answers that prove it.
    made_of_shuffled_p97_5: of that cosine, of vectors made of shuffled poles.
    """

    vector: Estimate
    words: Estimate
    length: Estimate
    beyond_words: Estimate
    beyond_length: Estimate
    shuffled_p97_5: float
    p_value: float
    held_out_cosine: float
    made_of_shuffled_p97_5: float


@dataclass(frozen=True)
class SteeredEffect:
    """What steering does to the trait score, in the direction hoped for, beside its controls.

    net: over questions, the vector's effect less the mean of the controls'. at_equal_length: the
        same with the score's dependence on length taken out.
    value: the vector's effect. controls: the effect of each control, by its name.
    """

    net: Estimate
    at_equal_length: Estimate
    value: float
    controls: dict[str, float]

    @property
    def is_beyond_controls(self) -> bool:
        return self.net.low > 0 and all(self.value > c for c in self.controls.values())


@dataclass(frozen=True)
class TraitFacts:
    """What the verdict is made of.

    n_pairs: pairs of answers that the vector was made of. n_judged: answers of a pole that the
        judge scored on the proving questions.
    prompted: how much higher the score is under the instruction for the trait than against it.
    spread: standard deviation of the score from answer to answer within a pole.
    induction: added to the plain model. suppression: taken away under the instruction.
    """

    n_pairs: int
    n_judged: int
    prompted: Estimate
    spread: float
    reading: TraitReading
    induction: SteeredEffect
    suppression: SteeredEffect
