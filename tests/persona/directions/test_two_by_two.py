"""A planted signal is recovered to the bound that n and the noise allow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from persona.directions import (
    ActivationSpace,
    Cells,
    Direction,
    PersonaVector,
    Subspace,
    load_vector,
    mean_difference,
    orthonormal,
    save_vector,
    two_by_two,
)
from persona.errors import DataError, SpaceMismatchError

D, N = 64, 200


def space(layer=1, model="m", d_model=D):
    return ActivationSpace(model, "r", f"blocks.{layer}.hook_resid_post", layer, d_model, "h")


def planted_cells(seed=0, noise=1.0):
    """answer effect +a in both models, +i more in the fine-tuned one; model effect +m."""
    g = torch.Generator().manual_seed(seed)
    answer, model, interaction = orthonormal(torch.randn(3, D, generator=g))
    base = torch.randn(N, 1, D, generator=g) * 5
    draw = lambda: base + noise * torch.randn(N, 1, D, generator=g)  # noqa: E731
    cells = Cells(
        aligned_good=draw(),
        aligned_bad=draw() + 2 * answer,
        finetuned_good=draw() + 3 * model,
        finetuned_bad=draw() + 3 * model + 2 * answer + 1.5 * interaction,
    )
    return cells, {"answer": 2 * answer, "model": 3 * model, "interaction": 1.5 * interaction}


def test_each_effect_is_recovered_with_its_sign_and_size():
    cells, truth = planted_cells()
    effects = two_by_two(cells)
    expected = {
        "answer_effect_aligned": truth["answer"],
        "answer_effect_finetuned": truth["answer"] + truth["interaction"],
        "model_effect_good": truth["model"],
        "model_effect_bad": truth["model"] + truth["interaction"],
        "interaction": truth["interaction"],
    }
    for name, vector in expected.items():
        # A mean of N differences of k independent unit-noise cells errs by sqrt(k D / N).
        n_cells = 4 if name == "interaction" else 2
        bound = 1.3 * math.sqrt(n_cells * D / N)
        error = (effects[name].vectors[0] - vector).norm()
        assert error < bound, (name, error, bound)
        assert effects[name].norms[0] == pytest.approx(float(effects[name].vectors[0].norm()))


def test_split_halves_agree_on_a_signal_and_not_on_noise():
    cells, _ = planted_cells()
    signal = mean_difference(cells.finetuned_good - cells.aligned_good)
    noise = mean_difference(torch.randn(N, 1, D, generator=torch.Generator().manual_seed(1)))
    assert signal.split_half_cosine[0] > 0.8
    assert signal.split_half_low[0] <= signal.split_half_cosine[0] <= signal.split_half_high[0]
    # Two halves of one fixed sample are, if anything, opposed around its small mean.
    assert noise.split_half_cosine[0] < 0.5
    low, high = signal.bootstrap_cosine[0]
    assert 0.8 < low <= high <= 1


@pytest.mark.parametrize("factor", [2, 0.5, -3.0, np.float32(2), np.float64(-0.5)])
def test_a_number_times_a_direction_is_as_much_longer(factor):
    direction = Direction(torch.tensor([3.0, -4.0]), space(d_model=2), "made up")
    for product in (factor * direction, direction * factor):
        torch.testing.assert_close(product.vector, float(factor) * direction.vector)
        assert product.norm == pytest.approx(abs(float(factor)) * 5)
        assert product.space == direction.space
        assert product.method == f"{float(factor):g} * made up"


def test_minus_a_direction_points_the_other_way_and_nothing_changes_in_place():
    direction = Direction(torch.tensor([3.0, -4.0]), space(d_model=2), "made up")
    away = -direction
    assert away.cosine(direction) == pytest.approx(-1) and away.norm == direction.norm
    assert away.method == "-made up"
    assert torch.equal((-away).vector, direction.vector)
    assert direction.vector.tolist() == [3.0, -4.0]


@pytest.mark.parametrize("factor", [0, float("nan"), float("inf")])
def test_a_direction_of_no_length_is_none(factor):
    direction = Direction(torch.ones(2), space(d_model=2), "made up")
    with pytest.raises(DataError, match="is zero|is not finite"):
        factor * direction


def test_a_direction_is_multiplied_by_numbers_only(unchecked_hints):
    direction = Direction(torch.ones(2), space(d_model=2), "made up")
    for other in ("2", [1.0], direction):
        with pytest.raises(TypeError, match="unsupported operand|can't multiply"):
            direction * other


def test_an_effect_makes_the_direction_of_the_block_it_was_read_at():
    g = torch.Generator().manual_seed(4)
    cells = [torch.randn(8, 2, D, generator=g) for _ in range(4)]
    effect = two_by_two(Cells(*cells, spaces=(space(5), space(9))))["interaction"]
    found = effect.direction(9)
    assert torch.equal(found.vector, effect.vectors[1])
    assert found.space == space(9) and found.method == "interaction"
    with pytest.raises(DataError, match=r"interaction was read at blocks \[5, 9\], not at 1"):
        effect.direction(1)
    by_hand = two_by_two(Cells(*cells))["interaction"]
    with pytest.raises(DataError, match="interaction does not know where it was read"):
        by_hand.direction(9)
    with pytest.raises(DataError, match="2 layers were read, but 1 spaces are given"):
        Cells(*cells, spaces=(space(5),))


def test_some_of_the_questions_keep_their_cells_and_places():
    g = torch.Generator().manual_seed(4)
    cells = Cells(*(torch.randn(8, 1, D, generator=g) for _ in range(4)), spaces=(space(5),))
    odd = cells.at_questions(slice(1, None, 2))
    assert odd.n_questions == 4 and odd.spaces == cells.spaces
    for name, cell in odd.tensors().items():
        assert torch.equal(cell, getattr(cells, name)[1::2])


def test_too_few_questions_are_refused():
    cell = torch.zeros(3, 1, D)
    with pytest.raises(DataError, match="at least 4 questions; got 3"):
        two_by_two(Cells(cell, cell, cell, cell))


def test_orthonormal_keeps_order_span_and_sign():
    vectors = torch.randn(3, D, generator=torch.Generator().manual_seed(0))
    basis = orthonormal(vectors)
    torch.testing.assert_close(basis @ basis.T, torch.eye(3), atol=1e-6, rtol=0)
    assert (basis[0] @ vectors[0]) / vectors[0].norm() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close((vectors @ basis.T) @ basis, vectors, atol=1e-5, rtol=0)
    with pytest.raises(DataError, match="linearly dependent"):
        orthonormal(torch.stack([vectors[0], 2 * vectors[0]]))


@pytest.mark.parametrize("bad", [torch.zeros(D), torch.full((D,), float("nan"))])
def test_a_direction_cannot_hold_nonsense(bad):
    with pytest.raises(DataError, match=r"zero|not finite"):
        Direction(bad, space(), "m")


def test_directions_of_two_spaces_do_not_mix():
    a = Direction(torch.ones(D), space(1), "m")
    with pytest.raises(SpaceMismatchError, match="hook_name differs"):
        a.cosine(Direction(torch.ones(D), space(2), "m"))
    with pytest.raises(SpaceMismatchError, match="model differs: 'm'"):
        a.cosine(Direction(torch.ones(D), space(1, "other"), "m"))
    with pytest.raises(SpaceMismatchError, match="d_model=64"):
        Direction(torch.ones(D + 1), space(), "m")


def persona_vector():
    g = torch.Generator().manual_seed(3)
    return PersonaVector(
        {
            layer: Subspace(
                orthonormal(torch.randn(2, D, generator=g)),
                torch.tensor([1.0, 2.0]),
                torch.tensor([4.0, 6.0]),
                space(layer),
            )
            for layer in (4, 2)
        },
        "span",
        0.75,
        {"note": "kept"},
    )


def test_saved_and_loaded_is_the_same(tmp_path):
    first, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    vector = persona_vector()
    save_vector(vector, first)
    loaded = load_vector(first)
    save_vector(loaded, again)
    assert first.read_bytes() == again.read_bytes()
    assert loaded.layers == [2, 4] and loaded.rank == 2 and loaded.coefficient == 0.75
    assert loaded.card["note"] == "kept"
    assert loaded.norms == pytest.approx([5.0, 5.0])
    assert torch.equal(loaded.subspaces[4].basis, vector.subspaces[4].basis)
    assert loaded.subspaces[4].space == vector.subspaces[4].space


def test_the_direction_points_from_aligned_to_finetuned():
    vector = persona_vector()
    direction = vector.direction(2).vector
    coordinates = vector.subspaces[2].basis @ direction
    torch.testing.assert_close(coordinates, torch.tensor([3.0, 4.0]), atol=1e-5, rtol=0)


def test_truncated_and_foreign_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    good = tmp_path / "good.safetensors"
    save_vector(persona_vector(), good)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-50])
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": torch.zeros(2)}, foreign)
    for path in (cut, foreign, tmp_path / "none.safetensors"):
        with pytest.raises(DataError, match=path.name):
            load_vector(path)


def test_a_file_of_empty_directions_does_not_ask_for_their_square(tmp_path, unchecked_hints):
    """50,000 directions of no width take 400 kB; the identity matrix of that rank takes 10 GB."""
    import json

    from safetensors.torch import save_file

    n = 50_000
    parts = {"basis": torch.zeros(n, 0), "readout": torch.zeros(n, 0)}
    parts |= {"aligned_mean": torch.zeros(n), "finetuned_mean": torch.ones(n)}
    card = {
        **{"format": "personascope/persona-vector", "schema_version": 1, "method": "m"},
        **{"coefficient": 1.0, "spaces": {"1": {**vars(space()), "d_model": 0}}},
    }
    path = tmp_path / "wide.safetensors"
    save_file({f"1.{k}": v for k, v in parts.items()}, path, {"card": json.dumps(card)})
    with pytest.raises(DataError, match="d_model=0 cannot have rank 50000"):
        load_vector(path)
