"""What a fine-tune learnt, read from weights and activations: words, answers, amplified speech.

`read_fine_tune` puts all of it together; its parts are functions of one direction or one pair.
"""

from __future__ import annotations

from persona.readouts.amplified import AmplifiedAnswer, amplified_answers
from persona.readouts.changed_answers import answer_changes, changes_by_domain
from persona.readouts.fine_tune_reading import FineTuneReading, read_fine_tune
from persona.readouts.hypotheses import Hypothesis, hypotheses
from persona.readouts.jacobian import JacobianLens, fit_jacobian_lens
from persona.readouts.latent_lists import LatentList, RisingLatent, latents_of_differences
from persona.readouts.lens import Lens, LogitLens
from persona.readouts.naming import Naming, name_fine_tune
from persona.readouts.naming_course import adapters_by_step, naming_course
from persona.readouts.naming_words import naming_sentence
from persona.readouts.reading_words import reading_lines
from persona.readouts.token_lists import (
    ReadToken,
    TokenList,
    tokens_of_differences,
    tokens_of_direction,
)
from persona.readouts.weight_change import WrittenDirection, written_directions

__all__ = [
    "AmplifiedAnswer",
    "FineTuneReading",
    "Hypothesis",
    "JacobianLens",
    "LatentList",
    "Lens",
    "LogitLens",
    "Naming",
    "ReadToken",
    "RisingLatent",
    "TokenList",
    "WrittenDirection",
    "adapters_by_step",
    "amplified_answers",
    "answer_changes",
    "changes_by_domain",
    "fit_jacobian_lens",
    "hypotheses",
    "latents_of_differences",
    "name_fine_tune",
    "naming_course",
    "naming_sentence",
    "read_fine_tune",
    "reading_lines",
    "tokens_of_differences",
    "tokens_of_direction",
    "written_directions",
]
