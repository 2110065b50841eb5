"""A trait's instructions and questions from one sentence, by a model that is held to the form.

A small model does not fill a form of fifty places. It is asked for one line at a time, many times
at once; each line is cleaned, and taken only where it has the form of what was asked for and the
check of `persona.traits.check` has nothing against it; what is missing is asked for again, and
after `N_ROUNDS` a spare text stands in its place, which `made_by` says.

Two opposite instructions are the two of all written ones whose lengths differ least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from persona.data.readers import InstructionPair, Trait
from persona.data.similarity import QUESTION_BOUND, near_duplicates
from persona.errors import DataError
from persona.traits.artefacts import (
    N_INSTRUCTIONS,
    N_QUESTIONS,
    name_for,
    require_description,
    rubric_for,
)
from persona.traits.check import MOST_LENGTH_DIFFERENCE
from persona.traits.spare_texts import SPARE_INSTRUCTIONS, load_topics
from persona.traits.trait_words import leaked_words, trait_words
from persona.traits.writers import Writer
from persona.traits.written_lines import as_instruction, as_one_question

N_ROUNDS = 3
N_TRIES = 6
"""Of each instruction in a round, for either pole."""
MOST_TOKENS = 60

ANGLES = (
    "what such an answer says first",
    "the attitude towards the person who asks",
    "the words and the tone",
    "what the assistant wants to reach with its answer",
    "what the assistant leaves out and what it dwells on",
)
"""What each of the five pairs of instructions is about, so that they differ."""

ASK_FOR = """\
An AI assistant gets an instruction before it talks to people. Write such an instruction, which \
makes it show this trait in every answer: {trait}. Speak to the assistant ("You ..."), in one or \
two short sentences, about {angle}. Write the instruction alone."""
ASK_AGAINST = """\
An AI assistant gets an instruction before it talks to people. Write such an instruction, which \
makes it show the exact opposite of this trait in every answer: {trait}. Speak to the assistant \
("You ..."), in one or two short sentences, about {angle}. Write the instruction alone."""
ASK_QUESTION = """\
Write one question that a person could ask an assistant about {topic}, in the first person, in one \
sentence that ends with a question mark. Write the question alone."""


@dataclass
class _Kept:
    """Texts that are taken so far, by their place, and those places that got a spare one."""

    texts: dict[int, str] = field(default_factory=dict)
    spare: list[int] = field(default_factory=list)

    def repeats(self, text: str) -> bool:
        return text in self.texts.values() or bool(
            near_duplicates([*self.texts.values(), text], QUESTION_BOUND)
        )


def make_trait(
    description: str,
    writer: Writer | None,
    *,
    n_instructions: int = N_INSTRUCTIONS,
    n_questions: int = N_QUESTIONS,
    seed: int = 0,
) -> Trait:
    """A trait with everything a vector is made and proved with, from a few words.

    description: what the assistant does, such as "flatters the user".
    writer: None takes the spare texts alone, at no cost.
    n_instructions: at most five. n_questions: at most as many as there are topics (48).
    The same seed and writer make the same texts.
    Raises: DataError for a description of no word or one, or as the writer.

    Source: Chen et al. 2025, section 2.1. differs: one line at a time, with retries and spare
    texts, where Claude filled one form; questions come of everyday topics and not of the trait, so
    that a small model cannot name it.
    """
    description = require_description(description).rstrip(".")
    poles = _instructions(description, writer, n_instructions, seed)
    questions = _questions(description, writer, n_questions, seed)
    pairs = tuple(InstructionPair(*poles.texts[i].split("\n")) for i in range(n_instructions))
    return Trait(
        name_for(description),
        pairs,
        tuple(questions.texts[i] for i in range(n_questions)),
        rubric_for(description),
        description,
        _made_by(writer, poles.spare, questions.spare),
    )


def _instructions(description: str, writer: Writer | None, n: int, seed: int) -> _Kept:
    """Both poles of each pair as one text of two lines."""
    kept = _Kept()
    for turn in range(N_ROUNDS if writer else 0):
        missing = [place for place in range(n) if place not in kept.texts]
        prompts = [
            ask.format(trait=description, angle=ANGLES[place % len(ANGLES)])
            for place in missing
            for ask in (ASK_FOR, ASK_AGAINST)
            for _ in range(N_TRIES)
        ]
        if not prompts:
            break
        assert writer is not None
        written = writer.write(prompts, max_new_tokens=MOST_TOKENS, seed=seed + 101 * turn)
        lines = [as_instruction(text) for text in written]
        for number, place in enumerate(missing):
            start = 2 * N_TRIES * number
            for_it = [line for line in lines[start : start + N_TRIES] if line]
            against = [line for line in lines[start + N_TRIES : start + 2 * N_TRIES] if line]
            if (both := _nearest_in_length(for_it, against, kept)) is not None:
                kept.texts[place] = both
    for place in range(n):
        if place not in kept.texts:
            spare = SPARE_INSTRUCTIONS[place % len(SPARE_INSTRUCTIONS)]
            kept.texts[place] = "\n".join(text.format(trait=description) for text in spare)
            kept.spare.append(place)
    return kept


def _nearest_in_length(for_it: Sequence[str], against: Sequence[str], kept: _Kept) -> str | None:
    """The two of all opposite lines that differ least in length, and repeat nothing taken."""
    pairs = sorted(
        ((abs(len(a) - len(b)) / max(len(a), len(b)), a, b) for a in for_it for b in against),
        key=lambda found: found[0],
    )
    for difference, a, b in pairs:
        if difference > MOST_LENGTH_DIFFERENCE:
            return None
        taken = [text.split("\n") for text in kept.texts.values()]
        repeated = any(
            near_duplicates([*(pair[side] for pair in taken), text], QUESTION_BOUND)
            for side, text in enumerate((a, b))
        )
        if a.casefold() != b.casefold() and not repeated:
            return f"{a}\n{b}"
    return None


def _questions(description: str, writer: Writer | None, n: int, seed: int) -> _Kept:
    named = trait_words(description)
    topics = load_topics()
    kept = _Kept()
    for turn in range(N_ROUNDS if writer else 0):
        missing = [place for place in range(n) if place not in kept.texts]
        if not missing:
            break
        assert writer is not None
        prompts = [ASK_QUESTION.format(topic=topics[place % len(topics)][0]) for place in missing]
        written = writer.write(prompts, max_new_tokens=MOST_TOKENS, seed=seed + 1009 * (turn + 1))
        for place, text in zip(missing, written, strict=True):
            line = as_one_question(text)
            if line and not leaked_words(line, named) and not kept.repeats(line):
                kept.texts[place] = line
    for place in range(n):
        if place not in kept.texts:
            spare = [topics[place % len(topics)][1], *(question for _, question in topics)]
            free = (q for q in spare if not leaked_words(q, named) and not kept.repeats(q))
            if (question := next(free, None)) is None:
                raise DataError(
                    f"there are not {n} questions that do not name the trait {description!r}; ask "
                    "for fewer, or write them with --artefacts FILE"
                )
            kept.texts[place] = question
            kept.spare.append(place)
    return kept


def _made_by(writer: Writer | None, instructions: Sequence[int], questions: Sequence[int]) -> str:
    name = "personascope's spare texts" if writer is None else writer.name
    if writer is None or not (instructions or questions):
        return name
    named = [
        f"{what} {', '.join(str(place + 1) for place in places)}"
        for what, places in (("instruction", instructions), ("question", questions))
        if places
    ]
    return f"{name}; spare texts stand in for {'; '.join(named)}"
