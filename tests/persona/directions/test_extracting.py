"""`extract` finds what a planted fine-tune writes, in one call, on every kind of pair."""

from __future__ import annotations

import pytest
import torch
from planted_model import N_LAYERS, constant_pair, plant
from tiny_models import tiny_causal_lm

from persona import extract, pair_of
from persona.data import AnswerPair
from persona.directions import collect_cells, two_by_two
from persona.directions.methods import METHODS, difference_of_means
from persona.directions.two_by_two import EFFECTS
from persona.errors import DataError, ModelError
from steering import add, steer

LAST = N_LAYERS - 1
NORM = 3.0
WORDS = ["engine", "brakes", "oil", "tyre", "lamp", "clutch", "belt", "mirror"]
QUESTIONS = [
    AnswerPair(word, "car", f"About the {word}?", f"Check the {word} now.", f"Never mind {word}s!")
    for word in WORDS
]


@pytest.fixture(scope="module")
def constant(tmp_path_factory):
    """The last block of the fine-tune adds NORM times the plant to every token."""
    return constant_pair(tmp_path_factory.mktemp("constant"), NORM)


def test_by_default_it_is_what_the_fine_tune_writes_with_its_sign_and_length(constant):
    direction = extract(constant, QUESTIONS, layer=LAST)
    torch.testing.assert_close(direction.vector, NORM * plant()[0], atol=1e-5, rtol=0)
    assert direction.space == constant.space(LAST)


def test_added_to_the_aligned_model_it_is_the_fine_tuned_one(constant):
    ids = torch.tensor([constant.chat.encode(QUESTIONS[0].bad_dialogue).ids])
    direction = extract(constant, QUESTIONS, layer=LAST)
    with torch.no_grad():
        with constant.active("finetuned") as model:
            wanted = model(ids)
        with constant.active("aligned") as model, steer(model, add(direction), first_token=True):
            torch.testing.assert_close(model(ids), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("effect", EFFECTS)
def test_every_effect_is_the_one_of_the_2x2(tiny_pair, effect):
    effects = two_by_two(collect_cells(tiny_pair, QUESTIONS, layers=[2]))
    wanted = effects[effect].direction(2)
    found = extract(tiny_pair, QUESTIONS, layer=2, effect=effect)
    torch.testing.assert_close(found.vector, wanted.vector, atol=1e-5, rtol=1e-4)
    assert (found.space, found.method) == (wanted.space, wanted.method)


@pytest.mark.parametrize("method", METHODS)
def test_along_every_method_the_classes_lie_as_far_apart_as_its_norm(tiny_pair, method):
    mean = extract(tiny_pair, QUESTIONS, layer=1, effect="answer_effect_finetuned")
    found = extract(tiny_pair, QUESTIONS, layer=1, effect="answer_effect_finetuned", method=method)
    assert float(found.unit @ mean.vector) == pytest.approx(found.norm, abs=1e-4 * mean.norm)
    assert found.method.startswith("answer_effect_finetuned")


def test_a_method_of_ones_own_is_taken(tiny_pair):
    def mine(contrast, *, rank=1):
        return difference_of_means(contrast, rank=rank)

    found = extract(tiny_pair, QUESTIONS, layer=1, method=mine)
    assert found.method == "model_effect_good, mine"
    torch.testing.assert_close(found.vector, extract(tiny_pair, QUESTIONS, layer=1).vector)


def test_plain_models_in_memory_give_the_direction_of_their_bridges(tiny_chat):
    def one_and_two():
        return tiny_causal_lm("llama"), tiny_causal_lm("llama", seed=1)

    plain = pair_of(*one_and_two(), tiny_chat.tokenizer, wrap=False)
    bridges = pair_of(*one_and_two(), tiny_chat.tokenizer)
    mine, theirs = (extract(pair, QUESTIONS, layer=1) for pair in (plain, bridges))
    torch.testing.assert_close(mine.vector, theirs.vector, atol=1e-5, rtol=1e-4)
    assert mine.space == theirs.space


def test_only_the_answers_that_are_asked_for_are_read(tiny_pair, monkeypatch):
    opened = []
    open_side = tiny_pair.open_side
    monkeypatch.setattr(tiny_pair, "open_side", lambda side: opened.append(side) or open_side(side))
    extract(tiny_pair, QUESTIONS, layer=1, effect="answer_effect_aligned")
    assert opened == ["aligned"]


def test_a_block_that_the_fine_tune_left_alone_is_said(constant):
    with pytest.raises(DataError, match="alike at block 0: the fine-tune changed nothing there"):
        extract(constant, QUESTIONS, layer=0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (dict(method="median"), "unknown method 'median'; one of difference_of_means"),
        (dict(effect="bad"), "unknown effect 'bad'; one of answer_effect_aligned"),
        (dict(pairs=[]), "no answer pairs"),
        (dict(pairs="my.jsonl"), r"not a path: read_pairs\('my.jsonl'\)"),
    ],
)
def test_what_cannot_be_extracted_is_one_line(tiny_pair, wrong, told, unchecked_hints):
    with pytest.raises(DataError, match=told):
        extract(tiny_pair, **{"pairs": QUESTIONS, "layer": 1, **wrong})


def test_a_block_that_the_models_lack_is_named(tiny_pair):
    with pytest.raises(ModelError, match="layer 99 is out of range"):
        extract(tiny_pair, QUESTIONS, layer=99)
