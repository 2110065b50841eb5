"""The vector, words and length on answers that made none of them, with planted truths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from persona.errors import DataError
from persona.traits.trait_facts import PoleTexts
from probes.trait_reading import read_trait

N, D = 40, 16


def texts(words_for, words_against, n=N, longer=0):
    rng = np.random.default_rng(n)
    answers, shows, questions = [], [], []
    for place in range(n):
        for told in (True, False):
            own = words_for if told else words_against
            extra = ["so"] * (longer if told else 0)
            answers.append(" ".join([*rng.choice(own, 6), *extra]))
            shows.append(told)
            questions.append(f"q{place}")
    return PoleTexts(answers, np.array(shows), questions)


WORDS = ["tea", "road", "lamp", "door", "seat", "wire"]


def rows(proving, signal, seed=0):
    generator = torch.Generator().manual_seed(seed)
    plain = torch.randn(len(proving.answers), D, generator=generator)
    return plain + signal * torch.tensor(proving.shows).float()[:, None] * torch.eye(D)[0]


SHUFFLED = torch.randn(100, D, generator=torch.Generator().manual_seed(9))


def read(proving, making, signal=2.0):
    return read_trait(
        rows(proving, signal), proving, torch.eye(D)[0], SHUFFLED, making, n_resamples=300
    )


def test_a_signal_beyond_the_text_is_read_and_words_and_length_are_chance():
    found = read(texts(WORDS, WORDS, N), texts(WORDS, WORDS, N + 1))
    assert found.vector.low > 0.8 and found.vector.n == N
    assert found.words.low < 0.5 < found.words.high
    assert found.length.low < 0.5 < found.length.high
    assert found.beyond_words.low > 0 and found.beyond_length.low > 0
    assert found.vector.value > found.shuffled_p97_5 and found.p_value < 0.02
    assert found.held_out_cosine > 0.8 > found.made_of_shuffled_p97_5


def test_no_signal_is_no_better_than_shuffled_poles():
    found = read(texts(WORDS, WORDS, N), texts(WORDS, WORDS, N + 1), signal=0.0)
    assert found.vector.low < 0.5 < found.vector.high
    assert found.vector.value < found.shuffled_p97_5 and found.p_value > 0.05
    assert found.held_out_cosine < found.made_of_shuffled_p97_5


def test_words_and_length_are_seen_where_they_tell_the_poles():
    told = read(texts(WORDS[:4], WORDS[2:], N), texts(WORDS[:4], WORDS[2:], N + 1))
    assert told.words.low > 0.9
    longer = read(texts(WORDS, WORDS, N, longer=3), texts(WORDS, WORDS, N + 1, longer=3))
    assert longer.length.low > 0.9
    assert longer.beyond_length.low <= 0


def test_answers_of_one_pole_are_refused():
    proving = texts(WORDS, WORDS)
    lone = PoleTexts(proving.answers, np.ones(len(proving.answers), bool), proving.questions)
    with pytest.raises(DataError, match="the making answers are of one pole"):
        read(proving, lone)
