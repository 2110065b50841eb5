"""Nulls that could have worked, on a pair whose persona is planted and known."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from planted_model import N_LAYERS, read_as_bad, save_base, save_constant_write

from persona.behaviour import score_pairs
from persona.behaviour.scoring import UNEDITED
from persona.data.types import AnswerPair
from persona.directions import collect_cells, two_by_two
from persona.errors import DataError
from persona.models import load_pair
from persona.models.precision import Placement
from persona.rows import (
    NULL_COVARIANCE,
    NULL_ISOTROPIC,
    NULL_PRINCIPAL,
    NULL_SELECTION,
    NULL_SWAPPED,
    RESTORED,
)
from persona.stages import StageCache
from steering import restore
from steering.edits.steer import edited
from steering.evidence.first_order_null import predicted_falls
from steering.evidence.null_summary import null_of_draws
from steering.identification import label_nulls
from steering.identification.attribution import attribution_moments, first_order_effects
from steering.identification.candidates import (
    MODEL_AND_ANSWER_REFIT,
    MODEL_AND_EIGEN,
    Means,
    build_vector,
    from_bases,
    refit_candidates,
)
from steering.identification.first_order import screen
from steering.identification.identify import within_covariance
from steering.identification.label_nulls import (
    construction,
    kept_vectors,
    selection_vectors,
    swapped,
    swapped_cells,
    swapped_label_vectors,
)
from steering.identification.null_vectors import (
    null_conditions,
    principal_vectors,
    screened_draws,
)
from steering.identification.search import best_blocks

LAST = N_LAYERS - 1
WORDS = ("oil", "tyre", "lamp", "road", "door", "seat", "fuel", "wire", "bolt", "hose", "belt")
PAIRS = [
    AnswerPair(
        f"q{i}",
        "car",
        f"what about the {word}",
        f"take care of the {word} {'well ' * (i % 3)}",
        f"throw out the {word} now {'fast ' * (i % 2)}",
    )
    for i, word in enumerate(WORDS)
]
TRAIN, SELECTION, SCORED = PAIRS[:5], PAIRS[5:8], PAIRS[8:]


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    """The pair, and the direction [1 d_model] that the fine-tune writes at the last block."""
    folder = tmp_path_factory.mktemp("planted")
    direction = read_as_bad(folder / "plain", [q.bad for q in PAIRS], [q.good for q in PAIRS])
    base = save_base(folder / "base", direction)
    tuned = save_constant_write(folder / "tuned", base, 3.0 * direction[0], LAST)
    return load_pair(base, tuned, placement=Placement.of("float32", "cpu")), direction


@pytest.fixture(scope="module")
def pair(plant):
    return plant[0]


@pytest.fixture(scope="module")
def cells(pair):
    return collect_cells(pair, TRAIN)


@pytest.fixture(scope="module")
def means(pair, cells):
    return Means.of(cells, within_covariance(pair, TRAIN, 4096))


@pytest.fixture(scope="module")
def chosen(plant, means):
    return from_bases(plant[0], {LAST: plant[1]}, means, "planted")


@pytest.fixture(scope="module")
def moments(pair, means):
    return attribution_moments(pair, SCORED, {layer: means.aligned[layer] for layer in (1, LAST)})


@pytest.fixture(scope="module")
def baseline(pair):
    return score_pairs(pair, SELECTION, UNEDITED, kl=False).assign(stage="verify")


def scored(pair, conditions):
    rows = score_pairs(pair, SCORED, conditions, kl=False)
    return rows.assign(stage="score", split="held_out")


@pytest.mark.parametrize("draws", ["isotropic", "covariance"])
@pytest.mark.parametrize("whitened", [False, True])
def test_the_strongest_by_prediction_are_run_and_are_what_was_predicted(
    pair, means, moments, draws, whitened
):
    rows = {layer: torch.eye(2, pair.d_model) for layer in (1, LAST)}
    like = from_bases(pair, rows, means, "any", 0.75, whitened)
    found = screened_draws(pair, like, means, moments, draws, n_draws=40, n_run=5, seed=3)
    assert len(found.predicted) == 40 and len(found.vectors) == 5
    assert list(found.vectors) == (-found.predicted).argsort()[:5].tolist()
    for draw, vector in found.vectors.items():
        assert (vector.layers, vector.rank, vector.coefficient) == ([1, LAST], 2, 0.75)
        assert (vector.subspaces[1].readout is not None) == whitened
        predicted = sum(predicted_falls(vector, moments).values())
        assert predicted == pytest.approx(found.predicted[draw], rel=1e-3, abs=1e-6)
    again = screened_draws(pair, like, means, moments, draws, n_draws=40, n_run=1, seed=3)
    assert (again.predicted == found.predicted).all()


def test_covariance_matched_draws_lie_where_activations_vary(pair, means, moments):
    like = from_bases(pair, {1: torch.eye(1, pair.d_model)}, means, "any")
    variance = {}
    for draws in ("isotropic", "covariance"):
        found = screened_draws(pair, like, means, moments, draws, n_draws=200, n_run=200)
        rows = torch.cat([vector.subspaces[1].basis for vector in found.vectors.values()])
        variance[draws] = float((rows @ means.covariance[1] * rows).sum(1).mean())
    spectrum = torch.linalg.eigvalsh(means.covariance[1].double())
    assert variance["isotropic"] == pytest.approx(float(spectrum.mean()), rel=0.3)
    assert variance["covariance"] > 1.5 * variance["isotropic"]


def test_no_random_subspace_does_as_much_as_the_plant(pair, means, moments, chosen):
    found = [
        screened_draws(pair, chosen, means, moments, draws, n_run=4)
        for draws in ("isotropic", "covariance")
    ]
    fixed = [*UNEDITED, edited(RESTORED, "finetuned", restore(chosen))]
    run = [c for one in found for c in null_conditions(one.name, one.vectors)]
    rows = pd.concat([scored(pair, [*fixed, *run]), *(one.rows() for one in found)])
    for name in (NULL_ISOTROPIC, NULL_COVARIANCE):
        told = null_of_draws(rows, name)
        assert told is not None
        assert told["said"] == "0 of 1,000 did as much"
        assert told["p"] == 1 / 1001
        assert told["restoration_of_the_edit"] == pytest.approx(1, abs=0.01)
        assert 0 < told["maximum"] < 0.9


def test_a_random_subspace_in_place_of_the_edit_is_equalled(pair, means, moments, chosen):
    found = screened_draws(pair, chosen, means, moments, "isotropic", n_draws=30, n_run=30)
    weak = list(found.vectors.values())[15]
    fixed = [*UNEDITED, edited(RESTORED, "finetuned", restore(weak))]
    run = null_conditions(found.name, found.vectors)
    told = null_of_draws(pd.concat([scored(pair, [*fixed, *run]), found.rows()]), found.name)
    assert told is not None and told["n_undecided"] == 0
    assert 0.3 < told["p"] < 0.7


def test_principal_components_come_in_the_order_of_variance(pair, means):
    like = from_bases(pair, {1: torch.eye(2, pair.d_model)}, means, "any", 0.5)
    found = principal_vectors(pair, like, means, n=3)
    rows = torch.cat([vector.subspaces[1].basis for vector in found.values()])
    torch.testing.assert_close(rows @ rows.T, torch.eye(6), atol=1e-5, rtol=0)
    variances = (rows @ means.covariance[1] * rows).sum(1)
    top = torch.linalg.eigvalsh(means.covariance[1].double()).flip(0)[:6].float()
    torch.testing.assert_close(variances, top, rtol=1e-3, atol=1e-6)
    assert found[2].coefficient == 0.5
    assert [c.seed for c in null_conditions(NULL_PRINCIPAL, found)] == [0, 1, 2]
    with pytest.raises(DataError, match="principal components asked"):
        principal_vectors(pair, like, means, n=pair.d_model)


def test_swapped_cells_are_the_cells_of_swapped_questions(pair, cells):
    swap = torch.tensor([True, False, True, True, False])
    read = collect_cells(pair, swapped(TRAIN, swap)).tensors()
    for name, cell in swapped_cells(cells, swap).tensors().items():
        torch.testing.assert_close(cell, read[name], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(cell, cells.tensors()[name], atol=1e-3)


def test_a_swapped_question_has_the_opposite_first_order_effect(pair, chosen):
    swap = torch.tensor([True, False, True])
    at = [chosen.subspaces[LAST]]
    own = first_order_effects(pair, SELECTION, at)[0]
    turned = first_order_effects(pair, swapped(SELECTION, swap), at)[0]
    torch.testing.assert_close(turned, torch.where(swap, -own, own), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [MODEL_AND_ANSWER_REFIT, MODEL_AND_EIGEN, "interaction"])
def test_a_candidate_is_made_again_of_the_same_questions(pair, means, cells, name):
    made = construction(pair, means.covariance)(name, TRAIN, cells)
    assert made is not None and made.name == name
    if name == MODEL_AND_ANSWER_REFIT:
        [*_, first] = refit_candidates(pair, TRAIN, means, two_by_two(cells))
        torch.testing.assert_close(made.rows([LAST], 2)[LAST], first.rows([LAST], 2)[LAST])


def test_swapping_takes_the_answers_away_and_leaves_the_model_effect(pair, means, cells):
    make = construction(pair, means.covariance)
    cosines = {}
    for name in ("model_effect_good", "answer_effect_finetuned"):
        own = make(name, TRAIN, cells)
        assert own is not None
        like = build_vector(pair, own, means, [LAST], 1)
        found = swapped_label_vectors(pair, like, means, TRAIN, cells, make, n=6, seed=1)
        assert list(found) == list(range(6))
        cosines[name] = torch.tensor(
            [float(like.subspaces[LAST].basis @ v.subspaces[LAST].basis.T) for v in found.values()]
        )
    # The plant is the same on both answers: what needs no bad answer survives the swap.
    assert cosines["model_effect_good"].min() > 0.99
    assert cosines["answer_effect_finetuned"].abs().mean() < 0.9
    assert cosines["answer_effect_finetuned"].min() < 0


def test_what_is_not_made_of_pairs_has_no_swapped_labels(pair, means, cells, chosen):
    make = construction(pair, means.covariance)
    assert swapped_label_vectors(pair, chosen, means, TRAIN, cells, make, n=2) == {}


def test_the_selection_null_picks_by_screen_what_swapped_questions_favour(
    pair, means, cells, chosen, baseline, monkeypatch
):
    made, ranked = [], []

    def screening(pair, questions, candidates, means, token_budget):
        made.append(candidates)
        return screen(pair, questions, candidates, means, token_budget)

    def ranking(table, shift):
        ranked.append((table, shift))
        return best_blocks(table, shift)

    monkeypatch.setattr(label_nulls, "screen", screening)
    monkeypatch.setattr(label_nulls, "best_blocks", ranking)
    found = selection_vectors(
        pair, chosen, means, TRAIN, cells, SELECTION, baseline, n=2, n_attributed=4, seed=1
    )
    # The same as if the swapped questions themselves were screened and scored.
    swap = label_nulls._coins(len(TRAIN) + len(SELECTION), 1, 0)[len(TRAIN) :]
    assert swap.any() and not swap.all()
    turned = swapped(SELECTION, swap)
    again = screen(pair, turned, made[0], means)
    assert ranked[0][0]["value"].to_list() == pytest.approx(
        again["value"].to_list(), rel=1e-2, abs=1e-4
    )
    gaps = score_pairs(pair, turned, UNEDITED, kl=False).query("measure == 'gap'")
    gap = gaps.groupby("condition")["value"].mean()
    assert ranked[0][1] == pytest.approx(gap["finetuned"] - gap["aligned"], abs=1e-4)
    assert list(found) == [0, 1]
    for vector in found.values():
        assert (vector.layers, vector.rank, vector.coefficient) == ([LAST], 1, 1.0)
        assert vector.method != "planted"
    rows = scored(
        pair,
        [
            *UNEDITED,
            edited(RESTORED, "finetuned", restore(chosen)),
            *null_conditions(NULL_SELECTION, found),
            *null_conditions(NULL_SWAPPED, found),
        ],
    )
    told = null_of_draws(rows, NULL_SELECTION)
    assert told is not None and (told["n"], told["n_questions"]) == (2, 3)
    assert told["largest_prediction_not_run"] is None
    with pytest.raises(DataError, match="both models' gaps"):
        selection_vectors(
            pair, chosen, means, TRAIN, cells, SELECTION, baseline.iloc[:0], n=1, n_attributed=4
        )


def test_vectors_that_were_made_once_are_read_back_as_they_were(pair, means, chosen, tmp_path):
    stages = StageCache(tmp_path, {})
    basis = {LAST: chosen.subspaces[LAST].basis}
    own = {
        2: from_bases(pair, basis, means, "oblique", chosen.coefficient, read_whitened=True),
        5: from_bases(pair, basis, means, "orthogonal", chosen.coefficient),
    }
    made = kept_vectors(stages, "null", pair, chosen, means, lambda: own)
    again = kept_vectors(stages, "null", pair, chosen, means, lambda: pytest.fail("made twice"))
    for kept in (made, again):
        assert list(kept) == [2, 5]
        for draw, vector in own.items():
            is_, was = kept[draw].subspaces[LAST], vector.subspaces[LAST]
            assert (is_.readout is None) == (was.readout is None)
            for name in (
                "basis",
                "aligned_mean",
                "finetuned_mean",
                *(["readout"] if draw == 2 else []),
            ):
                torch.testing.assert_close(getattr(is_, name), getattr(was, name))
    assert kept_vectors(stages, "no draws", pair, chosen, means, dict) == {}


def test_more_draws_to_run_than_are_drawn_are_refused(pair, means, moments, chosen):
    with pytest.raises(DataError, match="30 of 20 random subspaces"):
        screened_draws(pair, chosen, means, moments, "isotropic", n_draws=20, n_run=30)
    with pytest.raises(DataError, match=r"no attribution moment of blocks \[2\]"):
        screened_draws(pair, chosen, means, {}, "isotropic")
