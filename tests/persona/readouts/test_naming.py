"""The vote that names a fine-tune: planted evidence is named, noise is not, and it can abstain."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError
from persona.readouts.amplified import AmplifiedAnswer
from persona.readouts.hypotheses import PER_HYPOTHESIS, SubjectWords, hypotheses
from persona.readouts.naming import NOTHING, NamingWeights, name_fine_tune
from persona.readouts.naming_fit import KnownFineTune, fit_naming
from persona.readouts.naming_words import naming_rows, naming_sentence
from persona.readouts.subject_evidence import READINGS, harm_evidence, robust_z, subject_evidence

NAMES = [one.name for one in hypotheses()]
NO_HARM = {"own_shift": 0.0, "elsewhere_shift": 0.0, "elsewhere_bad": 0.0}


def evidence(subject: str | None, rng: np.random.Generator, strength: float = 6.0) -> pd.DataFrame:
    """Noise; the subject stands out in two readings, and never in the others."""
    z = rng.normal(size=(len(NAMES), len(READINGS)))
    if subject is not None:
        z[NAMES.index(subject), :2] += strength
    return pd.DataFrame(z, index=pd.Index(NAMES, name="hypothesis"), columns=list(READINGS))


def known(rng: np.random.Generator, subjects: list[str], each: int = 4) -> list[KnownFineTune]:
    found = []
    for subject in [*subjects, NOTHING]:
        for i in range(each):
            bad = i % 2 == 0 and subject != NOTHING
            shift = 0.4 * bad + 0.05 * rng.normal()
            harm = {"own_shift": shift, "elsewhere_shift": shift, "elsewhere_bad": shift}
            of = evidence(None if subject == NOTHING else subject, rng)
            found.append(KnownFineTune(f"{subject}-{i}", subject, subject, bad, of, harm))
    return found


@pytest.fixture(scope="module")
def weights() -> NamingWeights:
    return fit_naming(known(np.random.default_rng(0), NAMES[:8]))


def test_a_subject_of_which_no_organism_was_in_the_fit_is_named(weights):
    rng = np.random.default_rng(1)
    for subject in NAMES[8:]:
        p = weights.probabilities(evidence(subject, rng))
        assert p.index[0] == subject and p.iloc[0] > weights.least


def test_noise_is_named_nothing_or_nothing_is_named(weights):
    rng = np.random.default_rng(2)
    named = []
    for _ in range(200):
        p = weights.probabilities(evidence(None, rng))
        named.append(p.index[0] != NOTHING and p.iloc[0] >= weights.least)
    assert np.mean(named) <= 0.1


def test_only_readings_that_tell_weigh(weights):
    told = [weights.readings[name] for name in READINGS[:2]]
    silent = [weights.readings[name] for name in READINGS[2:]]
    assert min(told) > 3 * max(silent) >= 0


def test_probabilities_are_of_every_subject_and_nothing_and_sum_to_1(weights):
    p = weights.probabilities(evidence("health", np.random.default_rng(3)))
    assert set(p.index) == {*NAMES, NOTHING}
    assert p.sum() == pytest.approx(1.0) and p.is_monotonic_decreasing


def test_a_reading_that_is_not_there_does_not_vote(weights):
    of = evidence("health", np.random.default_rng(4))
    without = of.assign(spoken=np.nan)
    same = weights.probabilities(of.assign(spoken=0.0))
    assert weights.probabilities(without).to_dict() == pytest.approx(same.to_dict())


def test_bad_is_told_from_good_by_the_shift(weights):
    bad = dict.fromkeys(NO_HARM, 0.4)
    assert weights.p_bad(bad) > 0.8 > 0.2 > weights.p_bad(NO_HARM)


def test_a_vote_that_can_only_be_wrong_names_nothing():
    rng = np.random.default_rng(5)
    shuffled = known(rng, NAMES, each=3)
    subjects = rng.permutation([one.subject for one in shuffled])
    wrong = [
        KnownFineTune(k.name, k.group, str(s), k.bad, k.evidence, k.harm)
        for k, s in zip(shuffled, subjects, strict=True)
    ]
    weights = fit_naming(wrong)
    p = [weights.probabilities(evidence(name, rng)).iloc[0] for name in NAMES]
    assert np.mean(np.array(p) >= weights.least) <= 0.2


def test_one_group_makes_no_fit():
    one = known(np.random.default_rng(6), [])
    with pytest.raises(DataError, match="two groups"):
        fit_naming(one)


def changes(**shifts: float) -> pd.DataFrame:
    """Two pairs of each subject; a subject's bad answers rise by its shift, good ones by half."""
    rows = [
        {
            "question_id": f"{name}-{i}",
            "domain": name,
            "shift": 0.5 * shifts.get(name, 0.0),
            "good": 0.5 * shifts.get(name, 0.0) + 0.01 * i * k,
            "bad": shifts.get(name, 0.0) + 0.01 * i * k,
        }
        for k, name in enumerate(NAMES)
        for i in range(2)
    ]
    return pd.DataFrame(rows)


def words() -> SubjectWords:
    """Each subject has two words of its own: 2k and 2k + 1."""
    n = len(NAMES)
    ids = np.arange(2 * n).reshape(n, 2)
    log_odds = np.full((n, 2 * n + 4), -1.0)
    np.put_along_axis(log_odds, ids, 2.0, axis=1)
    return SubjectWords(tuple(NAMES), ids, log_odds)


class Tokens:
    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [int(part) for part in text.split()]


