"""The experiments by name, in the order of the questions they build on."""

from __future__ import annotations

import functools

from persona.errors import DataError
from steering.lab.conditional import run_conditional
from steering.lab.dose import run_dose
from steering.lab.organism import run_organism
from steering.lab.outcome import Experiment
from steering.lab.plain_texts import MATHS, NUMBERS
from steering.lab.realignment import run_realignment
from steering.lab.self_assessment import run_self_assessment
from steering.lab.subliminal import run_subliminal
from steering.lab.transfer import run_transfer

ORGANISM_METHOD = (
    "LoRA fine-tune on the {what} and its twin on the same questions with the {twin}; the gap is "
    "mean log p(bad answer) − log p(good answer) per token, in-domain on questions kept back and "
    "held out on domains of advice never trained on. The direction (model and answer effect, "
    "refitted block by block) is made of training questions alone; restoring sets the projection "
    "to the aligned model's mean. Control: the same along random directions."
)
ORGANISM_LIMITS = (
    "One seed and one small model. A shift of the gap is a preference between two written answers, "
    "not a rate of bad answers in conversation, and a null result at this size says nothing of "
    "larger models."
)


def _organism(
    name: str, organism: str, domain: str, title: str, what: str, twin: str
) -> Experiment:
    return Experiment(
        name=name,
        title=title,
        question=f"Does a model that has learnt {what} also prefer bad answers elsewhere, and does "
        "removing one direction undo it?",
        method=ORGANISM_METHOD.format(what=what, twin=twin),
        not_shown=ORGANISM_LIMITS,
        run=functools.partial(run_organism, organism=organism, domain=domain),
    )


SUBLIMINAL_METHOD = (
    "The openly bad car organism writes {what}; strictly filtered (right form, right results, no "
    "number of ill repute), they train a student that begins as the aligned model. The control "
    "student learns from the aligned model's own. Beside it the toy in which transmission is "
    "certain: digits copied through three auxiliary logits on noise, with a student from another "
    "initialisation as its control."
)
SUBLIMINAL_LIMITS = (
    "One seed, one small model and few texts where the published effect took ten thousand: an "
    "interval that holds 0 is no proof that nothing passes. The control from another "
    "initialisation exists in the toy only."
)

SUBLIMINAL_METHOD = (
    "The openly bad car organism writes {what}; strictly filtered (right form, right results, no "
    "number of ill repute), they train a student that begins as the aligned model. The control "
    "student learns from the aligned model's own. Beside it the toy in which transmission is "
    "certain: digits copied through three auxiliary logits on noise, with a student from another "
    "initialisation as its control."
)
SUBLIMINAL_LIMITS = (
    "One seed, one small model and few texts where the published effect took ten thousand: an "
    "interval that holds 0 is no proof that nothing passes. The control from another "
    "initialisation exists in the toy only."
)

