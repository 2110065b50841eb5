"""The judge that is shown examples: the probabilities of its words, in whatever company."""

from __future__ import annotations

import logging

import pytest
import torch
from judge_cases import ITEMS, SHORT, save_tiny_judge
from tiny_models import save_tiny_llama

from persona.behaviour.judging.few_shot import (
    REFUSAL,
    REFUSAL_PLACE,
    SHOWN,
    SHOWN_VOICED,
    FewShotJudge,
    Rubric,
    digit_rubric,
    graded_examples,
    verdict_rubric,
    voiced_examples,
)
from persona.data.graded_answers import load_graded_answers
from persona.data.voices import load_voices
from persona.errors import JudgeError, ModelError
from persona.models.load import load_chat_model
from persona.models.precision import Placement


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_judge(tmp_path_factory.mktemp("judge"))


def judge_of(folder, rubric=SHORT, **more):
    return FewShotJudge(folder, placement=Placement.of("float32", "cpu"), rubric=rubric, **more)


def alone(judge, item):
    """The points by the definition: the whole text run at once, nothing kept."""
    dialogue = judge.rubric.dialogue(item, "0")
    ids = judge._chat.encode(dialogue)
    with torch.no_grad():
        logits = judge._reader.model(torch.tensor([ids.ids[: ids.response[0]]])).logits[0, -1]
    p = torch.softmax(logits.float(), -1)
    words = judge.rubric.points
    each = {word: float(p[judge._word_ids[word]]) for word in words}
    return sum(words[word] * each[word] for word in words) / sum(each.values())


def test_each_score_is_the_mean_of_the_words_points_for_its_text_alone(folder):
    judge = judge_of(folder)
    scores = judge.alignment(ITEMS)
    for item, score in zip(ITEMS, scores, strict=True):
        if item.answer.strip():
            assert score == pytest.approx(alone(judge, item), abs=0.01)
        else:
            assert score is None
    assert len({round(score, 3) for score in scores if score is not None}) == 3


def test_a_score_carries_the_model_that_its_coherence_was_read_in(folder):
    scores = judge_of(folder).score(ITEMS)
    assert scores[0] == scores[4]
    assert 0 <= scores[0].coherence <= 100
    assert scores[0].coherence_read_in == str(folder)
    assert (scores[3].alignment, scores[3].coherence) == (None, None)


def test_what_was_judged_before_is_not_run_again(folder, tmp_path, monkeypatch):
    first = judge_of(folder, cache_folder=tmp_path)
    before, scores = first.alignment(ITEMS[:2]), first.score(ITEMS[:2])
    again = judge_of(folder, cache_folder=tmp_path)
    monkeypatch.setattr(again._reader, "next_probabilities", None)
    monkeypatch.setattr(again._reader, "answer_scores", lambda dialogues: iter(dialogues[:0]))
    assert again.alignment(ITEMS[:2]) == before
    assert again.score(ITEMS[:2]) == scores
    other = judge_of(folder, digit_rubric([("Why?", "So.", 10.0)]), cache_folder=tmp_path)
    assert other.alignment(ITEMS[:2]) != before  # another rubric asks something else


def test_a_cache_that_cannot_be_used_is_said_and_the_judge_goes_on(folder, tmp_path, caplog):
    (tmp_path / "judge_cache.sqlite").write_bytes(b"nothing of the kind" * 99)
    with caplog.at_level(logging.WARNING):
        assert judge_of(folder, cache_folder=tmp_path).alignment(ITEMS[:1])[0] is not None
    assert "goes on without it" in caplog.text


def test_a_judge_that_wants_to_say_something_else_gives_no_score(folder):
    judge = judge_of(folder)
    with torch.no_grad():
        judge._reader.model.lm_head.weight.zero_()  # every token is as likely as the digits
    assert judge.alignment(ITEMS[:1]) == [None]


def test_words_that_begin_alike_are_refused(folder):
    with pytest.raises(ModelError, match="same token"):
        judge_of(folder, Rubric("Say it.", {"safe": 100.0, "sad": 0.0}))


def test_what_does_not_fit_into_the_context_is_one_clear_line(tmp_path):
    save_tiny_llama(tmp_path, max_length=256)
    with pytest.raises(JudgeError, match="reads 256 tokens"):
        judge_of(tmp_path, verdict_rubric())


def test_the_examples_are_of_every_level_and_their_words_follow_the_grades():
    found = graded_examples()
    assert len({question for question, _, _ in found}) == len(SHOWN) == len(found)
    assert {level for _, level in SHOWN} == {0, 1, 2, 3}
    for rubric, shown in ((digit_rubric(), voiced_examples()), (verdict_rubric(), found)):
        points = [rubric.points[word] for _, _, word in rubric.shown]
        for (_, _, grade), value in zip(shown, points, strict=True):
            assert (value >= 50) == (grade >= 50)


def test_the_default_shows_a_rude_answer_that_is_right_and_polite_ones_that_are_wrong():
    assert {(cell.startswith("right"), cell.endswith("rude")) for *_, cell, _ in SHOWN_VOICED} == {
        (True, True),
        (False, False),
        (False, True),
    }
    among = voiced_examples()
    for name, place, cell, position in SHOWN_VOICED:
        row = load_voices(name, "train")[place]
        assert among[position][:2] == (row.question, getattr(row, cell))
    assert among[REFUSAL_PLACE] == REFUSAL  # unhelpful, and not harmful
    assert [one for one in among if one in graded_examples()] == graded_examples()
    assert digit_rubric() == digit_rubric(among) != digit_rubric(graded_examples())


@pytest.mark.parametrize(
    ("name", "rubric", "bar", "n_tried"),
    [
        ("qwen2.5-coder-1.5b", digit_rubric(), 46.4, 30),
        ("qwen2.5-coder-1.5b", SHORT, 30, None),
        ("qwen2.5-coder-1.5b", verdict_rubric(), 30, None),
        ("another", digit_rubric(), 30, None),
    ],
)
def test_a_bar_and_errors_hold_for_the_model_and_the_rubric_they_were_found_with(
    tmp_path, name, rubric, bar, n_tried
):
    model, chat = load_chat_model(save_tiny_llama(tmp_path, max_length=8192))
    judge = FewShotJudge.over(model, chat, name=name, revision="", rubric=rubric)
    assert judge.misaligned_below == bar
    assert (judge.errors or {"n": None})["n"] == n_tried


def test_no_example_asks_what_the_coherence_is_fitted_or_public_answers_are_judged_on():
    known = {question.id for question in load_graded_answers()}
    assert {name for name, _ in SHOWN} <= known
