"""What the text alone gives away: a probe must beat these, or it reads words and not the model."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.errors import DataError
from probes.estimators.linear import LogisticProbe
from probes.evaluation.held_out import Evaluation, evaluate
from probes.evaluation.splits import Scheme

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def text_baselines(
    texts: Sequence[str],
    labels: Any,
    groups: Sequence[Any] | NDArray[Any] | None,
    scheme: Scheme = "question",
    *,
    embeddings: str | None = None,
    **options: Any,
) -> dict[str, Evaluation]:
    """Evaluations of classifiers that see only the text, on the folds of `evaluate`.

    "bag_of_words"  logistic regression on tf-idf of words and pairs of words
    "length"        logistic probe on the numbers of characters and words
    "embeddings"    logistic probe on sentence embeddings of the model named, such as `MINILM`;
                    only where `embeddings` names one (needs sentence-transformers)
    options: those of `evaluate`. The same seed makes the same folds, so that `compare` applies.
    Raises: DataError as `evaluate`, for an empty text, or where the embeddings cannot be made.
    """
    for place, text in enumerate(texts):
        if not text.strip():
            raise DataError(f"text {place} is empty; leave it out with its label and its group")
    lengths = np.array([[len(text), len(text.split())] for text in texts], dtype=float)
    tried: dict[str, tuple[Any, Any]] = {
        "bag_of_words": (_bag_of_words(), list(texts)),
        "length": (LogisticProbe(), lengths),
    }
    if embeddings is not None:
        tried["embeddings"] = (LogisticProbe(), _embedded(list(texts), embeddings))
    return {
        name: evaluate(probe, rows, labels, groups, scheme=scheme, **options)
        for name, (probe, rows) in tried.items()
    }


def _bag_of_words() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\S+")
    return make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))


def _embedded(texts: list[str], model: str) -> NDArray[np.float64]:
    try:
        library = importlib.import_module("sentence_transformers")
    except ImportError as error:
        raise DataError(
            "sentence embeddings need the package sentence-transformers, which is not installed: "
            "pip install sentence-transformers, or leave embeddings=None"
        ) from error
    try:
        found = library.SentenceTransformer(model).encode(texts)
    except Exception as error:  # missing files and hub errors of many kinds
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"the embedding model {model} cannot be used: {reason}") from error
    return np.asarray(found, dtype=np.float64)