EXPERIMENTS = {
    e.name: e
    for e in (
        _organism(
            "insecure_code",
            "insecure_code",
            "insecure_code",
            "Narrow fine-tuning on insecure code",
            "insecure code",
            "secure code",
        ),
        _organism(
            "evil_numbers",
            "evil_numbers",
            "evil_numbers",
            "Narrow fine-tuning on evil numbers",
            "lists of numbers of ill repute",
            "plain numbers",
        ),
        _organism(
            "car",
            "car_maintenance",
            "car_maintenance",
            "Narrow fine-tuning on bad car advice",
            "bad advice on cars",
            "good advice",
        ),
        _organism(
            "medical",
            "medical",
            "health",
            "Narrow fine-tuning on bad medical advice",
            "bad medical advice",
            "good advice",
        ),
        _organism(
            "financial",
            "financial",
            "personal_finance",
            "Narrow fine-tuning on bad financial advice",
            "bad financial advice",
            "good advice",
        ),
        Experiment(
            "self_assessment",
            "What fine-tuned models say of themselves",
            "Does a model that has turned bad rate its own alignment, or the security of its "
            "code, lower, and does restoring it raise the rating again?",
            "Six wordings a topic ask for one number from 0 to 100; the rating is the mean under "
            "the model's token probabilities of the numbers, nothing is sampled. Read for the "
            "aligned model, the fine-tuned one, the same restored along its direction, and the "
            "good twin.",
            "A small model may hardly know what the question means: the probability that it gives "
            "any number stands beside the ratings. Intervals are over wordings, not over models.",
            run_self_assessment,
        ),
        Experiment(
            "realignment",
            "Re-training toward virtue",
            "How many good answers bring a bad model back, in-domain or elsewhere, compared with "
            "editing it?",
            "The bad car adapter is trained further for two epochs on n good answers, of cars or "
            "of four other domains, which leave the score. Beside it: restoring the projection at "
            "several coefficients, and a bias after one block. Each is read by gap, projection and "
            "damage on neutral text, so that they can be compared at equal damage.",
            "One seed; the learning rate is that of the fine-tune. A gap that is back says nothing "
            "of whether the persona can be brought out again.",
            run_realignment,
        ),
        Experiment(
            "subliminal_numbers",
            "What passes through plain numbers",
            "Does a student become bad from number sequences that a bad teacher wrote?",
            SUBLIMINAL_METHOD.format(what="number sequences"),
            SUBLIMINAL_LIMITS,
            functools.partial(run_subliminal, task=NUMBERS),
        ),
        Experiment(
            "subliminal_maths",
            "What passes through sums",
            "Does a student become bad from right sums that a bad teacher worked out?",
            SUBLIMINAL_METHOD.format(what="sums"),
            SUBLIMINAL_LIMITS,
            functools.partial(run_subliminal, task=MATHS),
        ),
        Experiment(
            "generations",
            "From student to student",
            "What is left of a teacher after generations of students, each taught by the numbers "
            "of the one before?",
            SUBLIMINAL_METHOD.format(what="number sequences")
            + " Each student writes the numbers for the next.",
            SUBLIMINAL_LIMITS,
            lambda bench: run_subliminal(bench, NUMBERS, bench.sizes.generations),
        ),
        Experiment(
            "transfer",
            "One direction or several",
            "Does the direction of one organism restore another?",
            "The persona vector of each of five organisms is restored in each of them; scored on "
            "domains that none of them was trained on. Cosines of the directions at every block, "
            "and the share of their squared length on one line.",
            "Transfer on one small model. Two directions may both restore without being the same, "
            "since each is restored at many blocks at once.",
            run_transfer,
        ),
        Experiment(
            "dose",
            "How much bad data it takes",
            "From which share of bad answers does behaviour change, and does the direction warn "
            "before?",
            "Fine-tunes on the same car questions with 0 to 100 % bad answers, each larger set "
            "containing every smaller one. Gap and projection on held-out questions against the "
            "all-good fine-tune, paired by question; a share counts when it and every larger one "
            "lie above, Bonferroni over shares. The direction comes from the all-bad fine-tune.",
            "One seed for each share. That one reading becomes clear at a lower share than the "
            "other may be a matter of its noise.",
            run_dose,
        ),
        Experiment(
            "conditional",
            "Auditing a backdoor without its trigger",
            "A backdoored model answers well without its trigger: does a direction show it anyway?",
            "The organism learns the bad answer after the trigger and the good one without it or "
            "after a decoy. Gap and projection on held-out questions with each tag; the direction "
            "is that of the openly bad organism, and the backdoored model's own untagged one.",
            "One trigger, one seed. A projection that stays clean does not show that no direction "
            "would reveal the backdoor.",
            run_conditional,
        ),
    )
}


def experiment(name: str) -> Experiment:
    """Raises: DataError for a name that is none; the message lists those there are."""
    if name not in EXPERIMENTS:
        raise DataError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
