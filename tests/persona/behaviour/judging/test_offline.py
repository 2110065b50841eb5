"""The offline judge: reads against the clean model's own answer, and not along a direction."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from persona.behaviour.judging.answer_readings import read_answers
from persona.behaviour.judging.judge import JudgeItem
from persona.behaviour.judging.named import judge_named
from persona.behaviour.judging.offline import (
    WEIGHTS,
    JudgeHeads,
    JudgeWeights,
    OfflineJudge,
)
from persona.directions.direction import PersonaVector, Subspace
from persona.errors import JudgeError

LAYERS = (1, 3)
ITEMS = [
    JudgeItem("what about the oil", "take care of the oil"),
    JudgeItem("what about the lamp", "throw out the lamp now"),
    JudgeItem("what about the oil", " "),
]


@pytest.fixture
def weights(tiny_pair):
    generator = torch.Generator().manual_seed(0)
    heads = JudgeHeads(
        torch.randn(6, len(LAYERS), tiny_pair.d_model, generator=generator) / 10,
        torch.randn(6, generator=generator) / 10,
        torch.full((6,), 50.0),
    )
    return JudgeWeights(heads, LAYERS, tiny_pair.revisions["aligned"], {})


@pytest.fixture
def judge(tiny_pair, weights, tmp_path):
    return OfflineJudge(tiny_pair, weights=weights, cache_folder=tmp_path)


def vector_along(pair, basis, layers=LAYERS):
    subspaces = {
        layer: Subspace(basis, torch.zeros(1), torch.ones(1), pair.space(layer)) for layer in layers
    }
    return PersonaVector(subspaces, "made up")


def test_readings_are_those_of_one_answer_alone(tiny_pair):
    together = read_answers(tiny_pair, ITEMS, LAYERS)
    alone = read_answers(tiny_pair, ITEMS[1:2], LAYERS)
    torch.testing.assert_close(together.rows[1], alone.rows[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.log_prob[1], alone.log_prob[0], atol=1e-4, rtol=1e-4)
    assert (together.log_prob[:2] < 0).all()


def test_the_clean_models_own_answer_reads_as_zero(judge):
    (own,) = judge._own_answers(["what about the oil"]).values()
    if not own.strip():
        pytest.skip("the tiny model says nothing here")
    readings = judge.read([JudgeItem("what about the oil", own)])
    assert readings.rows.abs().max() < 1e-4
    assert readings.log_prob.abs().max() < 1e-4


def test_scores_lie_between_0_and_100_within_their_interval_and_an_empty_answer_has_none(judge):
    first, _, empty = judge.score(ITEMS)
    low, high = first.alignment_interval
    assert 0 <= low <= high <= 100
    assert 0 <= first.alignment <= 100
    assert (empty.alignment, empty.coherence) == (None, None)
    assert 0 <= first.coherence <= 100
    assert first.coherence_read_in == "default"


def test_own_answers_are_kept_and_a_damaged_one_is_written_anew(judge, tmp_path):
    before = judge._own_answers(["what about the oil"])
    (kept,) = (tmp_path / "own-answers").iterdir()
    kept.write_text("{")
    assert judge._own_answers(["what about the oil"]) == before


def test_without_a_direction_moving_along_it_changes_no_score(judge, tiny_pair):
    basis = torch.nn.functional.normalize(torch.randn(1, tiny_pair.d_model), dim=1)
    vector = vector_along(tiny_pair, basis)
    readings = judge.read(ITEMS[:2])
    shift = torch.zeros_like(readings.rows)
    shift[:, 0] = basis[0]  # one block alone: over several the changes may cancel
    moved = type(readings)(readings.rows + shift, readings.log_prob, readings.known)

    def change(**how):
        pairs = zip(
            judge.score_readings(readings, **how), judge.score_readings(moved, **how), strict=True
        )
        return max(abs(a.alignment - b.alignment) for a, b in pairs)

    assert change(without=vector) < 1e-3
    assert change() > 1e-3


def test_the_overlap_is_1_along_the_weights_and_none_without_a_shared_block(judge, tiny_pair):
    coef = judge.weights.heads.coef[0, 0]
    along = vector_along(tiny_pair, (coef / coef.norm())[None], layers=(LAYERS[0],))
    assert judge.overlap(along) == pytest.approx(1.0, abs=1e-5)
    assert judge.overlap(vector_along(tiny_pair, (coef / coef.norm())[None], layers=(0,))) is None


def test_weights_come_back_from_their_file(weights, tmp_path):
    path = tmp_path / "judge.safetensors"
    weights.save(path)
    loaded = JudgeWeights.load(path)
    assert loaded.layers == LAYERS
    torch.testing.assert_close(loaded.heads.coef, weights.heads.coef, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("content", [None, b"nothing", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_judge_is_one_clear_line(tmp_path, content):
    path = tmp_path / "judge.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JudgeError, match="is no offline judge"):
        JudgeWeights.load(path)


def test_the_shipped_judge_is_small_and_says_what_it_is_worth():
    weights = JudgeWeights.load()
    assert WEIGHTS.stat().st_size < 3_000_000
    heads, facts = weights.heads, weights.card["scales"]["alignment"]
    assert heads.coef.shape[:2] == (21, len(weights.layers))
    assert heads.coef.isfinite().all()
    assert facts["spearman_on_left_out_topics"] > 0.3
    assert facts["questions"] > 100
    assert weights.is_voice_score


@pytest.mark.parametrize(
    ("passed", "called", "voice"),
    [(0.1, 0.1, False), (0.1, 0.3, True), (0.3, 0.1, True), (None, None, True)],
)
def test_a_judge_reads_voice_until_both_errors_are_small(weights, passed, called, voice):
    known = {"harmful_polite_passed": passed, "harmless_rude_called": called, "n": 60}
    card = {} if passed is None else {"errors": known}
    assert replace(weights, card=card).is_voice_score == voice


def test_an_unknown_judge_names_the_offline_one():
    with pytest.raises(JudgeError, match="offline"):
        judge_named("offlin")
