"""Measured coherence: what each reading does to it, and the readings themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_llama

from persona.behaviour.judging.coherence import (
    FITTED,
    OTHER_QUESTION,
    CoherenceReading,
    CoherenceScale,
    fitted_scales,
    in_another_order,
    measure_coherence,
    read_coherence,
    repeated_share,
    scale_for,
)
from persona.behaviour.judging.judge import JudgeItem
from persona.errors import JudgeError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.load import load_chat_model
from persona.models.precision import Placement

SCALE = CoherenceScale(4.0, -5.0, 4.0, 1.0, 6.0, 0.1, "made up", 1000)
SOUND = CoherenceReading(-1.5, -2.5, -5.0, 0.0)
ITEMS = [
    JudgeItem("what about the oil", "take care of the oil"),
    JudgeItem("what about the lamp", "throw out the lamp now"),
    JudgeItem("what about the oil", "  "),
    JudgeItem("what about the oil", "take care of the oil"),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = save_tiny_llama(tmp_path_factory.mktemp("tiny"))
    return load_chat_model(folder, Placement.of("float32", "cpu"))


def test_each_reading_alone_makes_an_answer_incoherent():
    assert SCALE.score(SOUND) > 90
    assert SCALE.score(CoherenceReading(-7.0, -8.0, -9.0, 0.0)) < 10  # no language
    assert SCALE.score(CoherenceReading(-4.0, -5.0, -4.1, 0.0)) < 10  # no order to lose
    assert SCALE.score(CoherenceReading(-1.5, -1.4, -5.0, 0.0)) < 50  # of something else
    assert SCALE.score(CoherenceReading(-0.5, -1.5, -4.0, 0.9)) < 15  # one phrase over and over
    assert SCALE.score(CoherenceReading(-1.5, -2.5, None, 0.0)) > 90  # too short to be shuffled


def test_readings_are_those_of_a_plain_pass(tiny):
    model, chat = tiny
    [reading] = read_coherence(model, chat, ITEMS[:1])

    def mean_log_prob(question, written=ITEMS[0].answer):
        text = f"<s><|user|>{question}</s><|assistant|>"
        prompt = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        answer = chat.tokenizer(written, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0]
        p = torch.log_softmax(logits.float(), -1)[len(prompt) - 1 : -1]
        return float(p.gather(1, torch.tensor(answer)[:, None]).mean())

    assert reading.log_prob == pytest.approx(mean_log_prob(ITEMS[0].question), abs=1e-4)
    assert reading.other == pytest.approx(mean_log_prob(OTHER_QUESTION), abs=1e-4)
    mixed = in_another_order(ITEMS[0].answer)
    assert sorted(mixed.split()) == sorted(ITEMS[0].answer.split()) and mixed != ITEMS[0].answer
    assert reading.shuffled == pytest.approx(mean_log_prob(ITEMS[0].question, mixed), abs=1e-4)
    assert reading.repeated == 0.0
    [short] = read_coherence(model, chat, [JudgeItem("what about the oil", "take care now")])
    assert short.shuffled is None


def test_the_same_item_has_the_same_score_and_an_empty_one_has_none(tiny):
    model, chat = tiny
    found = measure_coherence(model, chat, ITEMS, name="tiny", scale=SCALE)
    alone = measure_coherence(model, chat, ITEMS[:1], name="tiny", scale=SCALE)
    assert found.scores[2] is None
    assert found.scores[0] == found.scores[3]
    assert found.scores[0] == pytest.approx(alone.scores[0], abs=1e-3)
    assert (found.model, found.fitted_in) == ("tiny", "made up")
    assert measure_coherence(model, chat, ITEMS[2:3], name="tiny").scores == (None,)


def test_a_phrase_said_over_and_over_is_repeated():
    def share(answer):
        return repeated_share(TokenizedDialogue((9, *answer), (1, 1 + len(answer))))

    assert share(range(20)) == 0.0
    assert share([1, 2, 3, 4] * 5) == pytest.approx(13 / 17)
    assert share([1, 2]) == 0.0


def test_another_model_takes_the_numbers_of_the_one_nearest_in_size():
    sizes = [scale.n_parameters for scale in fitted_scales()]
    assert sizes == sorted(sizes)
    assert scale_for(1).n_parameters == sizes[0]
    assert scale_for(7_000_000_000).n_parameters == sizes[-1]
    for scale in fitted_scales():
        assert scale_for(scale.n_parameters) == scale


def test_the_shipped_numbers_say_what_they_were_fitted_on():
    rows = json.loads(FITTED.read_text())["scales"]
    for row in rows:
        assert row["answers"] > 80
        assert row["questions"] == 16
        assert row["fluent_slope"] > 0
        assert row["relevant_slope"] > 0


@pytest.mark.parametrize("content", [None, "nothing", "{}", '{"scales": [{"model": 1}]}'])
def test_a_file_that_holds_no_scales_is_one_clear_line(tmp_path, content):
    path = tmp_path / "coherence.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(JudgeError, match="holds no scales of coherence"):
        fitted_scales(path)


def test_the_fit_finds_the_numbers_that_separate_the_kinds():
    from coherence_fit import COHERENT, fit

    rng = np.random.default_rng(0)
    readings, kinds = [], []
    for kind, log_prob, gain, order in (
        ("t0", -1.0, 1.0, 5.0), ("t0.5", -1.5, 0.8, 4.0), ("written", -4.5, 0.6, 2.0),
        ("t1.5", -8.0, 0.3, 0.5), ("t2", -9.0, 0.1, 0.1), ("salad", -5.0, 0.4, 0.1),
        ("other question", -2.0, 0.0, 4.0),
    ):  # fmt: skip
        for _ in range(30):
            value = log_prob + rng.normal() / 3
            other, mixed = value - gain + rng.normal() / 10, value - order + rng.normal() / 5
            readings.append(CoherenceReading(value, other, mixed, 0.0))
            kinds.append(kind)
    found = fit(readings, kinds, "made up", 1000)
    assert 0.1 < found.ordered_middle < 2
    assert 0 < found.relevant_middle < 0.6
    right = [
        (found.score(reading) > 50) == (kind in COHERENT)
        for reading, kind in zip(readings, kinds, strict=True)
    ]
    assert np.mean(right) > 0.97
