"""Is a trait's file fit to make a vector of? A check of its texts that needs no model.

- A question that names the trait asks for it: what then differs may be the answer to the name.
- Questions and instructions that repeat themselves count one thing several times.
- Instructions that are longer for one pole than for the other put the length into the vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from persona.data.json_places import line_of
from persona.data.jsonl import read_text
from persona.data.readers import Trait
from persona.data.similarity import QUESTION_BOUND, near_duplicates
from persona.data.text import as_question
from persona.errors import DataError, shown
from persona.traits.trait_words import leaked_words, trait_words

LEAST_INSTRUCTIONS = 2
LEAST_QUESTIONS = 8
MOST_LENGTH_DIFFERENCE = 0.2
"""Of the longer of two opposite instructions, in characters."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with one text. place: what the file calls it, such as "questions[3]"."""

    place: str
    why: str


def faults_of(trait: Trait) -> list[Fault]:
    """Everything that is wrong with a trait's texts, in the order of the file; empty where sound.

    The trait's words are those of its description and of its name; forms of one word count as that
    word (`is_kin`).
    """
    return [*_instruction_faults(trait), *_question_faults(trait), *_rubric_faults(trait)]


def require_sound(trait: Trait, path: str | Path) -> None:
    """Raises: DataError for the first fault, with its line in the file, and the lines of others."""
    if not (faults := faults_of(trait)):
        return
    text = read_text(path)
    lines = [line_of(text, fault.place) or 1 for fault in faults]
    more = ""
    if len(faults) > 1:
        others = ", ".join(map(str, dict.fromkeys(lines[1:])))
        more = f" (and {len(faults) - 1} more, line {others})"
    raise DataError(f"{path}, line {lines[0]}: {faults[0].place} {faults[0].why}{more}")


def _instruction_faults(trait: Trait) -> Iterator[Fault]:
    pairs = trait.instructions
    if len(pairs) < LEAST_INSTRUCTIONS:
        yield Fault(
            "instruction",
            f"has {len(pairs)} pair of opposite instructions; at least {LEAST_INSTRUCTIONS} are "
            "needed, so that no single wording is the trait",
        )
    for place, pair in enumerate(pairs):
        if as_question(pair.pos) == as_question(pair.neg):
            yield Fault(f"instruction[{place}]", "asks for the trait and its opposite alike")
        longer, shorter = sorted((len(pair.pos), len(pair.neg)), reverse=True)
        if longer - shorter > MOST_LENGTH_DIFFERENCE * longer:
            yield Fault(
                f"instruction[{place}]",
                f"has {len(pair.pos)} characters for the trait and {len(pair.neg)} against it; "
                f"they may differ by a fifth of the longer ({MOST_LENGTH_DIFFERENCE * longer:.0f})",
            )
    for pole in ("pos", "neg"):
        texts = [getattr(pair, pole) for pair in pairs]
        yield from _repeats(texts, "instruction[{}]." + pole)


def _question_faults(trait: Trait) -> Iterator[Fault]:
    if len(trait.questions) < LEAST_QUESTIONS:
        yield Fault(
            "questions",
            f"are {len(trait.questions)}; at least {LEAST_QUESTIONS} are needed, half of them to "
            "make the vector and half to prove it",
        )
    named = trait_words(trait.description, trait.name)
    for place, question in enumerate(trait.questions):
        if leaked := leaked_words(question, named):
            yield Fault(
                f"questions[{place}]",
                f"names the trait ({leaked[0]!r}), so that any answer would show it; reword it",
            )
    yield from _repeats(trait.questions, "questions[{}]")


def _rubric_faults(trait: Trait) -> Iterator[Fault]:
    if missing := [m for m in ("{question}", "{answer}") if m not in trait.eval_prompt]:
        yield Fault("eval_prompt", f"lacks the place holder {missing[0]}, so nothing is judged")


def _repeats(texts: Sequence[str], place: str) -> Iterator[Fault]:
    """One fault for each text that says what an earlier one says."""
    earlier_of: dict[int, int] = {}
    for found in near_duplicates(texts, QUESTION_BOUND):
        earlier_of.setdefault(found.second, found.first)
    first_place: dict[str, int] = {}
    for number, text in enumerate(texts):
        earlier = first_place.setdefault(as_question(text), number)
        if earlier != number:
            earlier_of[number] = earlier
    for number, earlier in sorted(earlier_of.items()):
        yield Fault(
            place.format(number),
            f"repeats {place.format(earlier)} ({shown(texts[earlier])}); say something else",
        )
