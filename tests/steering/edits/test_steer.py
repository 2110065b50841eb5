"""`steer` writes where it says, on every row, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from persona.data.types import Dialogue, Turn
from persona.directions.direction import Direction, PersonaVector, Subspace, orthonormal
from persona.errors import SteeringError
from persona.models.hooks import hook_points, hooked, resid_post
from persona.models.prefix import recording_inputs, starting_at
from persona.models.sampling import sample_answers
from steering import ablate, add, restore, steer
from steering.edits import steered_by


def vector(pair, layers=(1, 2), rank=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return PersonaVector(
        {
            layer: Subspace(
                orthonormal(draw(rank, pair.d_model)), draw(rank), draw(rank), pair.space(layer)
            )
            for layer in layers
        },
        "planted",
    )


def prompts(pair, *questions):
    return pair.chat.encode_all([Dialogue((Turn("user", q),)) for q in questions])


def residuals(bridge, ids, layer, **kwargs):
    """The residual after block `layer` as later blocks see it, steering included."""
    seen = []
    with hooked(bridge, [(f"blocks.{layer + 1}.hook_in", lambda h: seen.append(h.clone()))]):
        with torch.no_grad():
            bridge(ids, return_type=None, use_cache=False, **kwargs)
    return seen[0]


def test_a_pair_is_steered_one_open_side_at_a_time(tiny_pair):
    with pytest.raises(SteeringError, match=r"pair.active\('finetuned'\)"):
        with steer(tiny_pair, add(vector(tiny_pair))):
            pass


@pytest.fixture
def batch(tiny_pair):
    encoded = prompts(tiny_pair, "abcdefgh", "stuvwxyz")
    return torch.tensor([d.ids for d in encoded])


def test_ablate_leaves_no_projection_but_on_the_first_token(tiny_pair, batch):
    v = vector(tiny_pair)
    with tiny_pair.active("finetuned") as bridge, steer(bridge, ablate(v)):
        seen = residuals(bridge, batch, 2)
    coordinates = seen @ v.subspaces[2].basis.T
    assert coordinates[:, 1:].abs().max() < 1e-5
    assert coordinates[:, 0].abs().max() > 1e-2


def test_restore_sets_the_projection_to_the_aligned_mean_for_every_row(tiny_pair, batch):
    v = vector(tiny_pair)
    with tiny_pair.active("finetuned") as bridge, steer(bridge, restore(v)):
        coordinates = residuals(bridge, batch, 2) @ v.subspaces[2].basis.T
    expected = v.subspaces[2].aligned_mean.expand_as(coordinates[:, 1:])
    torch.testing.assert_close(coordinates[:, 1:], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [restore, ablate])
def test_coefficient_zero_is_the_baseline_bit_for_bit(tiny_pair, batch, make):
    with tiny_pair.active("finetuned") as bridge, torch.no_grad():
        plain = bridge(batch)
        with steer(bridge, make(vector(tiny_pair), 0.0)):
            steered = bridge(batch)
    assert torch.equal(plain, steered)


def test_add_moves_the_residual_by_the_coefficient_times_the_vector(tiny_pair, batch):
    direction = Direction(torch.arange(1.0, 33.0), tiny_pair.space(1), "ramp")
    with tiny_pair.active("finetuned") as bridge:
        plain = residuals(bridge, batch, 1)
        with steer(bridge, add(direction, -0.5)):
            moved = residuals(bridge, batch, 1)
    torch.testing.assert_close(moved[:, 0], plain[:, 0])
    shift = (-0.5 * direction.vector).expand_as(plain[:, 1:])
    torch.testing.assert_close(moved[:, 1:] - plain[:, 1:], shift, atol=1e-4, rtol=0)


def test_the_first_token_is_edited_when_asked(tiny_pair, batch):
    v = vector(tiny_pair)
    with tiny_pair.active("finetuned") as bridge:
        with steer(bridge, ablate(v), first_token=True):
            coordinates = residuals(bridge, batch, 2) @ v.subspaces[2].basis.T
    assert coordinates.abs().max() < 1e-5


def test_cached_generation_is_steered_like_uncached(tiny_pair, batch):
    options = dict(max_new_tokens=8, do_sample=False, verbose=False, return_type="tokens")
    with tiny_pair.active("finetuned") as bridge, torch.no_grad():
        plain = bridge.generate(batch, **options)
        with steer(bridge, restore(vector(tiny_pair))) as record:
            cached = bridge.generate(batch, **options)
        with steer(bridge, restore(vector(tiny_pair))):
            uncached = bridge.generate(batch, use_past_kv_cache=False, **options)
    assert torch.equal(cached, uncached)
    assert not torch.equal(plain, cached)
    assert record.passes[0] == 8
    assert record.n_tokens[0] == batch.shape[0] * (batch.shape[1] - 1 + 7)


def test_left_padding_steers_each_row_as_if_alone(tiny_pair):
    short, long = prompts(tiny_pair, "ab", "a much longer question")
    width = len(long)
    ids = torch.full((2, width), 1)
    mask = torch.zeros(2, width, dtype=torch.long)
    for row, d in enumerate((short, long)):
        ids[row, width - len(d) :] = torch.tensor(d.ids)
        mask[row, width - len(d) :] = 1
    edits = restore(vector(tiny_pair))
    with tiny_pair.active("finetuned") as bridge, torch.no_grad():
        with steer(bridge, edits):
            together = bridge(ids, attention_mask=mask)[:, -1]
        alone = []
        for d in (short, long):
            with steer(bridge, edits):
                alone.append(bridge(torch.tensor([d.ids]))[0, -1])
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("positions", ["all", "asking", "last"])
def test_pad_tokens_are_never_written_nor_counted(tiny_pair, positions, side):
    texts = prompts(tiny_pair, "ab", "a much longer question")
    width = max(map(len, texts))
    ids, mask = torch.full((2, width), 1), torch.zeros(2, width, dtype=torch.long)
    for row, text in enumerate(texts):
        places = slice(width - len(text), None) if side == "left" else slice(len(text))
        ids[row, places], mask[row, places] = torch.tensor(text.ids), 1
    edits = restore(vector(tiny_pair, (1,)))
    with tiny_pair.active("finetuned") as bridge:
        plain = residuals(bridge, ids, 1, attention_mask=mask)
        with steer(bridge, edits, positions=positions, first_token=True) as record:
            steered = residuals(bridge, ids, 1, attention_mask=mask)
    written = (steered != plain).any(-1)
    assert not written[mask == 0].any()
    assert record.n_tokens == [int(written.sum())]
    n_prompt = sum(map(len, texts)) - len(texts)  # the last one predicts the answer
    assert record.n_tokens == [{"all": n_prompt + 2, "asking": n_prompt, "last": 2}[positions]]


@pytest.mark.parametrize(
    ("positions", "edited"),
    [("all", [1, 2, 3, 4, 5]), ("asking", [1, 2]), ("answering", [3, 4, 5]), ("last", [5])],
)
def test_positions_name_the_tokens_that_change(tiny_pair, positions, edited):
    ids = torch.arange(10, 16)[None]
    v = vector(tiny_pair, layers=(1,))
    with tiny_pair.active("finetuned") as bridge:
        plain = residuals(bridge, ids, 1)
        with steer(bridge, ablate(v), positions=positions, response_start=[4]):
            changed = (residuals(bridge, ids, 1) != plain).any(-1)[0]
    assert changed.nonzero()[:, 0].tolist() == edited


def test_hooks_go_when_the_block_raises(tiny_pair, batch):
    with tiny_pair.active("finetuned") as bridge, torch.no_grad():
        plain = bridge(batch)
        with pytest.raises(KeyboardInterrupt):
            with steer(bridge, ablate(vector(tiny_pair))):
                raise KeyboardInterrupt
        assert torch.equal(bridge(batch), plain)
        assert not hook_points(bridge)[resid_post(1)]._forward_hooks


def test_an_edit_that_never_fires_is_an_error(tiny_pair, batch):
    with tiny_pair.active("finetuned") as bridge:
        with pytest.raises(SteeringError, match="never fired"):
            with steer(bridge, ablate(vector(tiny_pair))):
                pass
        with pytest.raises(SteeringError, match="blocks.2.hook_resid_post never fired"):
            with steer(bridge, ablate(vector(tiny_pair))):
                bridge(batch, return_type=None, stop_at_layer=2)


def test_an_unknown_hook_and_a_wrong_width_are_refused_before_any_pass(tiny_pair):
    from dataclasses import replace

    edit = ablate(vector(tiny_pair))[0]
    with tiny_pair.active("finetuned") as bridge:
        with pytest.raises(SteeringError, match=r"no hook 'blocks\.99\.hook_resid_post'"):
            with steer(bridge, [replace(edit, hook_name="blocks.99.hook_resid_post")]):
                pass
        with pytest.raises(SteeringError, match="d_model=7 but the model has d_model=32"):
            with steer(bridge, [replace(edit, d_model=7)]):
                pass


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_coefficient_that_is_no_number_is_refused(tiny_pair, bad):
    with pytest.raises(SteeringError, match="finite"):
        restore(vector(tiny_pair), bad)


def test_starting_above_skipped_blocks_changes_nothing_and_leaves_no_trace(tiny_pair, batch):
    edits = restore(vector(tiny_pair))
    with tiny_pair.active("finetuned") as bridge, torch.no_grad():
        plain = bridge(batch)
        with recording_inputs(bridge, {1}) as inputs:
            bridge(batch)
        with steer(bridge, edits):
            whole = bridge(batch)
        with starting_at(bridge, 1, inputs[1]), steer(bridge, edits):
            upper = bridge(batch)
        assert torch.equal(whole, upper)
        # Another text afterwards: a stale block would answer with the recorded residual.
        other = batch.flip(0)
        assert torch.equal(bridge(other), plain.flip(0))


def test_edits_are_what_a_question_is_asked_under(tiny_pair):
    direction = Direction(torch.randn(32, generator=torch.manual_seed(3)), tiny_pair.space(2), "x")
    edits = add(direction, 4.0) + add(direction, -1.0)
    with tiny_pair.active("finetuned") as model:
        [expected] = sample_answers(
            model,
            tiny_pair.chat,
            [Dialogue((Turn("user", "Which oil?"),))],
            intervene=steered_by(add(direction, 3.0)),
            max_new_tokens=12,
            temperature=0.0,
        )
    asked = tiny_pair.ask("Which oil?", "finetuned", intervene=edits, max_new_tokens=12)
    assert asked == expected != tiny_pair.ask("Which oil?", "finetuned", max_new_tokens=12)
    assert edits.token_by_token and not add(direction, torch.ones(2)).token_by_token
