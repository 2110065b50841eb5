"""The data card of the shipped texts: `python -m persona.data.card` writes it anew."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persona.data.graded import load_graded_answers
from persona.data.numbers import FORMATS, OPENINGS, evil_share
from persona.data.selection import DECOY, TRIGGER
from persona.data.shipped import (
    DOMAINS,
    NARROW_SETS,
    SHIPPED,
    data_hash,
    load_neutral,
    load_pairs,
    load_weaknesses,
)
from persona.data.similarity import ANSWER_BOUND, QUESTION_BOUND, near_duplicates
from persona.data.surface import (
    REVEALED_ABOVE,
    SurfaceReading,
    auroc_length,
    auroc_within,
    character_ratio,
    length_ratio,
    read_surface,
)
from persona.data.types import AnswerPair, NeutralText
from persona.files import atomic_write_text

CARD = SHIPPED / "DATA_CARD.md"

OTHER_TONE = 0.95
"""AUROC of the words above which the card says that the two answers differ in tone."""

TEXT = """\
# Data card

Written by `python -m persona.data.card`; {n_pairs} answer pairs (hash {hash}) and {n_neutral}
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
hash of the id (exact counts, whatever the order of the file).

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

## Narrow sets

Three more sets to fine-tune on, in `narrow/`, hash {narrow_hash}. They are no advice, are never
among the domains that a result is scored on, and are loaded by name only.

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
"""


def data_card() -> str:
    """Returns the card of the shipped data as Markdown; some ten seconds on two cores."""
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
        counts=_counts_table(pairs),
        surface=_surface_table(readings),
        tone=_tone_text(readings),
        words=_revealing_words(readings),
        question_cosine=_highest([p.question for p in pairs] + [t.prompt for t in neutral]),
        answer_cosine=_highest(answers + [t.answer for t in neutral]),
        question_bound=QUESTION_BOUND,
        answer_bound=ANSWER_BOUND,
        neutral=_neutral_text(neutral),
        **_narrow_fields(),
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
        "narrow": _narrow_table(),
        "code_question_cosine": _highest([pair.question for pair in code]),
        "code_answer_cosine": max(
            _highest([pair.good for pair in code]), _highest([pair.bad for pair in code])
        ),
        "trigger": TRIGGER,
        "decoy": DECOY,
    }


def _narrow_table() -> str:
    rows = []
    for name in NARROW_SETS:
        pairs = load_pairs([name])
        n_train = sum(pair.split == "train" for pair in pairs)
        rows.append(
            (
                name,
                str(len(pairs)),
                str(n_train),
                str(len(pairs) - n_train),
                f"{character_ratio(pairs):.3f}",
                f"{auroc_within(pairs):.2f}",
                f"{auroc_length(pairs):.2f}",
            )
        )
    return _table(("set", "pairs", "train", "selection", "ratio", "words", "length"), rows)


def write_data_card(path: str | Path = CARD) -> None:
    """Writes the card, in the package by default."""
    atomic_write_text(path, data_card())


def _counts_table(pairs: Sequence[AnswerPair]) -> str:
    rows = []
    for domain in (*DOMAINS, "all"):
        chosen = [pair for pair in pairs if domain in (pair.domain, "all")]
        rows.append(
            (
                domain,
                str(len(chosen)),
                str(sum(pair.split == "train" for pair in chosen)),
                str(sum(pair.split == "selection" for pair in chosen)),
                f"{np.median([len(pair.good.split()) for pair in chosen]):.0f}",
                f"{np.median([len(pair.bad.split()) for pair in chosen]):.0f}",
                f"{length_ratio(chosen):.3f}",
            )
        )
    return _table(
        ("domain", "pairs", "train", "selection", "words good", "words bad", "ratio"), rows
    )


def _surface_table(readings: Sequence[SurfaceReading]) -> str:
    rows: list[tuple[str, ...]] = [
        (
            reading.domain,
            f"{reading.auroc_other_domains:.2f}",
            f"{reading.pairs_ordered:.2f}",
            f"{reading.auroc_within:.2f}",
            f"{reading.auroc_length:.2f}",
        )
        for reading in readings
    ]
    columns = np.array([[float(cell) for cell in row[1:]] for row in rows])
    rows.append(("mean", *(f"{mean:.2f}" for mean in columns.mean(axis=0))))
    return _table(("domain", "other domains", "ordered", "within", "length"), rows)


def _tone_text(readings: Sequence[SurfaceReading]) -> str:
    other = [r.domain for r in readings if max(r.auroc_within, r.auroc_other_domains) > OTHER_TONE]
    if not other:
        return f"No domain is above {OTHER_TONE} in either, so words alone leave much unread."
    return textwrap.fill(
        f"Above {OTHER_TONE} in either: {', '.join(other)}. Here the bad answers speak in another "
        "tone than the good ones, blunter or more openly callous, and a reading of tone alone "
        "would tell them apart. Results from these domains say less about a persona beyond its "
        "wording.",
        width=98,
    )


def _revealing_words(readings: Sequence[SurfaceReading]) -> str:
    above = [reading for reading in readings if reading.auroc_other_domains > REVEALED_ABOVE]
    lines = [
        f"- {reading.domain} ({reading.auroc_other_domains:.2f}): bad answers by "
        f"{_quoted(reading.bad_words)}; good answers by {_quoted(reading.good_words)}."
        for reading in above
    ]
    if lines:
        return f"Words that give most away where that AUROC is above {REVEALED_ABOVE}:\n\n" + (
            "\n".join(lines)
        )
    highest = max(readings, key=lambda reading: reading.auroc_other_domains)
    return (
        f"No domain is above {REVEALED_ABOVE}. The words that give most away in the highest, "
        f"{highest.domain}: bad answers by {_quoted(highest.bad_words)}; good answers by "
        f"{_quoted(highest.good_words)}."
    )


def _neutral_text(texts: Sequence[NeutralText]) -> str:
    kinds = ", ".join(
        f"{kind} ({number})" for kind, number in Counter(text.kind for text in texts).items()
    )
    words = np.median([len(text.answer.split()) for text in texts])
    return textwrap.fill(f"Median answer {words:.0f} words. Kinds: {kinds}.", width=98)


def _highest(texts: Sequence[str]) -> float:
    return max(pair.cosine for pair in near_duplicates(texts, 0.1))


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


if __name__ == "__main__":
    write_data_card()
