"""A persona vector for any trait: what it is made of, how it is made, and the verdict on it."""

from persona.traits.answer_plan import TraitPlan, plan_answers
from persona.traits.artefacts import (
    TraitArtefacts,
    read_artefacts,
    require_description,
    write_trait,
)
from persona.traits.check import Fault, faults_of, require_sound
from persona.traits.choosing_artefacts import ChosenArtefacts, choose_artefacts
from persona.traits.comparing import (
    KeptTrait,
    PersonaSpace,
    QuestionDifferences,
    Resemblance,
    open_trait,
    open_traits,
    persona_space,
    resemblance,
)
from persona.traits.kept_answers import shuffled_poles
from persona.traits.making import make_trait
from persona.traits.shipped_traits import NONSENSE, PUBLISHED, shipped_trait
from persona.traits.trait_facts import PoleTexts, SteeredEffect, TraitFacts, TraitReading
from persona.traits.trait_judge import TraitJudge, trait_judge_named
from persona.traits.trait_verdict import Verdict, verdict_on
from persona.traits.writers import EndpointWriter, ModelWriter, Writer, writer_named

__all__ = [
    "NONSENSE",
    "PUBLISHED",
    "ChosenArtefacts",
    "EndpointWriter",
    "Fault",
    "KeptTrait",
    "ModelWriter",
    "PersonaSpace",
    "PoleTexts",
    "QuestionDifferences",
    "Resemblance",
    "SteeredEffect",
    "TraitArtefacts",
    "TraitFacts",
    "TraitJudge",
    "TraitPlan",
    "TraitReading",
    "Verdict",
    "Writer",
    "choose_artefacts",
    "faults_of",
    "make_trait",
    "open_trait",
    "open_traits",
    "persona_space",
    "plan_answers",
    "read_artefacts",
    "require_description",
    "require_sound",
    "resemblance",
    "shipped_trait",
    "shuffled_poles",
    "trait_judge_named",
    "verdict_on",
    "write_trait",
    "writer_named",
]
