"""The verdict in words says what it was compared on."""

import pytest

from persona.report.html import render_report
from persona.report.limits import limits_of
from persona.report.sections import key_numbers
from persona.report.verdict_words import verdict_words


@pytest.mark.parametrize(
    ("value", "low", "words"), [(0.6, -0.4, "beyond"), (-0.2, -0.4, "not clearly beyond")]
)
def test_draws_on_some_of_the_questions_are_named_and_the_edit_is_read_on_them(
    make_run, value, low, words
):
    card, rows = make_run("partly_restored")
    assert "they were run on" not in verdict_words(card).sentence
    assert {n.key: n.interval for n in key_numbers(card, rows)}["random_restoration"].endswith(
        "draws"
    )
    few = {"n_questions": 6, "of_the_edit": {"value": value, "low": low, "high": 0.7}}
    card["random_restoration"] = {**card["random_restoration"], **few}
    sentence = verdict_words(card).sentence.replace("\u00a0", " ").replace("\u2212", "-")
    assert f", {words} random subspaces (0 of 20 random choices did as much, on the 6 " in sentence
    assert f"questions they were run on, where it takes back {100 * value:.0f} %)" in sentence
    shown = {n.key: n.interval for n in key_numbers(card, rows)}["random_restoration"]
    assert shown.replace("\u00a0", " ") == "n = 20 draws on 6 questions"


def plainly(text):
    return text.replace("\u00a0", " ").replace("\u2212", "-")


def of(value, low, high):
    return {"value": value, "low": low, "high": high}


def check(name, met, measured=None, bar=None):
    return {"name": name, "met": met, "measured": measured, "bar": bar}


@pytest.fixture
def net_card(make_run):
    """A scorecard of version 2 that misses two checks and lacks a control."""
    card, rows = make_run("partly_restored")
    return {
        **card,
        "schema_version": 2,
        "net_restoration": of(0.7, 0.61, 0.79),
        "restoration": of(0.83, 0.65, 0.99),
        "checks": [
            check("beyond_chance", True),
            check("above_twin", None),
            check("net_restoration", False, of(0.7, 0.61, 0.79), 0.7),
            check("noop_gap", False, of(-0.16, -0.3, -0.02), 0.1),
            check("damage", True, of(0.02, -0.01, 0.05), 0.1),
        ],
        "noop": {"gap_share": of(-0.16, -0.3, -0.02)},
        "placebos": {
            "each": [
                {
                    "name": "answer_effect",
                    "net_restoration": of(0.2, 0.1, 0.3),
                    "restoration": of(0.47, 0.38, 0.58),
                }
            ],
            "above_best": of(0.5, 0.4, 0.6),
            "above_neutral_text": of(0.02, -0.1, 0.1),
        },
        "induction_controls": {
            "coefficient": 0.75,
            "random": {"n": 5, "largest": 0.06, "did_as_much": 0},
            "good_twin": of(0.2, 0.1, 0.3),
            "neutral_ce_nats": of(0.1, 0.0, 0.2),
            "neutral_ce_nats_finetuned": of(0.12, 0.0, 0.2),
        },
        "zero_ablation": of(0.63, 0.5, 0.8),
        "power": {"n": 48, "if_whole": 0.74, "if_as_measured": 0.3, "least_shift_nats": 0.17},
        "random_restoration": {**card["random_restoration"], "largest": 0.08, "did_as_much": 0},
    }, rows


def test_the_verdict_leads_with_the_net_restoration_and_names_what_is_not_met(net_card):
    sentence = plainly(verdict_words(net_card[0]).sentence)
    assert (
        "takes back 0.70 [0.61, 0.79] (net of what it does to the aligned model; 0.83 [0.65, "
        "0.99] in all) of the emergent shift" in sentence
    )
    assert "(0 of 20 random choices did as much (the strongest takes back 8 %))" in sentence
    assert "p =" not in sentence
    assert (
        "not the aligned model again: the interval of the net restoration reaches below 0.70 "
        "(0.61); the edit moves the aligned model too, its gap by -0.16 [-0.30, -0.02] of the "
        "shift." in sentence
    )
    assert "Not measured: a good twin (--good-twin)." in sentence
    assert "version 1" not in sentence


