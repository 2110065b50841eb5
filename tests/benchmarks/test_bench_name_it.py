"""The blind trial: what is left out, its intervals, and that no organism learns what is scored."""

from __future__ import annotations

import bench_name_it
import numpy as np
import pandas as pd
import pytest
from bench_name_it import auroc, calibration, left_out, of_text, organisms, share

from persona.organisms.finetuning import recipe_dialogues
from persona.readouts.hypotheses import hypotheses
from persona.readouts.naming import NOTHING
from persona.readouts.naming_fit import KnownFineTune
from persona.readouts.subject_evidence import READINGS

NAMES = [one.name for one in hypotheses()]


def planted(strength: float, seed: int = 0):
    """Two fine-tunes of each subject: evidence in one reading, and in what is said as well."""
    rng = np.random.default_rng(seed)
    found = []
    for subject in [*NAMES, NOTHING]:
        for bad in (True, False):
            z = rng.normal(size=(len(NAMES), len(READINGS)))
            said = rng.normal(size=len(NAMES))
            if subject != NOTHING:
                z[NAMES.index(subject), 0] += strength
                said[NAMES.index(subject)] += strength
            table = pd.DataFrame(z, index=NAMES, columns=list(READINGS))
            harm = {"own_shift": 0.3 * bad, "elsewhere_shift": 0.1 * bad, "elsewhere_bad": 0.0}
            one = KnownFineTune(f"{subject}-{bad}", subject, subject, bad, table, harm)
            rows = {"said_subject": said.tolist(), "said_bad": float(bad)}
            found.append((one, rows | {"harm": dict.fromkeys([*NAMES, NOTHING], harm)}))
    return found


def test_what_is_planted_is_named_and_noise_is_not():
    told, noise = left_out(planted(9.0)), left_out(planted(0.0))
    assert share(told)[0] > 0.9 > 0.3 > share(noise)[0]
    assert share(of_text(planted(9.0)))[0] > 0.9
    assert auroc(told, [one.p_bad for one in told])[0] == 1.0


def test_a_subject_is_left_out_with_all_its_fine_tunes(monkeypatch):
    seen = []
    fit = bench_name_it.fit_naming
    monkeypatch.setattr(
        bench_name_it,
        "fit_naming",
        lambda known, readings: (
            seen.append({k.group for k in known}) or fit(known, readings=readings)
        ),
    )
    every = planted(9.0)[:8]
    left_out(every)
    groups = {one.group for one, _ in every}
    assert [groups - kept for kept in seen] == [{group} for group in sorted(groups)]


def test_the_interval_holds_the_share_and_calibration_is_0_for_a_vote_that_is_sure_and_right():
    told = left_out(planted(9.0))
    value, (low, high) = share(told)
    assert low <= value <= high
    assert calibration([g for g in told if g.right]) == pytest.approx(
        np.mean([1 - g.probability for g in told if g.right]), abs=0.05
    )


def test_organisms_have_names_of_their_own_and_learn_nothing_that_is_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_name_it, "KEPT", tmp_path)
    every = organisms()
    assert len({one.name for one in every}) == len(every)
    assert {one.subject for one in every} == {*NAMES, NOTHING}
    scored = {pair.question for one in hypotheses() for pair in one.scored}
    for one in every:
        asked = {dialogue.turns[0].content for dialogue in recipe_dialogues(one.recipe())}
        assert asked and not asked & scored, one.name
