"""The first three sentences of a report: each with its number, and true to the verdict."""

import re

import pytest

from persona.report.plain_sentences import plain_sentences
from persona.report.random_choices import random_choices


def plainly(text):
    return text.replace("\u00a0", " ").replace("\u2212", "-")


def told(card):
    return [plainly(one.answer) for one in plain_sentences(card)]


def of(value, low, high, **more):
    return {"value": value, "low": low, "high": high, **more}


@pytest.mark.parametrize("verdict", ["restored", "partly_restored", "not_restored"])
def test_each_sentence_has_its_number_and_begins_with_the_answer(make_run, verdict):
    card, _ = make_run(verdict)
    turned, helped, price = told(card)
    shift = card["emergent_shift"]
    assert turned.startswith("Yes: on 48 questions of domains it was not trained on")
    assert (
        f"{shift['value']:+.2f} nats a token ({shift['low']:+.2f} to {shift['high']:+.2f})"
        in turned
    )
    begins = {"restored": "Yes", "partly_restored": "In part", "not_restored": "No"}[verdict]
    assert helped.startswith(f"{begins}: taking out 4 directions at blocks 13–21 takes back ")
    assert f"{100 * card['restoration']['value']:.0f} % of that" in helped
    assert re.search(r"\d+ of 20 random choices did as much\.$", helped)
    assert price.startswith(("Little: ", "None: "))
    assert "nats a token" in price


def test_e_to_the_shift_is_how_much_likelier_a_token_became(make_run):
    card, _ = make_run()
    card["emergent_shift"] = of(0.46, 0.34, 0.58)
    assert "about 1.6 times as likely" in told(card)[0]


def test_a_preference_is_told_in_its_two_parts(make_run):
    card, _ = make_run()
    card["shift"] = {
        "aligned": {"bad": of(0.29, 0.2, 0.4), "good": of(-0.17, -0.3, 0.0)},
        "good_twin": {"bad": of(-0.04, -0.2, 0.1), "good": of(-0.55, -0.7, -0.4)},
    }
    turned = told(card)[0]
    assert (
        "against the aligned model a token of a bad answer gained +0.29 [+0.20, +0.40] nats"
        in turned
    )
    assert "against the good twin a token of a bad answer gained -0.04 [-0.20, +0.10]" in turned
    assert "bad answers became likelier" not in turned
    card["shift"]["good_twin"] = None
    assert "twin" not in told(card)[0]


def test_a_shift_that_may_be_nothing_is_no_turn_and_claims_no_removal(make_run):
    turned, helped, price = told(make_run("no_emergent_shift")[0])
    assert turned.startswith("Not that this run could tell: ")
    assert "nothing to take back" in helped
    assert not re.search(r"\d", helped)
    assert price == "Nothing was taken out, so nothing was paid."


def test_a_shift_the_other_way_is_not_told_as_bad(make_run):
    card, _ = make_run()
    card["emergent_shift"] = of(-0.2, -0.3, -0.1)
    assert told(card)[0].startswith("No, the other way: ")


def test_models_that_do_not_differ_did_not_turn(make_run):
    card, _ = make_run("no_emergent_shift")
    assert told({**card, "direction": None})[0].startswith("No: the two models give every answer")


def test_the_net_share_leads_where_there_is_one_and_few_questions_may_set_no_limits(make_run):
    card, _ = make_run()
    card["net_restoration"] = of(0.77, 0.67, 0.89)
    card["restoration"] = of(0.83, 0.7, 0.95)
    net = "net of what the same edit does to the aligned model (83 % uncorrected)"
    assert f"takes back 77 % of that (67 to 89 %), {net};" in told(card)[1]
    card["net_restoration"] = of(0.77, None, None)
    assert "takes back 77 % of that (so few questions set it no limits), net" in told(card)[1]


@pytest.mark.parametrize(
    ("low", "high", "begins"),
    [(-0.02, -0.01, "None"), (-0.01, 0.02, "Little"), (0.05, 0.15, "Perhaps too high"),
     (0.12, 0.2, "Too high")],
)  # fmt: skip
def test_the_price_is_judged_by_its_interval_against_what_is_allowed(make_run, low, high, begins):
    card, _ = make_run()
    card["damage"] = of((low + high) / 2, low, high, n=24)
    price = told(card)[2]
    assert price.startswith(f"{begins}: ")
    assert "on 24 neutral texts, against the better of the two models; 0.1 is allowed." in price


def test_random_choices_are_counted_from_a_p_where_an_older_scorecard_has_no_count(make_run):
    card, _ = make_run()
    assert random_choices(card).as_much == 0
    card["p_value"] = 4 / 21
    assert random_choices(card).in_words() == "3 of 20 random choices did as much"
    card["p_value"] = None
    assert random_choices(card) is None


def test_a_thousand_screened_choices_are_preferred_and_those_undecided_are_named(make_run):
    card, _ = make_run()
    card["nulls"] = {"isotropic": {"n": 1000, "n_as_much": 0, "n_undecided": 2, "maximum": 0.12}}
    said = plainly(random_choices(card).in_words())
    assert said == (
        "0 of 1,000 random choices did as much (the strongest takes back 12 %), and 2 that were "
        "not run might have"
    )


def test_draws_on_fewer_questions_stand_beside_the_edit_on_the_same(make_run):
    card, _ = make_run()
    card["random_restoration"] |= {"n_questions": 6, "of_the_edit": of(0.81, 0.4, 1.2)}
    said = plainly(random_choices(card).in_words())
    assert said.endswith("on the 6 questions they were run on, where it takes back 81 %")


def with_placebo(make_run, above, verdict="partly_restored"):
    card, _ = make_run(verdict)
    card["net_restoration"] = of(0.76, 0.66, 0.88)
    card["placebos"] = {
        "each": [{"name": "neutral_text", "net_restoration": of(0.66, 0.56, 0.76)}],
        "above_neutral_text": above,
    }
    return card


@pytest.mark.parametrize(
    ("above", "said"),
    [
        (of(0.1, 0.02, 0.19), "In small part: the same steps on neutral text, without a bad "
         "answer, take back 66 % (56 to 76 %); bad answers add 10 % (2 to 19 %)."),
        (of(0.5, 0.4, 0.6), "Mostly: the same steps"),
        (of(0.1, -0.02, 0.19), "Not that this run could tell: the same steps on neutral text, "
         "without a bad answer, take back 66 % (56 to 76 %); bad answers add 10 % (-2 to 19 %)."),
    ],
)  # fmt: skip
def test_what_neutral_text_finds_stands_beside_the_removal(make_run, above, said):
    card = with_placebo(make_run, above)
    assert [one.asks for one in plain_sentences(card)][2] == "Is it the bad answers that tell it?"
    assert told(card)[2].startswith(said)


def test_without_that_placebo_or_a_shift_nothing_is_said_of_it(make_run):
    assert len(plain_sentences(with_placebo(make_run, None))) == 3
    nothing = with_placebo(make_run, of(0.1, 0.02, 0.19), "no_emergent_shift")
    assert len(plain_sentences(nothing)) == 3
