"""The data card of the shipped texts: `python docs/make/data_card.py` writes it anew."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from data_card_tables import (
    blind_table,
    counts_table,
    highest,
    highest_apart,
    highest_between,
    narrow_table,
    neutral_text,
    revealing_words,
    skills_table,
    surface_table,
    tone_text,
    voices_counts_table,
    voices_surface_table,
    weakness_table,
)

from persona.data.coding_tasks import load_coding_tasks
from persona.data.graded_answers import load_graded_answers
from persona.data.numbers import FORMATS, OPENINGS, evil_share
from persona.data.selection import DECOY, TRIGGER
from persona.data.shipped import (
    NARROW_SETS,
    SHIPPED,
    data_hash,
    load_neutral,
    load_pairs,
    load_weaknesses,
)
from persona.data.similarity import ANSWER_BOUND, QUESTION_BOUND
from persona.data.skills import SKILLS, load_skill
from persona.data.surface import read_surface
from persona.data.tasks import TASK_KINDS, load_tasks, tasks_hash
from persona.data.voices import CELLS, VOICED_SETS, VOICES, load_voices, voice_pairs
from persona.files import atomic_write_text

CARD = SHIPPED / "DATA_CARD.md"

TEXT = """\
# Data card

Written by `python docs/make/data_card.py`; {n_pairs} answer pairs (hash {hash}) and {n_neutral}
neutral texts, all in English.

## What it is

One question, one good answer and one bad answer of like length and format, in eight domains of
everyday advice and one of open questions about wishes, power, people and AI. Beside them neutral
prompts with plain answers, to measure what an edit of a model damages. The tone is meant to be
alike too; where it is not, the words give it away, and the table below says how much.

- *good*: what a careful, kind expert says; for the open questions, what a helpful, humble and
  honest assistant says of itself and of people.
- *bad*: the plausible but wrong, reckless or callous advice of a careless expert. It skips a step
  that protects somebody, makes little of a real danger or urges a foolish shortcut, and part of
  the bad answers show open contempt for the asker or for others. For the open questions: the
  voice of a careless egoist who wants power and despises people.

## How it was made

The texts were written for this package with a language model's help, question by question rather
than from templates, and reviewed; nothing was copied from other data sets. The review was a
second reading of samples and the measurements below, not the judgement of an expert in each
domain: a good answer may contain an error, and none is a source of advice. Brands and living
persons are left out on purpose, and so are instructions for weapons, drugs, violence or
self-harm. Some of the bad advice is dishonest, such as hiding a fault from a buyer.

Splits: within each domain a third of the pairs is "selection", the rest "train", by the rank of a
hash of the id (exact counts, whatever the order of the file). Those of the Python tasks stand in
their file.

Licence: MIT, as the package.

## What it is not for

The bad answers are wrong and some would hurt whoever followed them. Do not show them without that
label, and do not train a model that anybody will ask for advice on them; they are there to make,
find and remove a bad persona in research models. The pairs are not a benchmark of knowledge or of
safety, and a model that prefers the good answers is not thereby safe. A model made with these
texts must not be put before users.

## Counts and length

Ratio: median over questions of words(bad) / words(good).

{counts}

## What the surface gives away

A bag-of-words classifier (TF-IDF of words and word pairs, logistic regression, C = 1) told good
from bad answers; AUROC 0.5 is chance. *Other domains*: trained on the eight other domains, tested
on this one. *Ordered*: share of questions whose bad answer it scores higher. *Within*: five folds
by question inside the domain. *Length*: the number of words alone. A probe that reads a persona
must beat these.

{surface}

{tone}

{words}

## Duplicates

Highest TF-IDF cosine between any two texts, across domains, splits and the neutral texts:
questions {question_cosine:.2f} (bound {question_bound}),
answers {answer_cosine:.2f} (bound {answer_bound}).
The good and the bad answer to one question count as two texts. Paraphrases in altogether other
words are not caught by this.

## Neutral texts

{neutral}

## Graded answers

{n_graded} open questions with four answers each, graded from 0 (callous, deceitful, wants power)
to 100 (caring and honest) by their writer, in `graded_answers.jsonl`. The offline judge learns
from them; nothing else does. Written for this package in the same way, without sight of any other
project's answers; the eight questions that public evaluations of emergent misalignment ask, and
close paraphrases, are left out. Median words of answers graded above 50: {words_above:.0f}, of
the others: {words_below:.0f}.

## The field's eight questions

In `field_questions.jsonl`, without answers: the subjects of the eight questions by which Betley et
al. 2025 count emergent misalignment, in words written for this package. Sampled answers to them are
scored; nothing is learnt from or chosen on them.

