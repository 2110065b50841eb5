"""Planted changes are found, nothing is found where nothing was planted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel

from persona.data.types import AnswerPair
from persona.errors import DataError
from persona.sae.activity import Activity, latent_activity
from persona.sae.rank import ByQuestion, change_table, rank_latents


def activity(mean):
    return Activity(mean, (mean > 0).float())


def by_question(n=40, latents=500, planted=(), size=0.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    before = torch.rand(n, latents, generator=g) + 0.5
    after = before + 0.2 * torch.randn(n, latents, generator=g)
    for latent in planted:
        after[:, latent] += size
    return ByQuestion(activity(before), activity(after))


def test_planted_rises_come_first_and_survive_both_corrections():
    table = change_table(by_question(planted=(3, 77, 401), size=0.3))
    assert set(table["latent"][:3]) == {3, 77, 401}
    assert (table["q"][:3] < 1e-3).all()
    assert (table["p_family"][:3] < 0.01).all()
    assert (table["effect_size"][:3] > 1).all()
    assert ((table["q"] < 0.05).sum()) <= 3 + 2


def test_without_a_change_few_pass_either_correction():
    found = [change_table(by_question(seed=seed), n_permutations=200) for seed in range(10)]
    assert sum(int((t["q"] < 0.05).any()) for t in found) <= 3
    assert sum(int((t["p_family"] < 0.05).any()) for t in found) <= 3
    share = np.mean([float((t["p"] < 0.05).mean()) for t in found])
    assert 0.03 < share < 0.07


def test_t_and_q_equal_the_textbook():
    from scipy.stats import false_discovery_control

    found = by_question(latents=30, planted=(1,), size=0.2)
    table = change_table(found).sort_values("latent")
    expected = ttest_rel(found.after.mean.double(), found.before.mean.double())
    np.testing.assert_allclose(table["t"], expected.statistic, rtol=1e-5)
    np.testing.assert_allclose(table["q"], false_discovery_control(expected.pvalue), rtol=1e-4)
    d = (found.after.mean - found.before.mean).double()
    np.testing.assert_allclose(table["effect_size"], d.mean(0) / d.std(0), rtol=1e-6)


def test_the_permutation_p_is_near_that_of_all_sign_flips():
    found = by_question(n=8, latents=3, planted=(0,), size=0.15)
    d = (found.after.mean - found.before.mean).double().numpy()
    flips = np.array(list(itertools.product([-1, 1], repeat=8)))
    drawn = flips @ d / 8
    exact = (np.abs(drawn) >= np.abs(d.mean(0)) - 1e-12).mean(0)  # |t| grows with |mean|
    table = change_table(found, n_permutations=4000).sort_values("latent")
    np.testing.assert_allclose(table["p"], exact, atol=0.03)


def test_a_silent_latent_has_no_p_and_is_not_counted():
    found = by_question(latents=20)
    for side in (found.before, found.after):
        side.mean[:, 4] = 0
        side.frequency[:, 4] = 0
    row = change_table(found).set_index("latent").loc[4]
    assert row["change"] == 0
    assert row[["p", "q", "p_family", "effect_size"]].isna().all()


@pytest.fixture(scope="module")
def questions():
    return [
        AnswerPair(f"q{i}", "d", f"what of {i}", f"count to {i} now", f"forget {i}")
        for i in range(6)
    ]


def test_activity_of_a_text_is_the_mean_over_its_answer(tiny_pair, sae, questions):
    from persona.activations import collect_tokens

    dialogues = tiny_pair.chat.encode_all([q.good_dialogue for q in questions])
    with tiny_pair.active("finetuned") as bridge:
        found = latent_activity(bridge, sae, dialogues, token_budget=64)
        read = collect_tokens(bridge, dialogues, [sae.layer])
    for i, rows in enumerate(read):
        latents = sae.encode(rows[:, 0])
        torch.testing.assert_close(found.mean[i], latents.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.frequency[i], (latents != 0).float().mean(0))


def test_chosen_tokens_prompts_and_answers_can_be_read(tiny_pair, sae, questions):
    encoded = tiny_pair.chat.encode_all([q.bad_dialogue for q in questions])
    spans = [list(range(*d.response)) for d in encoded]
    options = dict(answers="bad", n_permutations=50)
    by_name = rank_latents(tiny_pair, sae, questions, **options)
    by_place = rank_latents(tiny_pair, sae, questions, where=spans, **options)
    assert by_name.equals(by_place)
    prompt = rank_latents(tiny_pair, sae, questions, where="prompt", **options)
    assert not prompt["change"].equals(by_name["change"])
    with pytest.raises(DataError, match="the first token is never read"):
        rank_latents(tiny_pair, sae, questions, where=[[0]] * 6, **options)
    with pytest.raises(DataError, match="got 2 lists for 6 texts"):
        rank_latents(tiny_pair, sae, questions, where=[[1]] * 2, **options)


def test_the_answer_contrast_is_bad_minus_good_in_the_fine_tuned_model(tiny_pair, sae, questions):
    table = rank_latents(tiny_pair, sae, questions, contrast="answer", n_permutations=50)
    means = {}
    with tiny_pair.active("finetuned") as bridge:
        for name in ("good", "bad"):
            dialogues = tiny_pair.chat.encode_all(
                [getattr(q, f"{name}_dialogue") for q in questions]
            )
            means[name] = latent_activity(bridge, sae, dialogues).mean.mean(0)
    expected = (means["bad"] - means["good"]).numpy()
    np.testing.assert_allclose(
        table.sort_values("latent")["change"], expected, rtol=1e-3, atol=1e-5
    )


def test_too_few_questions_or_permutations_are_refused(tiny_pair, sae, questions):
    with pytest.raises(DataError, match="at least 4 questions; got 2"):
        rank_latents(tiny_pair, sae, questions[:2])
    with pytest.raises(DataError, match="at least 20 permutations; got 5"):
        change_table(by_question(), n_permutations=5)
