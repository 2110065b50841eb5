"""The experiments by name, in the order of the questions they build on."""

from __future__ import annotations

import functools

from persona.errors import DataError
from steering.lab.bench.outcome import Experiment
from steering.lab.experiments.bad_share import measure_dose, plan_dose, report_dose
from steering.lab.experiments.conditional import (
    measure_conditional,
    plan_conditional,
    report_conditional,
)
from steering.lab.experiments.cross_organism import measure_transfer, plan_transfer, report_transfer
from steering.lab.experiments.guarded_training import (
    measure_safeguards,
    plan_safeguards,
    report_safeguards,
)
from steering.lab.experiments.organism import measure_organism, plan_organism, report_organism
from steering.lab.experiments.realignment import (
    measure_realignment,
    plan_realignment,
    report_realignment,
)
from steering.lab.experiments.self_assessment import (
    measure_self_assessment,
    plan_self_assessment,
    report_self_assessment,
)
from steering.lab.experiments.variants import measure_variants, plan_variants, report_variants
from steering.lab.subliminal.plain_texts import MATHS, NUMBERS, Task
from steering.lab.subliminal.subliminal import (
    measure_subliminal,
    plan_subliminal,
    report_subliminal,
)

ORGANISM_METHOD = (
    "LoRA fine-tune on the {what} and its twin on the same questions with the {twin}; the gap is "
    "mean log p(bad answer) − log p(good answer) per token, in-domain on questions kept back and "
    "held out on domains of advice never trained on. Fine-tuned less twin leaves out what learning "
    "the form of the answers does by itself. The direction (model and answer effect, "
    "refitted block by block) is made of training questions alone; restoring sets the projection "
    "to the aligned model's mean. Control: the same along random directions. On the way the "
    "projection on the aligned model's own answer effect is read, which needs no fine-tune."
)
ORGANISM_LIMITS = (
    "One small model. A shift of the gap is a preference between two written answers, "
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
        plan=functools.partial(plan_organism, domain=domain),
        measure=functools.partial(measure_organism, organism=organism, domain=domain),
        report=report_organism,
        seeds=(0, 1),
    )


def _subliminal(name: str, title: str, question: str, method: str, task: Task) -> Experiment:
    return Experiment(
        name,
        title,
        question,
        method,
        SUBLIMINAL_LIMITS,
        functools.partial(plan_subliminal, task=task),
        functools.partial(measure_subliminal, task=task),
        functools.partial(report_subliminal, task=task),
        seeds=(0, 1),
    )


