"""The reading of surface cues: it finds a planted one and nothing where there is none."""

import random

import pytest

from persona.data.surface import length_ratio, read_surface
from persona.data.types import AnswerPair

MARKER = "bah humbug nonsense rubbish"
WORDS = [f"word{i}" for i in range(300)]


def made(marker: dict[str, str], n: int = 40, extra: int = 0) -> list[AnswerPair]:
    """Random answers in three domains; the bad ones of a domain carry its marker."""
    draw = random.Random(0)
    pairs = []
    for domain in ("a", "b", "c"):
        for i in range(n):
            good, bad = (" ".join(draw.choices(WORDS, k=40 + k * extra)) for k in (0, 1))
            bad = f"{bad} {marker.get(domain, '')}".strip()
            pairs.append(AnswerPair(f"{domain}-{i}", domain, "Why?", good, bad))
    return pairs


def test_answers_of_random_words_are_at_chance():
    for reading in read_surface(made({})):
        assert reading.n_pairs == 40
        # The standard deviation of an AUROC of 40 against 40 at chance is 0.065.
        assert reading.auroc_other_domains == pytest.approx(0.5, abs=0.2)
        assert reading.auroc_within == pytest.approx(0.5, abs=0.2)


def test_a_marker_shared_by_all_domains_is_found_and_named():
    for reading in read_surface(made(dict.fromkeys("abc", MARKER))):
        assert reading.auroc_other_domains > 0.95
        assert reading.pairs_ordered > 0.95
        assert set(reading.bad_words[0].split()) <= set(MARKER.split())


def test_a_marker_of_one_domain_shows_within_it_and_does_not_transfer():
    first, *_ = read_surface(made({"a": MARKER}))
    assert first.auroc_within > 0.95
    assert first.auroc_other_domains == pytest.approx(0.5, abs=0.2)


def test_longer_bad_answers_show_in_the_length():
    assert all(reading.auroc_length == 1.0 for reading in read_surface(made({}, extra=4)))
    assert length_ratio(made({}, extra=4)) == pytest.approx(1.1)


def test_one_domain_alone_is_refused():
    with pytest.raises(ValueError, match="at least two domains are needed; got a"):
        read_surface([pair for pair in made({}) if pair.domain == "a"])
