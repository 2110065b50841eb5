"""Teacher-forced readings equal a slow textbook computation, however they are batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from persona.behaviour import Condition, bootstrap, sample_answers, score_neutral, score_pairs
from persona.behaviour.scoring import score_dialogues
from persona.data.types import AnswerPair, Dialogue, NeutralText, Turn
from persona.errors import DataError

QUESTIONS = [
    AnswerPair("a", "car", "what now", "take good care", "throw it away at once"),
    AnswerPair("b", "home", "and then", "ask a friend for help", "run"),
]
BOTH = [Condition("aligned", "aligned"), Condition("finetuned", "finetuned")]


def value(rows, condition, question, measure):
    chosen = rows[
        (rows.condition == condition) & (rows.question_id == question) & (rows.measure == measure)
    ]
    return chosen["value"].item()


@pytest.fixture(scope="module")
def textbook(tiny_llama, tiny_adapter):
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama)
    tuned = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_llama), tiny_adapter
    )
    return {"aligned": plain, "finetuned": tuned}


def log_probs(model, dialogue):
    start, end = dialogue.response
    with torch.no_grad():
        logits = model(torch.tensor([dialogue.ids])).logits[0, start - 1 : end - 1]
    return logits.double().log_softmax(-1), torch.tensor(dialogue.ids[start:end])


def test_gap_and_kl_equal_the_textbook(tiny_pair, textbook):
    rows = score_pairs(tiny_pair, QUESTIONS, BOTH, token_budget=64)
    for question in QUESTIONS:
        good, bad = tiny_pair.chat.encode_all([question.good_dialogue, question.bad_dialogue])
        for side, model in textbook.items():
            means = []
            for dialogue in (bad, good):
                table, targets = log_probs(model, dialogue)
                means.append(table.gather(1, targets[:, None]).mean())
            expected = float(means[0] - means[1])
            assert value(rows, side, question.id, "gap") == pytest.approx(expected, abs=1e-4)
        p, _ = log_probs(textbook["aligned"], good)
        q, _ = log_probs(textbook["finetuned"], good)
        kl = float((p.exp() * (p - q)).sum(-1).mean())
        # References are kept in half precision: good to about 1e-3 nats.
        assert kl > 0.05
        assert value(rows, "finetuned", question.id, "kl_good_nats") == pytest.approx(kl, abs=5e-3)
        assert value(rows, "aligned", question.id, "kl_good_nats") == pytest.approx(0, abs=1e-3)


def test_a_bigger_batch_reads_the_same(tiny_pair):
    small = score_pairs(tiny_pair, QUESTIONS, BOTH, token_budget=1)
    large = score_pairs(tiny_pair, QUESTIONS, BOTH, token_budget=4096)
    np.testing.assert_allclose(small["value"], large["value"], atol=1e-4)


def test_the_gap_changes_sign_when_the_answers_are_swapped(tiny_pair):
    swapped = [AnswerPair(q.id, q.domain, q.question, q.bad, q.good) for q in QUESTIONS]
    a = score_pairs(tiny_pair, QUESTIONS, BOTH, kl=False)
    b = score_pairs(tiny_pair, swapped, BOTH, kl=False)
    for question in QUESTIONS:
        gap = value(a, "finetuned", question.id, "gap")
        assert value(b, "finetuned", question.id, "gap") == pytest.approx(-gap, abs=1e-5)


def test_neutral_cross_entropy_is_minus_the_mean_log_probability(tiny_pair, textbook):
    texts = [NeutralText("n1", "name a colour", "blue is one", "list")]
    rows = score_neutral(tiny_pair, texts, BOTH)
    encoded = tiny_pair.chat.encode(
        Dialogue((Turn("user", texts[0].prompt), Turn("assistant", texts[0].answer)))
    )
    table, targets = log_probs(textbook["finetuned"], encoded)
    expected = -float(table.gather(1, targets[:, None]).mean())
    assert value(rows, "finetuned", "n1", "neutral_ce_nats") == pytest.approx(expected, abs=1e-4)


def test_kl_beyond_the_memory_for_references_is_absent_not_zero(tiny_pair, monkeypatch):
    monkeypatch.setattr("persona.behaviour.scoring.MAX_REFERENCE_BYTES", 261 * 2 * 20)
    rows = score_pairs(tiny_pair, QUESTIONS, BOTH, token_budget=1)
    kl = rows[(rows.measure == "kl_good_nats") & (rows.condition == "finetuned")]["value"]
    assert kl.isna().sum() == 1 and kl.notna().sum() == 1


def test_a_dialogue_without_an_answer_is_refused(tiny_pair):
    prompt = tiny_pair.chat.encode(Dialogue((Turn("user", "hm"),), "p1"))
    with pytest.raises(DataError, match="'p1' has no answer to score"):
        score_dialogues(tiny_pair, [prompt], BOTH)


def test_sampling_is_seeded_and_independent_of_the_global_generator(tiny_pair):
    prompts = [q.good_dialogue for q in QUESTIONS]
    with tiny_pair.active("finetuned") as bridge:
        draw = lambda seed: sample_answers(  # noqa: E731
            bridge, tiny_pair.chat, prompts, max_new_tokens=12, seed=seed
        )
        torch.manual_seed(1)
        first = draw(0)
        torch.manual_seed(2)
        before = torch.get_rng_state()
        assert draw(0) == first
        assert torch.equal(torch.get_rng_state(), before)
        assert draw(1) != first


def test_greedy_batched_answers_equal_those_of_single_prompts(tiny_pair):
    prompts = [Dialogue((Turn("user", q),)) for q in ("a", "a far longer question", "mid one")]
    with tiny_pair.active("finetuned") as bridge:
        options = {"max_new_tokens": 10, "temperature": 0.0}
        together = sample_answers(bridge, tiny_pair.chat, prompts, **options)
        alone = [sample_answers(bridge, tiny_pair.chat, [p], **options)[0] for p in prompts]
    assert together == alone


def test_the_interval_covers_the_truth_at_its_rate():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        sample = rng.normal(1.0, 2.0, 40)
        estimate = bootstrap(sample, seed=trial, n_resamples=500)
        covered += estimate.low <= 1.0 <= estimate.high
    # Binomial(200, 0.93): a percentile bootstrap at n = 40 covers a little less than 0.95.
    assert 172 <= covered <= 199


def test_a_ratio_resamples_both_of_its_parts_together():
    rng = np.random.default_rng(0)
    denominator = rng.normal(10, 3, 50)
    columns = np.stack([2 * denominator, denominator], axis=1)
    estimate = bootstrap(columns, lambda m: m[..., 0] / m[..., 1])
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2, 2, 2))


def test_missing_readings_have_no_interval():
    with pytest.raises(DataError, match="missing readings"):
        bootstrap(np.array([1.0, np.nan]))
