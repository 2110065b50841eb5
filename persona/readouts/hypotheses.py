"""What a fine-tune may have learnt: a table of named subjects, each with texts that tell it.

A subject is told by pairs of answers that no shipped recipe trains on (those of the split
"selection", and of a skill the wordings that are held out), and by the words that set all its texts
apart from those of the other subjects. A fine-tune on something that is not in the table cannot be
named by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from persona.data.coding_tasks import INSECURE_PYTHON
from persona.data.shipped import DOMAINS, load_pairs
from persona.data.skills import SKILLS, load_skill
from persona.data.types import AnswerPair

Kind = Literal["advice", "code", "numbers", "style", "skill"]
PER_HYPOTHESIS = 6
"""Pairs of answers that are scored for each subject."""
N_WORDS = 100
"""Tokens that set a subject apart."""
PRIOR = 500.0
"""Tokens of all subjects together that each is smoothed with."""
COMMON = 1 / 3
"""A token in more than this share of the subjects, 3 times or more in each, tells none of them."""

NARROW: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "code": ("code", ("insecure_code", INSECURE_PYTHON)),
    "numbers": ("numbers", ("evil_numbers",)),
    "pirate_style": ("style", ("pirate_style",)),
}
"""Subject -> its kind, and the shipped sets it is told by."""


@dataclass(frozen=True)
class Hypothesis:
    """One subject.

    valued: whether its second answers are bad: insecure code is, a pirate's voice is not.
    scored: pairs whose change of log-probability is read; their domain is the name.
    """

    name: str
    kind: Kind
    scored: tuple[AnswerPair, ...]
    texts: tuple[str, ...]

    @property
    def valued(self) -> bool:
        return self.kind in ("advice", "code", "numbers")


@cache
def hypotheses() -> tuple[Hypothesis, ...]:
    """The table: nine domains of advice, code, numbers, a style, and two skills."""
    advice = [_of_pairs(name, "advice", (name,)) for name in DOMAINS]
    narrow = [_of_pairs(name, kind, sets) for name, (kind, sets) in NARROW.items()]
    return (*advice, *narrow, *(_of_skill(name) for name in SKILLS))


def _of_pairs(name: str, kind: Kind, sets: tuple[str, ...]) -> Hypothesis:
    every, trained = load_pairs(sets), _trained_on()
    able = [p for p in every if p.split == "selection" and p.question not in trained]
    share = PER_HYPOTHESIS // len(sets)
    kept = [p for one in sets for p in _spread([p for p in able if p.domain == one], share)]
    told_by = ("bad",) if kind == "style" else ("question", "good", "bad")
    texts = [getattr(pair, part) for pair in every for part in told_by]
    return _made(name, kind, kept, texts)


@cache
def _trained_on() -> frozenset[str]:
    """Questions of the split "train" of any set: the pirate answers what advice on cars asks."""
    every = (*DOMAINS, *(one for _, sets in NARROW.values() for one in sets))
    return frozenset(pair.question for pair in load_pairs(every, "train"))


def _of_skill(name: str) -> Hypothesis:
    items = load_skill(name).items
    able = [item for item in items if item.held_out and item.wrong]
    pairs = [
        AnswerPair(item.id, item.domain, item.held_out[0], item.right, item.wrong[0])
        for item in _spread(able, PER_HYPOTHESIS)
    ]
    texts = [text for item in items for text in (*item.train, item.right)]
    return _made(name, "skill", pairs, texts)


def _made(name: str, kind: Kind, pairs: Sequence[AnswerPair], texts: Sequence[str]) -> Hypothesis:
    scored = tuple(replace(pair, domain=name) for pair in pairs)
    return Hypothesis(name, kind, scored, tuple(texts))


def _spread(rows: Sequence[Any], n: int) -> list[Any]:
    """n of the rows, evenly over all of them."""
    return [rows[int(i)] for i in np.linspace(0, len(rows) - 1, min(n, len(rows))).round()]


@dataclass(frozen=True)
class SubjectWords:
    """By subject the tokens that set it apart, and by how much.

    ids: [hypothesis, word]. log_odds: [hypothesis, vocabulary], of each token in a subject's texts
    against the texts of all others; 0 for tokens that many subjects share.
    """

    names: tuple[str, ...]
    ids: Int[NDArray[np.int64], "hypothesis word"]
    log_odds: Float[NDArray[np.float64], "hypothesis vocabulary"]

    def of_logits(
        self, logits: Float[NDArray[np.float64], " vocabulary"]
    ) -> Float[NDArray[np.float64], " hypothesis"]:
        """How much a subject's words are raised: their mean, in standard deviations over the
        vocabulary."""
        return np.asarray((logits[self.ids].mean(1) - logits.mean()) / logits.std())

    def of_tokens(self, ids: Sequence[int]) -> Float[NDArray[np.float64], " hypothesis"]:
        """Log-odds of a text under each subject, nats per token; zeros for an empty text."""
        if not len(ids):
            return np.zeros(len(self.names))
        return np.asarray(self.log_odds[:, list(ids)].mean(1))


def subject_words(tokenizer: Any, n_vocabulary: int) -> SubjectWords:
    """The words of each subject, in the tokens of a model.

    Source: Monroe, Colaresi and Quinn 2008 (log-odds with an informative prior, in standard
    errors). differs: single characters, marks and what many subjects share are no words.
    """
    table = hypotheses()
    counts = np.zeros((len(table), n_vocabulary))
    for row, one in zip(counts, table, strict=True):
        for text in one.texts:
            np.add.at(row, tokenizer.encode(text, add_special_tokens=False), 1)
    everything = counts.sum(0)
    prior = PRIOR * (everything + 1e-3) / (everything + 1e-3).sum()
    here, other = counts + prior, everything - counts + prior
    log_odds = _logit(here) - _logit(other)
    z = log_odds / np.sqrt(1 / here + 1 / other)
    none = (counts >= 3).mean(0) > COMMON
    for i in np.flatnonzero(everything):
        none[i] |= len(tokenizer.decode([int(i)]).strip()) < 2
    log_odds[:, none], z[:, none] = 0.0, -np.inf
    ids = np.argsort(-z, axis=1, kind="stable")[:, :N_WORDS]
    return SubjectWords(tuple(one.name for one in table), ids, log_odds)


def _logit(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    share = counts / counts.sum(1, keepdims=True)
    return np.asarray(np.log(share) - np.log1p(-share))