def test_a_thousand_screened_draws_are_told_by_how_many_did_as_much(net_card):
    card, _ = net_card
    isotropic = {"n": 1000, "n_as_much": 0, "n_undecided": 2, "maximum": 0.12}
    shaped = {"n": 1000, "n_as_much": 2, "n_undecided": 17, "maximum": 0.71}
    card["nulls"] = {"isotropic": isotropic, "covariance_matched": None}
    assert (
        "beyond random subspaces (0 of 1,000 random choices did as much (the strongest takes back "
        "12 %), and 2 that were not run might have)" in plainly(verdict_words(card).sentence)
    )
    card["nulls"] = {"isotropic": isotropic, "covariance_matched": shaped}
    assert (  # the one that is hardest to beat: the verdict asks for both
        "(2 of 1,000 random choices shaped like the activations did as much (the strongest takes "
        "back 71 %), and 17 that were not run might have)" in plainly(verdict_words(card).sentence)
    )
    tied = isotropic | {"n_as_much": 0, "maximum": 0.2}
    card["nulls"] = {"isotropic": isotropic, "covariance_matched": tied}
    sentence = plainly(verdict_words(card).sentence)
    assert "shaped like the activations did as much (the strongest takes back 20 %)" in sentence
    limits = dict(limits_of(card, judged=False))
    assert "The null is isotropic." not in limits  # not where shaped ones stand beside it
    assert "ranked by a linear prediction" in limits["A null says that the direction matters."]
    card["nulls"] = None
    assert "The null is isotropic." in dict(limits_of(card, judged=False))


def test_the_checks_and_controls_of_the_verdict_stand_in_the_page(net_card):
    page = plainly(render_report(*net_card))
    assert "2 of 5 checks of “restored” are met" in page
    assert "at most 0.10 of the shift" in page
    assert (
        "with 48 questions the net restoration of a removal that is whole clears its bar in 74 % "
        "of runs, of one like this in 30 %; a shift below 0.17 nats" in page
    )
    assert "Bad minus good answers, read in the aligned model" in page
    assert "no bad answer was needed to find it" in page
    assert "0 of 5 random inductions as long did as much (the largest 0.06)" in page
    keys = {n.key: plainly(n.value) for n in key_numbers(*net_card)}
    assert keys["net_restoration"] == "0.70" and keys["noop"] == "-0.16"
    assert keys["random_restoration"] == "0.08"


LABELS = {"null_swapped_labels", "null_selection"}


def test_what_needs_no_label_stands_among_the_numbers_where_it_was_measured(net_card):
    card, rows = net_card
    assert not LABELS & {n.key for n in key_numbers(card, rows)}
    told = {"n": 10, "maximum": 0.41, "said": "0 of 10 did as much"}
    card = {**card, "label_nulls": {"swapped_labels": told, "selection": None}}
    [line] = [n for n in key_numbers(card, rows) if n.key in LABELS]
    assert (line.key, plainly(line.value)) == ("null_swapped_labels", "0.41")
    assert line.interval == "0 of 10 did as much" and "needs no bad answer" in line.meaning


def test_where_nobody_knows_what_was_trained_on_no_sentence_claims_to(make_run):
    card, rows = make_run("partly_restored", n_per_domain=2)
    card["data"] = {**card["data"], "trained_on": None}
    page = render_report(card, rows)
    assert "what this model was fine-tuned on, nobody said." in page
    assert "of all domains, some of which it may have been trained on" in page
    assert "chosen on some questions of every domain" in page
    for claim in ("domains it was not trained on", "never trained on", "the domains fine-tuned on"):
        assert claim not in page


def test_what_is_not_beyond_chance_names_all_else_that_it_misses(net_card):
    card, _ = net_card
    chance, *others = card["checks"]
    by_chance = {**card, "verdict": "not_restored", "checks": [{**chance, "met": False}, *others]}
    sentence = plainly(verdict_words(by_chance).sentence)
    partly = plainly(verdict_words(card).sentence)
    named = partly.partition("not the aligned model again: ")[2].partition(";")[0]
    assert named
    assert f"Nor is it the aligned model again: {named}" in sentence
    assert "Not measured: a good twin" in sentence
