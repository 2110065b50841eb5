"""Latents are set to what was asked, and nothing else of the activation moves."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_causal_lm

from persona.directions.direction import Direction
from persona.errors import SteeringError
from persona.models.hooks import hooked
from persona.models.space import ActivationSpace
from steering.edits.from_directions import ablate
from steering.edits.latents import clamp_latents, latent_edits
from steering.edits.steer import steer

D, N = 16, 40
SPACE = ActivationSpace("tiny", "1", "blocks.1.hook_resid_post", 1, D)
IDS = torch.arange(10, 22).reshape(2, 6)


class Relu:
    """An autoencoder with tied random weights: it rebuilds an activation only badly."""

    def __init__(self, seed=0, d_model=D):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(N, d_model, generator=generator)
        self.rows = rows / rows.norm(dim=1, keepdim=True)
        self.shift = torch.randn(d_model, generator=generator)
        self.dtypes = set()

    def encode(self, x):
        self.dtypes.add(x.dtype)
        return ((x - self.shift) @ self.rows.T).relu()

    def decode(self, x):
        return x @ self.rows + self.shift


@pytest.fixture
def sae():
    return Relu()


@pytest.fixture(scope="module")
def plain():
    return tiny_causal_lm("llama")


def resid(rows=3):
    return 3 * torch.randn(rows, 5, D, generator=torch.Generator().manual_seed(1))


def error_of(sae, h):
    return h - sae.decode(sae.encode(h))


def test_a_clamped_latent_keeps_the_error_term(sae):
    h, chosen = resid(), [3, 7]
    clamped = clamp_latents(h, sae, chosen, 2.5)
    wanted = sae.encode(h)
    wanted[..., chosen] = 2.5
    torch.testing.assert_close(clamped, sae.decode(wanted) + error_of(sae, h), atol=1e-5, rtol=0)
    assert error_of(sae, h).norm() > 1
    # One decoder row each: the rest of the activation does not move.
    span = torch.linalg.qr(sae.rows[chosen].T).Q
    off = lambda x: x - x @ span @ span.T  # noqa: E731
    torch.testing.assert_close(off(clamped), off(h), atol=1e-5, rtol=0)
    assert (clamped - h).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_latent_clamped_to_its_own_value_changes_no_bit(sae, dtype):
    h = resid(1)[:, :1].to(dtype)
    own = sae.encode(h.float())[0, 0, [3, 7]][None]
    kept = clamp_latents(h, sae, [3, 7], own)
    assert torch.equal(kept, h)
    assert kept.dtype == dtype
    assert sae.dtypes == {torch.float32}


def test_ablating_a_latent_that_is_off_changes_no_bit_and_one_that_is_on_takes_its_row(sae):
    h = resid()
    size = sae.encode(h)[..., [5]]
    ablated = clamp_latents(h, sae, [5], 0.0)
    off = size[..., 0] == 0
    assert 0 < off.sum() < off.numel()
    assert torch.equal(ablated[off], h[off])
    torch.testing.assert_close(ablated, h - size * sae.rows[5], atol=1e-5, rtol=0)


def test_a_value_for_each_row_is_each_row_alone(sae):
    h, values = resid(), torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    together = clamp_latents(h, sae, [1, 2], values)
    for row in range(3):
        alone = clamp_latents(h[row : row + 1], sae, [1, 2], values[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)  # rounding


def test_an_edit_of_latents_writes_the_positions_given_and_no_others(sae, plain):
    seen = []
    reading = [("blocks.2.hook_resid_pre", lambda h: seen.append(h.clone()))]
    with torch.no_grad(), hooked(plain, reading):
        plain(IDS)
        with steer(plain, latent_edits(SPACE, sae, [4, 9], 3.0), positions=(2, 4)):
            plain(IDS)
    expected = seen[0].clone()
    expected[:, 2:4] = clamp_latents(seen[0], sae, [4, 9], 3.0)[:, 2:4]
    torch.testing.assert_close(seen[1], expected)
    assert ((seen[1] != seen[0]).any(-1).sum(0) > 0).tolist() == [False] * 2 + [True] * 2 + [
        False
    ] * 2


def test_an_edit_of_latents_sweeps_its_rows(sae, plain):
    with pytest.raises(SteeringError, match="3 coefficients.* the batch has 2 rows"):
        with steer(plain, latent_edits(SPACE, sae, [4], torch.ones(3, 1))):
            plain(IDS)


def test_what_is_no_latent_is_refused_before_the_model_runs(sae, plain):
    for latents, values, line in (
        ([N], 0.0, "latents 0 to 39; 40 is out of range"),
        ([-1], 0.0, "-1 is out of range"),
        ([], 0.0, "one or more, each named once"),
        ([1, 1], 0.0, "one or more, each named once"),
        ([1], float("nan"), "a level must be a finite number"),
        ([1], torch.tensor([[float("inf")]]), "a level must be a finite number"),
        ([1, 2], torch.ones(4, 3), r"a number or a table \[rows 2\].* got shape \(4, 3\)"),
    ):
        with pytest.raises(SteeringError, match=line):
            latent_edits(SPACE, sae, latents, values)
    with pytest.raises(SteeringError, match="does not take activations of d_model=16"):
        latent_edits(SPACE, Relu(d_model=8), [1])
    sae.rows[6] = 0
    with pytest.raises(SteeringError, match="write nothing"):
        latent_edits(SPACE, sae, [6])
    sets = latent_edits(SPACE, sae, [1])
    along = ablate(Direction(sae.rows[1], SPACE, "row"))
    with pytest.raises(SteeringError, match="'latents 1' and 'ablate' both set coordinates"):
        with steer(plain, [*sets, *along]):
            plain(IDS)
    with pytest.raises(SteeringError, match="model differs"):
        other = ActivationSpace("other", "1", SPACE.hook_name, 1, D)
        with steer(plain, sets, space=other):
            plain(IDS)


def test_an_autoencoder_of_sae_lens_is_taken_as_it_is(plain):
    from sae_lens import StandardSAE, StandardSAEConfig

    sae = StandardSAE(StandardSAEConfig(d_in=D, d_sae=32))
    torch.nn.init.normal_(sae.W_enc, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(sae.W_dec, generator=torch.Generator().manual_seed(1))
    h = resid()
    on = sae.encode(h)[..., [0]]
    with torch.no_grad():
        expected = h + (2.0 - on) * sae.W_dec[0]
        torch.testing.assert_close(clamp_latents(h, sae, [0], 2.0), expected, atol=1e-5, rtol=1e-5)
        with steer(plain, latent_edits(SPACE, sae, [0], 2.0)) as record:
            plain(IDS)
    assert record.n_tokens == [10]
