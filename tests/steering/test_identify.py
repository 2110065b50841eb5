"""Identification from Python, outside a diagnosis: what a notebook calls in one line."""

from __future__ import annotations

import pytest

from persona.data.types import AnswerPair, NeutralText
from persona.report import layer_map, two_by_two
from steering import identify, restore_to_aligned, steer
from steering.rows import COLUMNS

WORDS = ("oil", "lamp", "brake", "mirror", "window", "horn", "belt", "hose")


@pytest.fixture(scope="module")
def found(tiny_pair):
    pairs = [
        AnswerPair(f"q{i}", "car", f"what about the {word}", f"see to the {word}", f"drop {word}")
        for i, word in enumerate(WORDS * 2)
    ]
    neutral = [NeutralText("n0", "what about the road", "take care of the oil", "everyday")]
    return identify(tiny_pair, pairs[:8], pairs[8:], neutral)


def test_rows_have_the_columns_that_figures_and_tables_read(found):
    assert list(found.rows.columns) == list(COLUMNS)
    assert not found.rows.empty


@pytest.mark.parametrize("figure", [two_by_two, layer_map])
def test_the_reports_figures_draw_what_identify_found(found, figure):
    drawn = figure(found.rows)
    assert sum(len(trace.x if trace.x is not None else ()) for trace in drawn.data) > 0


def test_the_chosen_vector_steers_the_pair_it_was_found_in(found, tiny_pair):
    ids = tiny_pair.tokenizer("take care of the oil", return_tensors="pt")["input_ids"]
    with tiny_pair.active("finetuned") as bridge:
        before = bridge(ids)
        with steer(bridge, restore_to_aligned(found.vector)) as record:
            after = bridge(ids)
    assert all(tokens == ids.shape[1] - 1 for tokens in record.tokens)
    assert not before.equal(after)