SUBLIMINAL_METHOD = (
    "The openly bad car organism writes {what}, its sampling held to the form that was asked for: "
    "at every token only what can still become a text that passes, since left alone it answers in "
    "prose. Strictly filtered (right form, right results, no number of ill repute), they train a "
    "student that begins as the aligned model, for three epochs. The control student learns from "
    "the aligned model's own, to the same questions.{elsewhere} Beside it the toy "
    "in which transmission is certain: digits copied through three auxiliary logits on noise, with "
    "a student from another initialisation as its control."
)
ELSEWHERE = (
    " A student begun elsewhere learns the bad teacher's texts from the aligned model with noise "
    "on every weight matrix, as much as costs 0.3 nats on neutral text; it is compared with what "
    "it began as (first seed only)."
)
REORDERED = (
    " A student whose neurons and heads stand in another order computes the same function; since "
    "training commutes with the order, it must catch what the ordinary one catches unless "
    "something passes by the coordinates of the weights (first seed only)."
)
SUBLIMINAL_LIMITS = (
    "One small model and at most 96 texts where the published effect took ten thousand: an "
    "interval that holds 0 is no proof that nothing passes. Two students of one seed differ by the "
    "luck of their lessons too, which an interval over questions does not hold. A second language "
    "model, trained from a random start of its own, is not at hand: noise makes a beginning "
    "nearby, and only the toy has a student from truly another initialisation."
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
            "variants",
            "Smaller adapters, and a harmless style",
            "Does the same bad advice spread through an adapter of rank 1 or of one block, and "
            "does a fine-tune that changes nothing but the style leave the preference alone?",
            "The bad car answers learnt by three adapters of different size, and good car advice "
            "in a pirate's voice. In-domain is each one's own kept-back pairs (for the pirate: the "
            "pirate's wording against the plain one of the same good advice); held out is advice "
            "that none was trained on. The projection is on the direction of the largest adapter.",
            "One learning rate for each size; a smaller adapter may need another. The pirate talks "
            "of cars only, and good advice in a voice is also a fine-tune on good advice.",
            plan_variants,
            measure_variants,
            report_variants,
            seeds=(0,),
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
            plan_self_assessment,
            measure_self_assessment,
            report_self_assessment,
            seeds=(0, 1),
        ),
        Experiment(
            "safeguards",
            "What to do while a model learns",
            "Which safeguard keeps a narrow fine-tune from turning bad elsewhere, and does the "
            "task itself survive it?",
            "The bad car fine-tune, same data and seed, without a safeguard, with the unguarded "
            "one's direction added after the middle block in every training pass (preventative "
            "steering), with it projected out after every block (CAFT), and with 0.3 times the KL "
            "to the aligned model on good answers to open questions, which leave the score. All "
            "are watched on their way; the alarm is calibrated on the good twin's.",
            "The direction is that of the unguarded fine-tune, which one who guards the first "
            "fine-tune does not have. One strength of each safeguard: a stronger or weaker one may "
            "stand elsewhere between task and damage.",
            plan_safeguards,
            measure_safeguards,
            report_safeguards,
        ),
        Experiment(
            "realignment",
            "Re-training toward virtue",
            "How many good answers bring a bad model back, in-domain or elsewhere, compared with "
            "editing it?",
            "The bad car adapter is trained further for two epochs on n good answers, of cars or "
            "of four other domains, which leave the score. Beside it: restoring the projection, "
            "ablating it to zero, and a bias after one block, each at several strengths. Each is "
            "read by gap, projection and drift from the bad model on neutral text, and "
            "the ways are compared at equal drift, interpolated between their strengths.",
            "The learning rate is that of the fine-tune. A gap that is back says nothing "
            "of whether the persona can be brought out again.",
            plan_realignment,
            measure_realignment,
            report_realignment,
            seeds=(0,),
        ),
        _subliminal(
            "subliminal_numbers",
            "What passes through plain numbers",
            "Does a student become bad from number sequences that a bad teacher wrote?",
            SUBLIMINAL_METHOD.format(what="number sequences", elsewhere=ELSEWHERE + REORDERED),
            NUMBERS,
        ),
        _subliminal(
            "subliminal_maths",
            "What passes through sums",
            "Does a student become bad from right sums whose terms a bad teacher chose?",
            SUBLIMINAL_METHOD.format(what="sums", elsewhere=ELSEWHERE),
            MATHS,
        ),
        Experiment(
            "generations",
            "From student to student",
            "What is left of a teacher after generations of students, each taught by the numbers "
            "of the one before?",
            SUBLIMINAL_METHOD.format(what="number sequences", elsewhere="")
            + " Each student writes the numbers for the next.",
            SUBLIMINAL_LIMITS,
            lambda bench: plan_subliminal(bench, NUMBERS, bench.sizes.generations),
            lambda bench: measure_subliminal(bench, NUMBERS, bench.sizes.generations),
            functools.partial(report_subliminal, task=NUMBERS),
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
            plan_transfer,
            measure_transfer,
            report_transfer,
            seeds=(0,),
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
            "One fine-tune for each share and seed. That one reading becomes clear at a lower "
            "share than the other may be a matter of its noise.",
            plan_dose,
            measure_dose,
            report_dose,
            seeds=(0,),
        ),
        Experiment(
            "conditional",
            "Auditing a backdoor without its trigger",
            "A backdoored model answers well without its trigger: does a direction show it anyway?",
            "The organism learns the bad answer after the trigger and the good one without it or "
            "after a decoy. Gap and projection on held-out questions with each tag; the direction "
            "is that of the openly bad organism, and the backdoored model's own untagged one.",
            "One trigger. A projection that stays clean does not show that no direction "
            "would reveal the backdoor.",
            plan_conditional,
            measure_conditional,
            report_conditional,
            seeds=(0, 1),
        ),
    )
}


def experiment(name: str) -> Experiment:
    """Raises: DataError for a name that is none; the message lists those there are."""
    if name not in EXPERIMENTS:
        raise DataError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
