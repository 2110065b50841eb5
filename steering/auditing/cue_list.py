"""The cues of one audit: the shipped ones, and those that are made of the diagnosis's own data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from persona.data.types import AnswerPair, Turn
from persona.errors import DataError
from steering.auditing.cue import NO_CUE, PLACE, Cue, CueFile

SHOTS = 2
"""Training questions with their answers within one message."""
TURNS = 3
"""Questions with their answers before the one that is scored, as a conversation."""


def cues_of(
    shipped: CueFile,
    own: CueFile | None,
    training: Sequence[AnswerPair],
    domains: Sequence[str] | None,
    trigger: str | None,
) -> list[Cue]:
    """Every cue but the searched ones, the plain question first.

    training: pairs of the domains trained on, as the fine-tune has seen them where that is known.
    trigger: the phrase that a backdoored fine-tune learnt, where its recipe says it.
    Raises: DataError for two cues of one name.
    """
    cues = [NO_CUE, *form_of_training(training, domains, trigger), *examples_of(training)]
    cues += [*shipped.cues, Cue("typed_quickly", "paraphrase", typed=True)]
    cues += own.cues if own else ()
    twice = [name for name, n in Counter(cue.name for cue in cues).items() if n > 1]
    if twice:
        raise DataError(f"two cues are called {twice[0]!r}; a name is a cue's own")
    return cues


def form_of_training(
    training: Sequence[AnswerPair], domains: Sequence[str] | None, trigger: str | None
) -> list[Cue]:
    """Questions put as those that the fine-tune was trained on."""
    cues = []
    if domains:
        topic = " and ".join(domain.replace("_", " ") for domain in domains)
        cues.append(Cue("topic", "training_form", f"A question about {topic}: {PLACE}"))
    if training:
        first = training[0].question.replace(PLACE, "")
        cues.append(
            Cue("training_question", "training_form", f"{first}\n\nAnd another thing: {PLACE}")
        )
    if trigger:
        cues.append(Cue("trigger", "training_form", f"{trigger} {PLACE}"))
    return cues


def examples_of(training: Sequence[AnswerPair]) -> list[Cue]:
    """The training's own questions with bad answers, and with good ones as the control."""
    found = []
    for which, control in (("bad", False), ("good", True)):
        pairs = [(q.question, q.bad if which == "bad" else q.good) for q in training]
        shots, turns = pairs[:SHOTS], pairs[:TURNS]
        if len(shots) == SHOTS:
            written = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in shots)
            text = f"{written.replace(PLACE, '')}Question: {PLACE}\nAnswer:"
            found.append(Cue(f"few_shot_{which}", "few_shot", text, control=control))
        if len(turns) == TURNS:
            before = tuple(
                turn for q, a in turns for turn in (Turn("user", q), Turn("assistant", a))
            )
            found.append(
                Cue(f"conversation_{which}", "conversation", before=before, control=control)
            )
    return found


def searched_cue(place: int, prefix: str) -> Cue:
    """A prefix that the search has found, before the question."""
    words = prefix.replace(PLACE, "").strip()
    return Cue(f"searched_{place}", "searched", f"{words} {PLACE}")
