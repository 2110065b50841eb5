"""What the surface of the answers gives away: their length and their words.

A probe that separates good from bad answers must beat these readings before it may claim to read
more than words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from persona.data.types import AnswerPair

REVEALED_ABOVE = 0.85
"""AUROC of the words above which a domain's most revealing words are named in the data card."""
FOLDS = 5


@dataclass(frozen=True)
class SurfaceReading:
    """How well words and length tell the bad answers of one domain from the good ones.

    auroc_other_domains: TF-IDF and logistic regression trained on all other domains.
    pairs_ordered: share of this domain's questions whose bad answer that classifier scores higher.
    auroc_within: the same classifier trained on this domain, five folds by question.
    auroc_length: number of words alone; below 0.5 the bad answers are the shorter ones.
    bad_words, good_words: those that move the classifier most in this domain, by how much.
    """

    domain: str
    n_pairs: int
    auroc_other_domains: float
    pairs_ordered: float
    auroc_within: float
    auroc_length: float
    bad_words: tuple[str, ...]
    good_words: tuple[str, ...]


def length_ratio(pairs: Sequence[AnswerPair]) -> float:
    """Returns the median over questions of words(bad) / words(good)."""
    return float(np.median([len(p.bad.split()) / len(p.good.split()) for p in pairs]))


def read_surface(pairs: Sequence[AnswerPair], n_words: int = 12) -> list[SurfaceReading]:
    """Returns one reading for every domain of `pairs`, in order of appearance.

    AUROC pools the answers of a domain; 0.5 is chance. Both answers to a question are always on the
    same side of a split. Words are lower-case, unigrams and bigrams; C = 1, no tuning.
    """
    domains = list(dict.fromkeys(pair.domain for pair in pairs))
    if len(domains) < 2:
        raise ValueError(f"at least two domains are needed; got {', '.join(domains) or 'none'}")
    readings = []
    for domain in domains:
        inside = [pair for pair in pairs if pair.domain == domain]
        outside = [pair for pair in pairs if pair.domain != domain]
        scores, words = _transferred_scores(outside, inside, n_words)
        _, labels = _texts(inside)
        readings.append(
            SurfaceReading(
                domain=domain,
                n_pairs=len(inside),
                auroc_other_domains=_auroc(labels, scores),
                pairs_ordered=float(np.mean(scores[1::2] > scores[0::2])),
                auroc_within=auroc_within(inside),
                auroc_length=auroc_words_counted(inside),
                bad_words=words[0],
                good_words=words[1],
            )
        )
    return readings


def word_margins(train: Sequence[AnswerPair], asked: Sequence[AnswerPair]) -> np.ndarray:
    """[question]: how much more like a bad answer the bad one sounds than the good one, in words.

    TF-IDF and logistic regression trained on `train`; decision value of the bad answer minus that
    of the good one. Near 0 the words tell nothing, above it they give the bad answer away.
    """
    scores, _ = _transferred_scores(train, asked, 0)
    return np.asarray(scores[1::2] - scores[0::2])


def auroc_within(pairs: Sequence[AnswerPair]) -> float:
    """Returns how well the words tell bad from good answers of one domain, five folds by question.

    AUROC; 0.5 is chance, NaN for fewer questions than folds.
    """
    from sklearn.model_selection import GroupKFold

    if len(pairs) < FOLDS:
        return math.nan
    texts, labels = _texts(pairs)
    scores = np.empty(len(texts))
    groups = np.repeat(np.arange(len(pairs)), 2)
    for train, test in GroupKFold(FOLDS).split(texts, labels, groups):
        classifier = _classifier().fit([texts[i] for i in train], labels[train])
        scores[test] = classifier.decision_function([texts[i] for i in test])
    return _auroc(labels, scores)


def auroc_words_counted(pairs: Sequence[AnswerPair]) -> float:
    """Returns the AUROC of the number of words alone; below 0.5 bad answers are shorter."""
    texts, labels = _texts(pairs)
    return _auroc(labels, np.array([len(text.split()) for text in texts]))


def auroc_length(pairs: Sequence[AnswerPair]) -> float:
    """Returns the AUROC of the number of characters alone; below 0.5 bad answers are shorter."""
    texts, labels = _texts(pairs)
    return _auroc(labels, np.array([len(text) for text in texts]))


def character_ratio(pairs: Sequence[AnswerPair]) -> float:
    """Returns the median over questions of characters(bad) / characters(good); for code."""
    return float(np.median([len(pair.bad) / len(pair.good) for pair in pairs]))


def _transferred_scores(
    train: Sequence[AnswerPair], test: Sequence[AnswerPair], n_words: int
) -> tuple[np.ndarray, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Scores of `test` by a classifier of `train` (bad is positive), and the words that make them.

    A word's share is its weight times the difference of its mean TF-IDF, bad minus good answers.
    """
    texts, labels = _texts(train)
    classifier = _classifier().fit(texts, labels)
    vectorizer, regression = classifier[0], classifier[1]
    vectors = vectorizer.transform(_texts(test)[0])
    difference = np.asarray(vectors[1::2].mean(axis=0) - vectors[0::2].mean(axis=0)).ravel()
    share = regression.coef_.ravel() * difference
    names = vectorizer.get_feature_names_out()
    order = [int(i) for i in np.argsort(-share) if share[i] > 0]
    bad = tuple(str(names[i]) for i in order if difference[i] > 0)[:n_words]
    good = tuple(str(names[i]) for i in order if difference[i] < 0)[:n_words]
    return regression.decision_function(vectors), (bad, good)


def _classifier() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"[a-z0-9']+"),
        LogisticRegression(C=1.0, max_iter=2000),
    )


def _texts(pairs: Sequence[AnswerPair]) -> tuple[list[str], np.ndarray]:
    """Good and bad answers alternating, and 0 for good, 1 for bad."""
    return [text for p in pairs for text in (p.good, p.bad)], np.tile([0, 1], len(pairs))


def _auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))
