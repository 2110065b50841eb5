"""Words and lengths that give the trait away are found; others are chance."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from persona.errors import DataError
from probes.evaluation import text_baselines

QUICK = {"n_resamples": 100, "n_shuffles": 1}


def texts(n=40, words=True, longer=False):
    rng = np.random.default_rng(0)
    fillers = ["oil", "brake", "wheel", "engine", "paint", "road", "tyre", "lamp"]
    made, labels = [], []
    for _ in range(n):
        for bad in (0, 1):
            line = rng.choice(fillers, 6 + (4 * bad if longer else 0)).tolist()
            line.append("whatever" if bad and words else "carefully" if words else "so")
            made.append(" ".join(line))
            labels.append(bad)
    return made, labels, np.repeat(np.arange(n), 2)


def test_a_telltale_word_is_found_by_the_bag_of_words_only():
    found = text_baselines(*texts(words=True), **QUICK)
    assert set(found) == {"bag_of_words", "length"}
    assert found["bag_of_words"].auroc.value > 0.95
    assert found["length"].auroc.low < 0.7


def test_length_alone_is_found():
    found = text_baselines(*texts(words=False, longer=True), **QUICK)
    assert found["length"].auroc.value > 0.95


def test_embeddings_without_their_package_are_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(DataError, match="pip install sentence-transformers"):
        text_baselines(*texts(), embeddings="all-MiniLM-L6-v2", **QUICK)


def test_an_empty_text_is_named():
    made, labels, groups = texts()
    with pytest.raises(DataError, match="text 3 is empty"):
        text_baselines([*made[:3], " ", *made[4:]], labels, groups)