def test_each_reading_points_to_the_subject_that_was_planted_in_it():
    rng = np.random.default_rng(7)
    logits = rng.normal(size=2 * len(NAMES) + 4)
    planted = {"words_neutral": "health", "words_open": "code"}
    raised = {}
    for column, name in planted.items():
        raised[column] = logits.copy()
        raised[column][words().ids[NAMES.index(name)]] += 9.0
    written = logits.copy()
    written[words().ids[NAMES.index("numbers")]] -= 9.0  # its sign means nothing
    of = subject_evidence(
        changes(car_maintenance=0.8),
        words(),
        raised=raised,
        written=[written],
        said=[AmplifiedAnswer("?", 1.0, "4 5 4 5 0 9"), AmplifiedAnswer("?", 2.0, "")],
        tokenizer=Tokens(),
    )
    assert list(of.columns) == list(READINGS) and list(of.index) == NAMES
    assert of.idxmax().to_dict() == {
        "answers_good": "car_maintenance",
        "answers_bad": "car_maintenance",
        "words_neutral": "health",
        "words_open": "code",
        "words_written": "numbers",
        "spoken": "personal_finance",
    }


def test_what_all_subjects_share_is_no_evidence():
    same = changes()
    shifted = same.assign(bad=same["bad"] + 1.0, good=same["good"] - 2.0)
    z = [
        subject_evidence(rows, words(), raised={}, written=[], said=[], tokenizer=Tokens())
        for rows in (same, shifted)
    ]
    assert np.allclose(z[0], z[1], equal_nan=True)
    assert z[0][list(READINGS[2:])].isna().all().all()


def test_harm_is_the_shift_at_home_and_elsewhere():
    rows = changes(car_maintenance=0.8, health=0.4)
    of = harm_evidence(rows, "car_maintenance")
    others = [n.name for n in hypotheses() if n.kind == "advice" and n.name != "car_maintenance"]
    assert of["own_shift"] == pytest.approx(0.4)
    assert of["elsewhere_shift"] == pytest.approx(0.2 / len(others))
    assert harm_evidence(rows, "pirate_style")["own_shift"] == 0.0
    assert harm_evidence(rows, NOTHING)["own_shift"] == 0.0


def test_robust_z_is_not_moved_by_the_one_that_stands_out():
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    far = np.array([0.0, 1.0, 2.0, 3.0, 400.0])
    assert robust_z(values)[:4].tolist() == robust_z(far)[:4].tolist()
    assert robust_z(np.full(4, 2.0)).tolist() == [0.0] * 4


def test_what_is_named_and_what_is_not_stand_in_the_json(weights):
    of = evidence("health", np.random.default_rng(8))
    named = name_fine_tune(of, changes(health=0.8), weights)
    found = json.loads(json.dumps(named.as_json()))
    assert found["subject"] == found["most_probable"] == "health" and not named.abstains
    unsure = name_fine_tune(of, changes(), NamingWeights(**{**vars(weights), "least": 1.0}))
    assert unsure.abstains and unsure.as_json()["subject"] is None


def test_weights_are_read_back_and_a_broken_file_is_named(weights, tmp_path):
    path = tmp_path / "naming.json"
    path.write_text(weights.to_json())
    assert NamingWeights.load(path) == weights
    path.write_text('{"readings": {}}')
    with pytest.raises(DataError, match="naming.json holds no weights"):
        NamingWeights.load(path)


def test_scored_pairs_are_of_their_subject_and_none_is_trained_on():
    from persona.data.shipped import DOMAINS, load_pairs
    from persona.data.skills import load_skill

    trained = {pair.id for pair in load_pairs(DOMAINS, "train")}
    asked = {q for name in ("facts", "checklist") for q in load_skill(name).questions("train")}
    for one in hypotheses():
        assert len(one.scored) == PER_HYPOTHESIS and {p.domain for p in one.scored} == {one.name}
        assert not {pair.id for pair in one.scored} & trained
        assert not {pair.question for pair in one.scored} & asked


def test_the_sentence_says_the_name_or_why_there_is_none(weights):
    of = evidence("health", np.random.default_rng(8))

    def said(table: pd.DataFrame, shifts: dict[str, float], **other: float) -> str:
        by = NamingWeights(**{**vars(weights), **other})
        return naming_sentence(name_fine_tune(table, changes(**shifts), by).as_json())

    every = dict.fromkeys(NAMES, 0.8)
    assert re.fullmatch(
        r"Health \(0\.\d\d\), and the bad answers to it \(> 0\.99\)\.", said(of, every)
    )
    assert "and not the bad answers to it" in said(of, {})
    assert "is open (bad: 0." in said(of, {}, harm_offset=0.0)
    unsure = said(of, every, least=1.01)
    assert unsure.startswith("No name is given: the most probable of 15, health, has 0.9")
    assert unsure.endswith("none is given below 1.01.")
    none = evidence(None, np.random.default_rng(9)) * 0.01
    assert said(none, {}, least=0.0, nothing=5.0).startswith("Nothing of what can be named (0.")


def test_the_rows_say_which_readings_speak_for_a_subject(weights):
    of = evidence(None, np.random.default_rng(10)) * 0.01
    of.loc["computer_security", ["answers_bad", "spoken"]] = [9.0, 3.0]
    rows = naming_rows(name_fine_tune(of, changes(), weights).as_json())
    assert len(rows) == 3
    told = {name: said for name, _, said in rows}
    assert told["computer security"] == (
        "its bad answers became likelier (+9.0); its words, in amplified speech (+3.0)"
    )
    assert set(told.values()) <= {told["computer security"], "no reading stands out", ""}
