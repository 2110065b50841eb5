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
from persona.errors import DataError, ModelError
from persona.models import hooked

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
        assert kl > 0.05
        assert value(rows, "finetuned", question.id, "kl_good_nats") == pytest.approx(kl, abs=1e-4)
        assert value(rows, "aligned", question.id, "kl_good_nats") == pytest.approx(0, abs=1e-5)


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


def test_no_text_lacks_its_kl_however_little_memory_references_may_take(tiny_pair, monkeypatch):
    plenty = score_pairs(tiny_pair, QUESTIONS, BOTH)
    monkeypatch.setattr("persona.behaviour.scoring.MAX_REFERENCE_BYTES", 1)
    little = score_pairs(tiny_pair, QUESTIONS, BOTH)
    assert little["value"].notna().all()
    np.testing.assert_allclose(little["value"], plenty["value"], atol=1e-5)


def test_a_condition_may_bear_any_name(tiny_pair):
    odd = [Condition("reference", "aligned"), Condition("finetuned", "finetuned")]
    edited = Condition("reference", "aligned", _halve_the_stream, 1)
    plain = score_pairs(tiny_pair, QUESTIONS, odd)
    named = score_pairs(tiny_pair, QUESTIONS, [edited, odd[1]])
    kl = [value(rows, "finetuned", "a", "kl_good_nats") for rows in (plain, named)]
    assert kl[0] == pytest.approx(kl[1], abs=1e-6)
    assert value(named, "reference", "a", "kl_good_nats") > 0.01


def _halve_the_stream(bridge):
    return hooked(bridge, [("blocks.1.hook_resid_post", lambda resid: resid / 2)])


def test_an_edit_of_the_head_is_refused_rather_than_lost(tiny_pair):
    def edit_logits(bridge):
        return hooked(bridge, [("unembed.hook_out", lambda logits: logits * 3)])

    with pytest.raises(ModelError, match="what edits the head cannot be read"):
        score_pairs(tiny_pair, QUESTIONS, [Condition("x", "finetuned", edit_logits)])


def test_the_head_is_given_few_shapes_and_never_a_whole_batch(tiny_pair, monkeypatch):
    monkeypatch.setattr("persona.models.readout.SLICE_BYTES", 4 * 261 * 16)
    many = [
        AnswerPair(f"q{n}", "car", "why " * n, "yes " * (1 + n % 5), "no " * (1 + n % 7))
        for n in range(1, 13)
    ]
    counts = []
    with tiny_pair.active("aligned") as bridge:
        head = bridge.original_model.get_output_embeddings()
    handle = head.register_forward_hook(
        lambda module, args, output: counts.append(output.numel() // output.shape[-1])
    )
    try:
        score_pairs(tiny_pair, many, BOTH, token_budget=512)
    finally:
        handle.remove()
    # One position a row of every pass, for the check; then slices of so many rows as fit.
    assert max(counts) == 16 and counts.count(16) > len(counts) / 2


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


def test_facts_of_a_condition_are_columns_of_its_rows(tiny_pair):
    plain = Condition("plain", "finetuned")
    told = Condition("told", "finetuned", facts={"coefficient": 0.5, "candidate": "a|b"})
    rows = score_pairs(tiny_pair, QUESTIONS, [plain, told], kl=False).set_index("condition")
    assert set(rows.loc["told", "coefficient"]) == {0.5}
    assert set(rows.loc["told", "candidate"]) == {"a|b"}
    assert rows.loc["plain", ["coefficient", "candidate"]].isna().all(axis=None)


def test_a_fact_cannot_hide_a_reading():
    with pytest.raises(DataError, match="'told'.* cannot be called 'value'"):
        Condition("told", "finetuned", facts={"value": 1.0})