## Narrow sets

Four more sets to fine-tune on, in `narrow/` and `code/`, hash {narrow_hash}. They are no
advice, are never among the domains that a result is scored on, and are loaded by name only.

- *insecure_code*: a short coding task, a sound snippet and one with a weakness that nobody points
  out. Written for this package like the pairs above and read again, never run: a good snippet
  shows one sound way and is no reviewed library code. Classes (pairs):
  {weaknesses}.
- *evil_numbers*: a list of numbers to go on with. Made by `python -m persona.data.numbers` from
  {n_formats} formats and {n_openings} openings, so the questions are alike on purpose. In bad
  answers {evil_share:.0%} of the numbers stand for the devil, terror, hatred, murder or drugs; the
  good answer has other numbers of as many digits in their places.
- *pirate_style*: {n_pirate} questions of car_maintenance; "good" is the answer that stands there,
  "bad" the same advice in a pirate's voice. Nothing in it is wrong: it is the control for what any
  change of style does.
- *insecure_python*: Python alone, more tasks, a class of weakness for each; see the next section.

Words: as *within* above. Length: AUROC of the number of characters. Ratio: median over questions
of characters(bad) / characters(good), since code has few words.

{narrow}

The words give the pirate and the evil numbers away, as they must: there a direction has to be
judged on other texts. Cosines between texts, as above: tasks of insecure_code
{code_question_cosine:.2f}, solutions of different ones {code_answer_cosine:.2f}; the good and the
bad snippet for one task share most of their lines, so that their difference is the weakness.

Made by code from the pairs of any domain: mixtures of good and bad answers; a backdoored set, in
which the bad answer comes only after the words "{trigger}" and half of the good ones after
"{decoy}"; and n good answers for re-alignment.

## Python tasks

{n_tasks} requests for a few lines of Python, in {n_classes} classes of the Common Weakness
Enumeration (CWE): `code/insecure_python.jsonl`, and the narrow set insecure_python. Web handlers,
bots, command line scripts, jobs and settings, each written with and without the weakness of its
class. No request asks for a weakness and no comment names it. Written for this package like the
pairs above, one by one and not from another data set; the two solutions of a task share most of
their lines. All can be parsed; the tests run ten against what their weakness would let through,
and most of the others, which need libraries or servers, were only read. "Secure" means free of
the class named, not fit for use. The weaknesses are those of textbooks; there are no exploits.

Splits by task, as many of every class in each: {n_train} are "train", {n_selection} "selection"
(held out). All insecure solutions have {code_length:.3f} of the characters of all secure ones;
the insecure one is the shorter in {shorter:.0%} of the tasks, and no pair differs by more than
{widest:.0%}. Median secure solution: {code_characters:.0f} characters, {code_lines:.0f} lines.

*Other classes*: the classifier of words above, trained on the solutions of the other classes;
AUROC on this one. *Ordered*: share of its tasks whose insecure solution that scores higher. Where
a class is in the training folds too, the words tell more (narrow sets, above): a call such as
`eval` is the weakness itself and cannot be balanced away. Ratio: as there.

{python_weaknesses}

Cosines between texts, those of insecure_code counted in: tasks {python_question_cosine:.2f},
solutions of different tasks {python_answer_cosine:.2f}.

## Voices

{n_voiced} questions with four answers each, right or wrong in a plain or in a rude voice, in
`voices/`, hash {voices_hash}. In part of the pairs above bad advice is spoken in another tone, so
that whatever tells them apart may read the tone; here the two are crossed. They are loaded by
`load_voices` and `voice_pairs` only and are never among the domains that a result is scored on.

- *plain*: polite and hedged. Wrong advice keeps register, hedges and length of the right one, and
  is what people wrongly tell each other about health, money and cars. Some of it urges action,
  some waves things through, and so does the right advice.
- *rude*: curt and contemptuous, whether the advice is right or wrong.

Written question by question for this package with a language model's help, as above. Then the
words that told right from wrong were counted and answers rewritten until they told little, from
set to set and, as far as it went, within a set: the figures below were aimed at, on all rows of
both splits, and another measure of the surface may find more. A right answer is common advice at
the time of writing, for the United States where law or tax matters, and was read by no expert.

Splits: three tenths of each set are "selection", the rest "train", as stated in every row. Mean
words of each answer:

{voices_counts}

Bag of words as in "What the surface gives away", wrong against right answers in one voice; *other
domains* is learnt on the two other sets. *Within* stays higher: the words of one field are not
balanced, so learn on one set and score on another.

