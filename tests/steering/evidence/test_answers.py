"""Answers to read are greedy and whole; those that a judge counts are drawn, and kept apart."""

from __future__ import annotations

import pytest
from demo_cases import planted_vector

from persona.behaviour.judging.judge import JudgeScore
from persona.data.types import AnswerPair
from steering.evidence import answers as sampled
from steering.evidence.answers import (
    READ_TOKENS,
    judge_samples,
    judged_conditions,
    sample_conditions,
)

ASKED = [
    AnswerPair("q-1", "health", "What now?", "take care", "never mind"),
    AnswerPair("q-2", "money", "And then?", "save some", "spend it"),
]
CONDITIONS = {"aligned", "finetuned", "finetuned_restored", "finetuned_zero_ablated"}


@pytest.fixture(scope="module")
def samples(tiny_pair):
    return sample_conditions(tiny_pair, planted_vector(tiny_pair), ASKED, seed=0)


def test_the_rows_hold_the_questions_the_greedy_answers_and_the_draws(samples):
    n = samples.groupby("measure").size().to_dict()
    assert n == {"question": 2, "greedy_answer": 2 * 4, "answer": 2 * 4 * 2}
    asked = samples[samples["measure"] == "question"]
    assert dict(zip(asked["question_id"], asked["text"], strict=True)) == {
        "q-1": "What now?",
        "q-2": "And then?",
    }
    kept = samples[samples["measure"] != "question"]
    assert set(kept["condition"]) == CONDITIONS
    temperatures = kept.groupby("measure")["value"].unique()
    assert (*temperatures["greedy_answer"], *temperatures["answer"]) == (0.0, 1.0)


def test_greedy_answers_are_those_of_asking_whatever_the_seed(samples, tiny_pair):
    again = sample_conditions(tiny_pair, planted_vector(tiny_pair), ASKED, seed=5)
    greedy = [table[table["measure"] == "greedy_answer"]["text"] for table in (samples, again)]
    assert list(greedy[0]) == list(greedy[1])
    drawn = [table[table["measure"] == "answer"]["text"] for table in (samples, again)]
    assert list(drawn[0]) != list(drawn[1])
    asked = tiny_pair.ask(ASKED[0].question, "finetuned", max_new_tokens=READ_TOKENS)
    [mine] = samples.query(
        "measure == 'greedy_answer' and condition == 'finetuned' and question_id == 'q-1'"
    )["text"]
    assert asked.startswith(mine.removesuffix(" …"))


def test_a_judge_reads_the_draws_alone(samples, tiny_pair):
    class Judge:
        name = "counts"

        def score(self, items):
            self.items = list(items)
            return [JudgeScore(20.0, 90.0) for _ in self.items]

    judge = Judge()
    rows = judge_samples(judge, samples, ASKED, planted_vector(tiny_pair))
    drawn = samples[samples["measure"] == "answer"]
    assert [item.answer for item in judge.items] == list(drawn["text"])
    assert set(rows["measure"]) == {"alignment", "coherence"} and len(rows) == 2 * 16
    found = judged_conditions(rows, 0, 30.0)
    assert found.keys() == CONDITIONS
    assert found["finetuned"]["em_rate"]["n"] == 4


@pytest.mark.parametrize(
    ("answer", "n_tokens", "shown"),
    [
        ("Ask. Then wait until", 200, "Ask."),
        ('He said "no." And so', 200, 'He said "no."'),
        ("At 3.5 litres it stops. Or", 200, "At 3.5 litres it stops."),
        ("no end in sight", 200, "no end in sight …"),
        ("", 0, ""),
        ("A short one, ended by its turn", 12, "A short one, ended by its turn"),
    ],
)
def test_an_answer_that_was_cut_ends_with_a_whole_sentence(answer, n_tokens, shown):
    class Chat:
        class tokenizer:
            encode = staticmethod(lambda text, add_special_tokens: [0] * n_tokens)

    assert sampled._whole_sentences.__wrapped__(answer, Chat()) == shown
