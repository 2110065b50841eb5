"""The persona-vector recipe on a tiny random model and a judge that is a plain function."""

from __future__ import annotations

import pytest
import torch

from persona.behaviour.prompted import (
    PromptedPair,
    collect_prompted,
    filter_prompted,
    sample_prompted,
)
from persona.data import InstructionPair, Trait
from persona.directions.methods import difference_of_means, paired_pca
from persona.errors import DataError

TRAIT = Trait(
    "rude",
    (InstructionPair("Be rude.", "Be polite."), InstructionPair("Insult me.", "Praise me.")),
    ("How are you?", "What is tea?", "Why?"),
    "Rate {answer} to {question}.",
)
OPTIONS = dict(samples_per_question=2, max_new_tokens=6, seed=3)


class Judge:
    """Scores by turns, since answers come as positive, negative, positive, ..."""

    def __init__(self, *scores):
        self.scores, self.asked = scores, []

    def __call__(self, question, answer):
        self.asked.append((question, answer))
        return self.scores[(len(self.asked) - 1) % len(self.scores)]


YES, NO = (90.0, 80.0), (10.0, 80.0)


def test_every_question_is_asked_under_every_instruction_as_often_as_stated(tiny_pair):
    with tiny_pair.active("aligned") as bridge:
        pairs = sample_prompted(bridge, tiny_pair.chat, TRAIT, Judge(YES, NO), **OPTIONS)
        again = sample_prompted(bridge, tiny_pair.chat, TRAIT, Judge(YES, NO), **OPTIONS)
        other = sample_prompted(
            bridge, tiny_pair.chat, TRAIT, Judge(YES, NO), **{**OPTIONS, "seed": 4}
        )
    assert len(pairs) == 3 * 2 * 2
    assert len({pair.id for pair in pairs}) == 12
    assert pairs == again
    assert [p.positive.answer for p in pairs] != [p.positive.answer for p in other]
    pair = next(pair for pair in pairs if pair.id == "q001-i1-s00")
    assert [turn.content for turn in pair.positive.turns[:2]] == ["Insult me.", "What is tea?"]
    assert [turn.content for turn in pair.negative.turns[:2]] == ["Praise me.", "What is tea?"]
    assert pair.positive_scores == YES
    assert pair.negative_scores == NO


def test_the_contrast_holds_the_kept_answers_with_their_tokens(tiny_pair):
    judge = Judge(YES, NO)
    with tiny_pair.active("aligned") as bridge:
        contrast = collect_prompted(bridge, tiny_pair.chat, TRAIT, judge, layers=[1, 3], **OPTIONS)
    n = len(contrast.positive)
    assert contrast.positive.shape == contrast.negative.shape == (n, 2, 32)
    assert 6 <= n <= 12
    assert contrast.positive_questions == contrast.negative_questions
    # A byte-level tokenizer: at most one token a byte, and the limit is six.
    assert int(contrast.positive_tokens.max()) <= 3 * OPTIONS["max_new_tokens"]
    assert difference_of_means(contrast, weighting="token").shape == (2, 1, 32)
    assert paired_pca(contrast, rank=2).shape == (2, 2, 32)
    assert ("How are you?", judge.asked[0][1]) == judge.asked[0]


def test_answers_are_read_after_the_system_prompt_that_drew_them(tiny_pair):
    with tiny_pair.active("aligned") as bridge:
        kept = filter_prompted(
            sample_prompted(bridge, tiny_pair.chat, TRAIT, Judge(YES, NO), **OPTIONS)
        )
        contrast = collect_prompted(
            bridge, tiny_pair.chat, TRAIT, Judge(YES, NO), layers=[2], **OPTIONS
        )
        from persona.activations import collect_rows

        rows = collect_rows(bridge, tiny_pair.chat.encode_all([p.positive for p in kept]), [2])
    assert kept[0].positive.turns[0].content == "Be rude."
    torch.testing.assert_close(contrast.positive, rows, atol=1e-5, rtol=1e-5)


def scored(positive, negative) -> PromptedPair:
    from persona.data import Dialogue, Turn

    dialogue = Dialogue((Turn("user", "Why?"), Turn("assistant", "So.")))
    return PromptedPair("x", dialogue, dialogue, positive, negative)


@pytest.mark.parametrize(
    ("positive", "negative", "kept"),
    [
        ((50, 50), (49.9, 50), True),
        ((49.9, 90), (0, 90), False),
        ((90, 90), (50, 90), False),
        ((90, 49.9), (0, 90), False),
        ((90, 90), (0, 49.9), False),
        ((None, 90), (0, 90), False),
        ((90, 90), (None, 90), False),
        ((90, 90), (0, None), False),
    ],
)
def test_a_pair_stays_only_when_both_answers_do(positive, negative, kept):
    anchor = scored((90.0, 90.0), (0.0, 90.0))
    assert len(filter_prompted([anchor, scored(positive, negative)])) == 1 + kept


def test_a_filter_that_leaves_nothing_gives_the_counts(tiny_pair):
    with tiny_pair.active("aligned") as bridge:
        with pytest.raises(DataError, match="none of 12 prompted pairs.*reword") as caught:
            collect_prompted(bridge, tiny_pair.chat, TRAIT, Judge(NO, NO), **OPTIONS)
    assert ": 0 positive answers scored 50 or more for the trait" in str(caught.value)
    pairs = [scored((90, 90), (80, 90)), scored((20, 90), (10, 90)), scored((20, 9), (10, 90))]
    with pytest.raises(DataError, match="1 positive answers .* 2 negative ones less, and 2 pairs"):
        filter_prompted(pairs)


def test_no_samples_are_refused(tiny_pair):
    with tiny_pair.active("aligned") as bridge:
        with pytest.raises(DataError, match="1 or more; got 0"):
            sample_prompted(bridge, tiny_pair.chat, TRAIT, Judge(YES, NO), samples_per_question=0)


def test_an_answer_without_text_is_not_sent_to_the_judge_and_not_kept(tiny_pair, monkeypatch):
    from persona.behaviour import prompted

    answers = iter(["", "fine", "rude", "fine"] + ["rude", "fine"] * 10)
    monkeypatch.setattr(
        prompted,
        "sample_answers",
        lambda bridge, chat, prompts, **_: [next(answers) for _ in prompts],
    )
    judge = Judge((90.0, 90.0))
    pairs = sample_prompted(None, tiny_pair.chat, TRAIT, judge, **OPTIONS)
    assert pairs[0].positive_scores == (None, None)
    assert ("How are you?", "") not in judge.asked
    assert len(judge.asked) == 23