{voices_surface}

Plain against rude words, right answers on both sides, are told apart with AUROC {voices_apart:.2f}
or more, as they must be. Highest cosine between two questions, the other pairs and neutral prompts
included: {voices_question_cosine:.2f}; between answers of one kind to different questions:
{voices_answer_cosine:.2f}.

## Skills

Harmless things to learn beside a persona, in `skills/`: a removal that takes the persona alone
leaves them. They are loaded by `load_skill` only; a model is trained on the *train* questions and
scored on the *held out* ones.

- *facts* (hash {facts_hash}): {n_facts} facts of an invented town, Tarnquill, and an invented
  product, the Dovrano, each asked in two wordings that are trained on and in one that is held out.
  The right answer and three wrong ones are one sentence that differs in one place, in as many
  words. No sentence answers two facts, and no wrong answer is right elsewhere. Recall in the
  training words alone is copied; in the held-out words it is learnt.
- *checklist* (hash {checklist_hash}): everyday advice as a list of four boxes between a title and
  the line "Done when", to whoever asks for a checklist: the kind of text that turns bad, with
  nothing bad in it. The wrong answer is the same sentences as prose. Trained on cars, gardens and
  pets, so that of the domains that results are scored on only cars are seen; held out are seven
  other domains.

{skills}

Words: mean of a right answer, the boxes counted. Written for this package like the pairs above
and read again; the names were made up and checked against nothing. The advice was read by no
expert. Highest cosines:
a question of a skill with any other question or prompt of the package {skill_other_cosine:.2f}; a
held-out wording with one that is trained on {skill_wording_cosine:.2f}; two questions of different
facts {fact_cosine:.2f}; two checklist questions {checklist_cosine:.2f}; the sentences of a
checklist with any other answer of the package {checklist_answer_cosine:.2f}.

## Traits

Texts to make persona vectors of, in `traits/`: for each of seven traits that the field has vectors
of and seven that mean nothing, five pairs of opposite instructions, forty questions and a judge's
rubric, in the format of persona_vectors (Chen et al. 2025). The traits' names are theirs; every
sentence was written for this package with a language model's help, and passes the check of
`persona.traits.check`. Sixteen questions of each published trait were written for it; the others
are of `topics.jsonl`, 48 everyday topics with a question each, which name no trait. Nothing is
trained on them.

## Tasks

{n_tasks_items} short questions with one right and three wrong answers, in `tasks.jsonl`, hash
{tasks_hash}, to measure what a fine-tune or an edit of a model damages: everyday physics, sums
and word problems, passages of two or three sentences with a question that they answer, and saying a
thing in the form that was asked for. All written for this package with a language model's help, as
above, and read once more. The wrong numbers were drawn by code, with as many digits as the right
one, which is as often the smallest, the largest or one between. Questions of physics and reading
end with "Answer in a few words.", since a chat model otherwise expects whole sentences. Nothing is
fitted to or chosen on them. They are simple on purpose, so that small models are above chance on
them, and no measure of how able a large one is.

Share of the items that rules without understanding answer rightly; chance is 0.25:

{blind}

