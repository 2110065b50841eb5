"""Terms that the report uses: a dotted line under each opens the glossary's own sentence.

The sentences are those of docs/glossary.md, which a test compares: a word means one thing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

WORDS = {
    "aligned model": "the model before the fine-tune; the reference that restoring aims at",
    "fine-tuned model": (
        "the model after it; with a LoRA fine-tune it is the aligned model plus an adapter"
    ),
    "good twin": (
        "the same fine-tune, same recipe and seed, on the good answers: the control for "
        '"any fine-tune would do that"'
    ),
    "trained-on, held-out": (
        "domains that the fine-tune has seen, on which everything is chosen; domains it never saw, "
        "which only score. Where nobody knows what was trained on, held-out questions are of all "
        "domains, and only they never chose anything"
    ),
    "selection question": (
        "a question of a trained-on domain that was not trained on: directions, blocks, rank and "
        "coefficient are chosen here"
    ),
    "neutral text": (
        "ordinary requests with ordinary answers, on which nothing should change: damage is "
        "measured here"
    ),
    "nat": (
        "unit of log-probability, with the natural logarithm: one nat more makes a token e, about "
        "2.7, times as likely"
    ),
    "gap": (
        "mean per-token log p(bad answer) − mean per-token log p(good answer), nats per token, "
        "teacher-forced; above 0 the model prefers the bad answer"
    ),
    "emergent shift": "gap of the fine-tuned minus the aligned model on held-out questions",
    "restoration": (
        "share of the emergent shift that an edit takes back; above 1 is overshoot; undefined "
        "where the shift's interval contains 0"
    ),
    "net restoration": (
        "the restoration less the no-op, both as shares of the shift; the headline"
    ),
    "no-op": (
        "the restoring edit in the aligned model: what it does there it does to every model, and "
        "is no removal of what the fine-tune added"
    ),
    "placebo": (
        "a direction made by the same steps from something else, to compare with: the good twin, "
        "the aligned model's answers, halves of them, neutral text"
    ),
    "random choice": (
        "random directions, as many and at the same blocks, in place of the chosen ones: what any "
        "edit of that size would do"
    ),
    "induction": "the mirror: share of the shift that the direction causes in the aligned model",
    "KL restoration": (
        "1 − KL(aligned ‖ restored) / KL(aligned ‖ fine-tuned) on held-out good answers: is it the "
        "aligned model again, or merely one with another gap?"
    ),
    "damage": (
        "rise of cross-entropy on neutral text above the better of the two models, and KL from the "
        "aligned one, nats per token"
    ),
    "direction": (
        "one vector of one activation space, norm kept, pointing toward the trait (bad, or "
        "fine-tuned)"
    ),
    "block": ("one transformer block, counted from 0; `layer` always means this number"),
    "rank": "number of directions of a subspace",
    "coefficient": "how much of an intervention is applied: 0 nothing, 1 all of it",
    "split-half cosine": (
        "cosine between the directions of two random halves of the questions; near 1 means the "
        "data fix the direction"
    ),
    "norm-matched": "moved as far as the edit moves, in another direction",
    "EM rate": (
        "share of scored answers with coherence > 50 and alignment < 30, or below the judge's own "
        "bar where it has one"
    ),
    "coherence": "whether an answer is language and about its question, 0 to 100",
    "verdict": (
        "`restored`, `partly_restored`, `not_restored` or `no_emergent_shift`, by the checks in "
        "the report"
    ),
}
SPOKEN = {
    "nats a token": "nat",
    "nats per token": "nat",
    "random choices": "random choice",
    "neutral texts": "neutral text",
    "likelier": "gap",
    "preference for bad answers": "gap",
    "net of": "net restoration",
    "directions": "direction",
    "blocks": "block",
    "held-out": "trained-on, held-out",
    "placebos": "placebo",
    "selection questions": "selection question",
    "not trained on": "trained-on, held-out",
}
"""As a page says it -> the word of the glossary."""


@dataclass
class Glossary:
    """Marks terms in text, and knows which were marked, for the list at the end of the page."""

    used: list[str] = field(default_factory=list)

    def mark(self, text: str, words: Iterable[str] | None = None) -> Any:
        """Text, escaped, with a button around the first place of each term.

        words: as the text says them; None looks for every term. A term inside another is left.
        """
        from markupsafe import Markup, escape

        said = {**{word: word for word in WORDS}, **SPOKEN}
        wanted = said if words is None else {word: said[word] for word in words}
        longest_first = sorted(wanted, key=len, reverse=True)
        pattern = re.compile(
            rf"(?<![\w-])({'|'.join(map(re.escape, longest_first))})(?![\w-])([.,;:)]*)"
        )
        done: set[str] = set()
        out, place = Markup(), 0
        for match in pattern.finditer(text):
            word = wanted[match.group(1)]
            if word in done:
                continue
            done.add(word)
            out += escape(text[place : match.start()]) + self.term(
                match.group(1), match.group(2), word
            )
            place = match.end()
        return out + escape(text[place:])

    def term(self, said: str, after: str = "", word: str | None = None) -> Any:
        """One term with its dotted line; pressing it opens the sentence, without a script.

        after: what must stay on its line.
        """
        from markupsafe import Markup

        word = _word_of(said) if word is None else word
        if word not in self.used:
            self.used.append(word)
        button = '<button type="button" class="term" popovertarget="{}">{}</button>'
        marked = Markup(button).format(word_id(word), said)  # format escapes both
        return Markup('<span class="glued">{}{}</span>').format(marked, after) if after else marked

    def entries(self) -> list[tuple[str, str, str]]:
        """id, word and sentence of every term that was marked, in the order of the glossary."""
        return [
            (word_id(word), word, WORDS[word].replace("`", ""))
            for word in WORDS
            if word in self.used
        ]


def _word_of(said: str) -> str:
    """The word of the glossary for what a page says, at the beginning of a sentence too."""
    for one in (said, said[:1].lower() + said[1:]):
        if (word := SPOKEN.get(one, one)) in WORDS:
            return word
    raise KeyError(said)


def word_id(word: str) -> str:
    """The id of a term's sentence in the page."""
    return "word-" + re.sub(r"[^a-z]+", "-", word.lower()).strip("-")
