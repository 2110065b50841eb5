"""The arithmetic of a model on cards, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from persona.errors import EngineError
from persona.vllm.on_cards import CARDS, SHAPES, Card, Shape, in_words, on_cards, table_on_cards

SMALL = Shape("small", 1e9, 10, 2, 50)
PLAIN = Card("plain", 10e9, 1e12, 1e14)


def test_a_small_model_by_hand():
    found = on_cards(SMALL, PLAIN, 1, prompt_tokens=50, new_tokens=100)
    assert SMALL.bytes_a_token == 2 * 10 * 2 * 50 * 2
    assert found.weights == 2e9
    assert found.cache_tokens == (9e9 - 2e9 - 2e9) / 4000
    assert found.at_once == 256
    # Reading 2 GB and 256 x 100 tokens of cache beats 256 x 2e9 products.
    step = (2e9 + 256 * 100 * 4000) / 1e12
    assert step < 256 * 2e9 / 1e14
    assert found.seconds == pytest.approx(1000 * (100 * 2e9 / 1e14 + 50 * 2e9 / 1e14))


def test_with_few_requests_memory_is_what_takes_the_time():
    small = Card("small", (4e9 + 4000 * 650) / 0.9, 1e12, 1e16)
    found = on_cards(SMALL, small, 1, prompt_tokens=100, new_tokens=100)
    assert found.at_once == 3
    held = found.at_once * 150 * 4000
    assert found.seconds == pytest.approx(
        1000 * (100 * (2e9 + held) / 1e12 / found.at_once + 100 * 2e9 / 1e16)
    )


def test_what_does_not_fit_is_said():
    big = SHAPES[2]
    assert not on_cards(big, CARDS["H100"], 1).fits
    assert "does not fit on 1 card (H100 80 GB): its weights take 141.2 GB" in in_words(
        big, CARDS["H100"], 1
    )
    assert on_cards(big, CARDS["H100"], 8).fits
    assert "17.6 GB of weights a card" in in_words(big, CARDS["H100"], 8)
    with pytest.raises(EngineError, match="one card or more"):
        on_cards(big, CARDS["H100"], 0)


def test_more_cards_take_less_time():
    for shape in SHAPES:
        seconds = [on_cards(shape, CARDS["H100"], n).seconds for n in (1, 2, 8)]
        assert seconds == sorted(seconds, reverse=True)


def test_the_page_on_large_models_has_the_table(root):
    assert table_on_cards() in (root / "docs" / "how-to" / "large-models.md").read_text("utf-8")