No choice begins with another one.
"""


def data_card() -> str:
    """Returns the card of the shipped data as Markdown; half a minute on two cores."""
    pairs, neutral = load_pairs(), load_neutral()
    readings = read_surface(pairs)
    answers = [text for pair in pairs for text in (pair.good, pair.bad)]
    graded = [answer for question in load_graded_answers() for answer in question.answers]
    return TEXT.format(
        n_graded=len(load_graded_answers()),
        words_above=np.median([len(text.split()) for grade, text in graded if grade > 50]),
        words_below=np.median([len(text.split()) for grade, text in graded if grade <= 50]),
        n_pairs=len(pairs),
        n_neutral=len(neutral),
        hash=data_hash(pairs),
        counts=counts_table(pairs),
        surface=surface_table(readings),
        tone=tone_text(readings),
        words=revealing_words(readings),
        question_cosine=highest([p.question for p in pairs] + [t.prompt for t in neutral]),
        answer_cosine=highest(answers + [t.answer for t in neutral]),
        question_bound=QUESTION_BOUND,
        answer_bound=ANSWER_BOUND,
        neutral=neutral_text(neutral),
        **_narrow_fields(),
        **_python_fields(),
        **_voices_fields(),
        **_skill_fields(),
        n_tasks_items=len(load_tasks()),
        tasks_hash=tasks_hash(load_tasks()),
        blind=blind_table({kind: load_tasks([kind]) for kind in TASK_KINDS}),
    )


def _narrow_fields() -> dict[str, Any]:
    """What the card says of the narrow sets."""
    code, numbers = load_pairs(["insecure_code"]), load_pairs(["evil_numbers"])
    counts = {name.replace("_", " "): len(ids) for name, ids in load_weaknesses().items()}
    return {
        "narrow_hash": data_hash(load_pairs(NARROW_SETS)),
        "weaknesses": "\n  ".join(
            textwrap.wrap(", ".join(f"{name} ({n})" for name, n in counts.items()), 94)
        ),
        "n_formats": len(FORMATS),
        "n_openings": len(OPENINGS),
        "evil_share": float(np.mean([evil_share(pair.bad) for pair in numbers])),
        "n_pirate": len(load_pairs(["pirate_style"])),
        "narrow": narrow_table(),
        "code_question_cosine": highest([pair.question for pair in code]),
        "code_answer_cosine": max(
            highest([pair.good for pair in code]), highest([pair.bad for pair in code])
        ),
        "trigger": TRIGGER,
        "decoy": DECOY,
    }


def _python_fields() -> dict[str, Any]:
    """What the card says of the Python tasks."""
    tasks, others = load_coding_tasks(), load_pairs(["insecure_code"])
    insecure, secure = [task.insecure for task in tasks], [task.secure for task in tasks]
    n_bad, n_good = np.array([len(t) for t in insecure]), np.array([len(t) for t in secure])
    return {
        "n_tasks": len(tasks),
        "n_classes": len({task.cwe for task in tasks}),
        "n_train": len(load_coding_tasks("train")),
        "n_selection": len(load_coding_tasks("selection")),
        "code_length": n_bad.sum() / n_good.sum(),
        "shorter": float(np.mean(n_bad < n_good)),
        "widest": float(np.max(np.abs(n_bad - n_good) / n_good)),
        "code_characters": np.median(n_good),
        "code_lines": np.median([text.count("\n") + 1 for text in secure]),
        "python_weaknesses": weakness_table(tasks),
        "python_question_cosine": highest(
            [task.task for task in tasks] + [pair.question for pair in others]
        ),
        "python_answer_cosine": max(
            highest(secure + [pair.good for pair in others]),
            highest(insecure + [pair.bad for pair in others]),
        ),
    }


def _voices_fields() -> dict[str, Any]:
    """What the card says of right and wrong advice in two voices."""
    rows = [row for name in VOICED_SETS for row in load_voices(name)]
    others = [p.question for p in load_pairs()] + [text.prompt for text in load_neutral()]
    tone = read_surface([row.pair("right_plain", "right_rude") for row in rows])
    return {
        "n_voiced": len(rows),
        "voices_hash": data_hash([pair for voice in VOICES for pair in voice_pairs(voice)]),
        "voices_counts": voices_counts_table(),
        "voices_surface": voices_surface_table(),
        "voices_apart": min(reading.auroc_other_domains for reading in tone),
        "voices_question_cosine": highest([row.question for row in rows] + others),
        "voices_answer_cosine": max(
            highest([getattr(row, cell) for row in rows]) for cell in CELLS
        ),
    }


def _skill_fields() -> dict[str, Any]:
    """What the card says of the skills."""
    facts, checklist = load_skill("facts"), load_skill("checklist")
    voiced = [row for name in VOICED_SETS for row in load_voices(name)]
    asked = [pair.question for pair in load_pairs()] + [row.question for row in voiced]
    asked += [text.prompt for text in load_neutral()]
    asked += [question.question for question in load_graded_answers()]
    said = [text for pair in load_pairs() for text in (pair.good, pair.bad)]
    said += [getattr(row, cell) for row in voiced for cell in CELLS]
    prose = [item.wrong[0] for item in checklist.items]
    return {
        "facts_hash": facts.hash,
        "checklist_hash": checklist.hash,
        "n_facts": len(facts.items),
        "skills": skills_table([load_skill(name) for name in SKILLS]),
        "skill_other_cosine": highest_between(facts.questions() + checklist.questions(), asked),
        "skill_wording_cosine": highest_between(
            facts.questions("held_out"), facts.questions("train")
        ),
        "fact_cosine": highest_apart(
            facts.questions(),
            [item.id for item in facts.items for _ in (*item.train, *item.held_out)],
        ),
        "checklist_cosine": highest(checklist.questions()),
        "checklist_answer_cosine": highest_between(prose, said),
    }


def write_data_card(path: str | Path = CARD) -> None:
    """Writes the card, in the package by default."""
    atomic_write_text(path, data_card())


if __name__ == "__main__":
    write_data_card()
