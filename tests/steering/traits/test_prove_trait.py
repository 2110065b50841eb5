"""A trait that a tiny model has learnt is found, and one that it has not learnt is not."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from trained_trait import LetterJudge, artefacts, loaded, save_trained

from persona.data import NeutralText
from persona.directions.exchange import (
    VectorSet,
    load_vector_set,
    read_persona_vectors,
    write_persona_vectors,
)
from persona.errors import DataError, JudgeError
from persona.stages import Unsaved, Workspace
from persona.traits import open_trait
from probes.trait_reading import read_trait
from steering.traits import (
    TraitSession,
    given_vector,
    nonsense_vectors,
    prove_trait,
    trait_result,
    trait_session,
    write_trait_files,
)

SHORT = 1e-9
"""Minutes: the smallest plan."""
NEUTRAL = [NeutralText(f"n{i}", "made up", f"{c}{c}?", "cde") for i, c in enumerate("cdef")]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return loaded(save_trained(tmp_path_factory.mktemp("trained") / "llama"))


@pytest.fixture(autouse=True)
def one_coefficient(monkeypatch):
    """Neutral text means nothing to a model that writes three letters."""
    monkeypatch.setattr("steering.traits.choose_place.COEFFICIENTS", (2.0,))


def session(pair, stages=None, texts=None, judge=None) -> TraitSession:
    return TraitSession(
        pair, texts or artefacts(), judge or LetterJudge(), stages or Unsaved(), 8, 32, 0
    )


@pytest.fixture(scope="module")
def proved(pair):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steering.traits.choose_place.COEFFICIENTS", (2.0,))
        yield prove_trait(session(pair), read_trait, neutral=NEUTRAL)


def test_a_trait_that_was_learnt_is_found(proved):
    facts = proved.facts
    assert proved.verdict.name == "found", (proved.verdict, facts)
    assert facts.prompted.low > 50
    assert facts.reading.vector.low > 0.9
    assert facts.reading.vector.value > facts.reading.shuffled_p97_5
    assert facts.reading.held_out_cosine > 0.4
    assert facts.induction.is_beyond_controls or facts.suppression.is_beyond_controls
    assert set(facts.induction.controls) == {
        "random 0",
        "random 1",
        "shuffled poles 0",
        "shuffled poles 1",
    }


def test_the_halves_share_no_question_and_only_the_making_half_chose(proved):
    made, proving = set(proved.made.rows["question"]), set(proved.rows["question"])
    assert made == set(artefacts().making)
    assert proving == set(artefacts().proving)
    assert made.isdisjoint(proving)
    best = proved.choice.loc[proved.choice["score"].idxmax()]
    assert (best["layer"], best["score"]) == (proved.place.layer, proved.place.score)


def test_the_vector_is_the_mean_difference_of_the_kept_answers(proved):
    read = proved.made.read
    torch.testing.assert_close(
        proved.made.vectors, read["for"].mean(0) - read["against"].mean(0), atol=1e-5, rtol=1e-4
    )
    kept = proved.made.kept
    assert (kept["trait_for"] > 50).all() and (kept["trait_against"] < 50).all()
    assert proved.made.split_half().loc[proved.place.layer, "cosine"] > 0.9


def test_instructions_that_mean_nothing_to_the_model_give_nothing_or_too_few(pair):
    texts = artefacts("LOUD", "LOUD z")
    found = prove_trait(session(pair, texts=texts), read_trait, neutral=NEUTRAL, minutes=SHORT)
    assert found.verdict.name in ("nothing", "too few answers")
    assert found.place is None and found.made.vectors is None


def test_a_stopped_run_goes_on_and_comes_to_the_same(pair, tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    class Dying(LetterJudge):
        def trait(self, items):
            if self.n_judged > 30:
                raise Stopped
            return super().trait(items)

    whole = prove_trait(session(pair), read_trait, neutral=NEUTRAL, minutes=SHORT)
    with pytest.raises(Stopped):
        dying = session(pair, Workspace(tmp_path, {}), judge=Dying())
        prove_trait(dying, read_trait, neutral=NEUTRAL, minutes=SHORT)
    asked = []
    real = trait_session.answer_rows
    monkeypatch.setattr(
        trait_session,
        "answer_rows",
        lambda *a, **k: asked.append(k["condition"]) or real(*a, **k),
    )
    again = session(pair, Workspace(tmp_path, {}))
    found = prove_trait(again, read_trait, neutral=NEUTRAL, minutes=SHORT)
    assert "vector added" in asked
    assert not {"for", "against", "block 1", "block 2"} & set(asked)
    assert found.verdict == whole.verdict
    pd.testing.assert_frame_equal(
        found.rows.drop(columns="seconds"), whole.rows.drop(columns="seconds")
    )


def test_a_judge_without_scores_and_a_model_that_says_nothing_are_one_line(pair):
    with pytest.raises(JudgeError, match="the judge letters gave a score for 0 of"):
        deaf = session(pair, judge=LetterJudge(lambda answer: None))
        prove_trait(deaf, read_trait, minutes=SHORT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("persona.traits.asking.sample_answers", lambda b, c, p, **_: [""] * len(p))
        with pytest.raises(JudgeError, match="the model answered nothing to"):
            prove_trait(session(pair), read_trait, minutes=SHORT)


def test_what_is_written_is_read_back_and_serves_as_nonsense(pair, proved, tmp_path):
    run = session(pair)
    result = trait_result(run, proved, 1.5)
    write_trait_files(tmp_path / "loud", result, run, proved)
    assert json.loads((tmp_path / "loud" / "trait.json").read_text()) == json.loads(
        json.dumps(result)
    )
    kept = load_vector_set(tmp_path / "loud" / "vector.safetensors")
    assert kept.layers == [0, 1, 2]
    assert kept.facts["verdict"] == "found"
    trait = open_trait(tmp_path / "loud")
    assert (trait.layer, trait.verdict) == (proved.place.layer, "found")
    assert trait.split_half > 0.9 and trait.differences is not None
    weights = trait.differences.n_pairs / trait.differences.n_pairs.sum()
    mean = (trait.differences.rows * weights[:, None, None]).sum(0)
    torch.testing.assert_close(mean, proved.made.vectors, atol=1e-5, rtol=1e-4)
    others = nonsense_vectors([tmp_path / "loud"], pair)
    torch.testing.assert_close(others["loud"], proved.made.vectors)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no vector.safetensors; --nonsense takes"):
        nonsense_vectors([tmp_path / "empty"], pair)
    # Its own vector as the control: nothing is beyond it.
    found = prove_trait(run, read_trait, nonsense=others, neutral=NEUTRAL, minutes=SHORT)
    assert not found.facts.induction.is_beyond_controls
    assert not found.facts.suppression.is_beyond_controls


def test_a_vector_of_a_file_is_proved_in_place_of_the_one_made(pair, proved, tmp_path):
    made = proved.made.vectors
    path = write_persona_vectors(
        VectorSet({0: made[0], 1: made[1]}, "resid_post"), tmp_path / "loud.pt", n_layers=3
    )
    given = given_vector(read_persona_vectors(path), pair)
    torch.testing.assert_close(given[:2], made[:2])
    assert given[2].isnan().all()
    run = session(pair)
    found = prove_trait(run, read_trait, neutral=NEUTRAL, minutes=SHORT, given=-given)
    assert found.place.layer == 1
    # It points the wrong way, and that is told.
    assert found.facts.reading.vector.high < 0.5 and found.verdict.name == "nothing"
    write_trait_files(tmp_path, trait_result(run, found, 1.0), run, found)
    assert load_vector_set(tmp_path / "vector.safetensors").layers == [0, 1]
    assert not (tmp_path / "differences.safetensors").exists()  # it is the mean of nothing here
    with pytest.raises(DataError, match="d_model=7 .* it is of another model"):
        given_vector(VectorSet({0: torch.ones(7)}, "resid_post"), pair)
