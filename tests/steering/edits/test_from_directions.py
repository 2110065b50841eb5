"""Edits at every site, on a bridge and on the plain model under it: the same meaning."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, tiny_bridge, tiny_causal_lm

from persona.directions.direction import Direction
from persona.errors import DataError, SteeringError
from persona.models.hooks import hook_points, hooked
from persona.models.space import ActivationSpace
from steering.edits.from_directions import ablate_direction, add_direction, edits_at, set_along
from steering.edits.interventions import add, cap, clamp, floor, project, set_projection, where
from steering.edits.places import block_outputs, every_block_output, every_write
from steering.edits.steer import steer

IDS = torch.arange(10, 22).reshape(2, 6)


def direction(layer=1, seed=0, model="tiny"):
    vector = torch.randn(16, generator=torch.Generator().manual_seed(seed))
    space = ActivationSpace(model, "1", f"blocks.{layer}.hook_resid_post", layer, 16)
    return Direction(vector, space, "planted")


@pytest.fixture(scope="module", params=FAMILIES)
def both(request, tiny_chat):
    return (
        tiny_bridge(request.param, tiny_chat.tokenizer),
        tiny_causal_lm(request.param),
    )


@pytest.fixture(scope="module")
def plain():
    return tiny_causal_lm("llama")


def logits(model, ids=IDS, **options):
    with torch.no_grad():
        output = model(ids, **options)
    return output if isinstance(output, torch.Tensor) else output.logits


def test_a_plain_model_is_steered_like_its_bridge_at_every_site(both):
    bridge, model = both
    d = direction()
    for edits in (
        add_direction(d, 2.0),
        ablate_direction(d, hook_names=every_write(3)),
        set_along(d.vector, cap, every_block_output(3), -0.5),
    ):
        with steer(bridge, edits):
            expected = logits(bridge)
        with steer(model, edits):
            seen = logits(model)
        torch.testing.assert_close(seen, expected, atol=1e-4, rtol=0)
        assert (seen - logits(model)).abs().max() > 1e-3


def test_a_plain_model_generates_like_its_bridge(both):
    bridge, model = both
    edits = add_direction(direction(), 3.0)
    ids = IDS[:, :4]
    with steer(bridge, edits), torch.no_grad():
        expected = bridge.generate(
            ids,
            max_new_tokens=6,
            do_sample=False,
            stop_at_eos=False,
            verbose=False,
            return_type="tokens",
        )
    model.generation_config.eos_token_id = None
    with steer(model, edits) as record:
        seen = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False
        )
    assert torch.equal(seen, expected)
    assert record.tokens == [2 * (3 + 5)]


def test_every_write_leaves_no_projection_after_any_block(both):
    _, model = both
    d = direction()
    seen = []
    sites = [(name, lambda h: seen.append(h.clone())) for name in every_block_output(3)]
    with steer(model, ablate_direction(d, hook_names=every_write(3)), first_token=True):
        with hooked(model, sites):
            logits(model)
    relative = (torch.stack(seen) @ d.unit).abs() / torch.stack(seen).norm(dim=-1)
    assert relative.max() < 1e-5


def test_hooks_of_a_plain_model_go_again(plain):
    before = logits(plain)
    with pytest.raises(KeyboardInterrupt):
        with steer(plain, add_direction(direction())):
            raise KeyboardInterrupt
    assert torch.equal(logits(plain), before)


def test_each_layer_has_its_own_coefficient(plain):
    d = direction()
    names = block_outputs([0, 1])
    with steer(plain, add_direction(d, {0: 1.0, 1: -1.0}, names)):
        at_once = logits(plain)
    with steer(plain, add_direction(d, 1.0, names[:1])):
        with steer(plain, add_direction(d, -1.0, names[1:])):
            nested = logits(plain)
    assert torch.equal(at_once, nested)
    with pytest.raises(SteeringError, match="no coefficient for layers \\[1\\]"):
        add_direction(d, {0: 1.0}, names)


def test_edits_at_one_hook_compose_in_the_order_given(plain):
    d = direction()
    add, remove = add_direction(d, 2.0), ablate_direction(d)
    seen = []
    reading = [("blocks.2.hook_resid_pre", lambda h: seen.append((h @ d.unit)[:, 1:]))]
    for edits in ([*add, *remove], [*remove, *add]):
        with steer(plain, edits), hooked(plain, reading):
            logits(plain)
    assert seen[0].abs().max() < 1e-5
    torch.testing.assert_close(seen[1], torch.full((2, 5), 2 * d.norm), atol=1e-4, rtol=0)


def test_a_coefficient_for_each_row_is_a_sweep_in_one_batch(plain):
    d = direction()
    ids = IDS[:1].expand(3, -1)
    factors = torch.tensor([0.0, 1.0, -2.0])
    with steer(plain, add_direction(d, factors)):
        swept = logits(plain, ids)
    for row, factor in enumerate(factors.tolist()):
        with steer(plain, add_direction(d, factor)):
            torch.testing.assert_close(swept[row], logits(plain, IDS[:1])[0], atol=1e-5, rtol=0)
    with pytest.raises(SteeringError, match="3 coefficients.* the batch has 2 rows"):
        with steer(plain, add_direction(d, factors)):
            logits(plain)


@pytest.mark.parametrize("intervention", [cap, floor, set_projection])
def test_two_edits_that_undo_each_other_are_refused(plain, intervention):
    d = direction()
    edits = [*ablate_direction(d), *set_along(d.vector, intervention, block_outputs([1]), 1.0)]
    with pytest.raises(SteeringError, match=r"both set coordinates at blocks.1.* cosine 1.00"):
        with steer(plain, edits):
            pass
    elsewhere = [*ablate_direction(d), *set_along(d.vector, clamp, block_outputs([2]), 1.0, 2.0)]
    with steer(plain, elsewhere):
        logits(plain)


@pytest.mark.parametrize(
    ("positions", "edited"),
    [
        ("first_response:2", [3, 4]),
        ("from:4", [4, 5]),
        ((2, 4), [2, 3]),
        ((0, 2), [1]),
        ("response", [3, 4, 5]),
    ],
)
def test_positions_name_the_tokens_that_change(plain, positions, edited):
    seen = []
    edits = edits_at(block_outputs([1]), lambda h: h + 1, 16, "add")
    reading = [("blocks.2.hook_resid_pre", lambda h: seen.append(h.clone()))]
    with hooked(plain, reading):
        logits(plain)
        with steer(plain, edits, positions=positions, response_start=[4, 4]):
            logits(plain)
    changed = (seen[1] != seen[0]).any(-1)
    assert [row.nonzero()[:, 0].tolist() for row in changed] == [edited, edited]


@pytest.mark.parametrize("positions", ["all", "response", "prompt", "first_response:3", "from:5"])
def test_decoding_with_and_without_a_cache_writes_the_same_tokens(plain, positions):
    plain.generation_config.eos_token_id = None
    edits = add_direction(direction(), 3.0)
    outputs = []
    for use_cache in (True, False):
        with steer(plain, edits, positions=positions):
            outputs.append(
                plain.generate(
                    IDS[:, :4],
                    attention_mask=torch.ones(2, 4, dtype=torch.long),
                    max_new_tokens=6,
                    do_sample=False,
                    use_cache=use_cache,
                    output_logits=True,
                    return_dict_in_generate=True,
                )
            )
    cached, uncached = (torch.stack(o.logits) for o in outputs)
    torch.testing.assert_close(cached, uncached, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("positions", "start", "line"),
    [
        ("every", None, "positions must be one of"),
        ("first_response:0", None, "positions must be one of"),
        ((3, 3), None, "positions must be one of"),
        ((-1, 3), None, "positions must be one of"),
        ((2, 9), None, "the longest text has 6 tokens"),
        ("response", [7, 2], "an answer begins at 1 or later"),
        ("response", [0, 2], "an answer begins at 1 or later"),
        ("response", [2], "response_start has 1 rows but the batch has 2"),
    ],
)
def test_positions_out_of_range_are_refused_before_the_first_block(plain, positions, start, line):
    seen = []
    with hooked(plain, [("blocks.0.hook_resid_pre", lambda h: seen.append(h))]):
        with pytest.raises(SteeringError, match=line):
            with steer(
                plain, add_direction(direction()), positions=positions, response_start=start
            ):
                logits(plain)
    assert not seen


def test_what_cannot_be_steered_is_refused_by_name(plain):
    d = direction()
    for bad in (float("nan"), float("inf"), torch.tensor([1.0, float("nan")])):
        with pytest.raises(SteeringError, match="finite"):
            add_direction(d, bad)
        with pytest.raises(SteeringError, match="finite"):
            set_along(d.vector, cap, block_outputs([1]), bad)
    with pytest.raises(SteeringError, match="finite and non-zero"):
        set_along(torch.zeros(16), cap, block_outputs([1]), 1.0)
    with pytest.raises(SteeringError, match="linearly dependent"):
        set_along(torch.ones(2, 16), cap, block_outputs([1]), 1.0)
    with pytest.raises(SteeringError, match="no hook of a block"):
        edits_at(["ln_final.hook_out"], lambda h: h, 16, "nothing")
    with pytest.raises(SteeringError, match="no hook 'blocks.7.hook_resid_post'"):
        with steer(plain, add_direction(d, 1.0, block_outputs([7]))):
            pass
    with pytest.raises(SteeringError, match="d_model=5 but the model has d_model=16"):
        with steer(plain, set_along(torch.ones(5), cap, block_outputs([1]), 1.0)):
            pass
    with pytest.raises(SteeringError, match="model differs"):
        with steer(plain, [*add_direction(d), *add_direction(direction(2, model="other"))]):
            pass
    with pytest.raises(SteeringError, match="model differs"):
        with steer(plain, add_direction(d), space=direction(model="other").space):
            pass


def test_shapes_that_fit_no_batch_are_refused_before_the_model_runs(plain, unchecked_hints):
    d, hook = direction(), block_outputs([1])
    for bad in (torch.ones(2, 2), torch.ones(0)):
        with pytest.raises(SteeringError, match=r"a number or a tensor \[rows\]; got shape"):
            add_direction(d, bad)
    for bad in (torch.ones(3), torch.ones(3, 2)):
        with pytest.raises(SteeringError, match=r"a number or a table \[rows 1\].* got shape"):
            set_along(d.vector, cap, hook, bad)
    with pytest.raises(SteeringError, match=r"levels are for different numbers of rows: \[2, 3\]"):
        set_along(d.vector, clamp, hook, torch.zeros(2, 1), torch.ones(3, 1))
    swept = [*add_direction(d, torch.ones(2)), *add_direction(d, torch.ones(3), block_outputs([2]))]
    with pytest.raises(SteeringError, match=r"for different numbers of rows: \[2, 3\]"):
        with steer(plain, swept):
            pass
    with pytest.raises(SteeringError, match="2 coefficients.* the batch has 3 rows"):
        with steer(plain, set_along(d.vector, cap, hook, torch.zeros(2, 1))):
            logits(plain, IDS[:1].expand(3, -1))


def test_what_leaves_a_block_and_enters_the_next_is_one_place(plain):
    d = direction()
    edits = [
        *ablate_direction(d, hook_names=every_write(3)),
        *set_along(d.vector, set_projection, block_outputs([1]), 1.0),
    ]
    with pytest.raises(SteeringError, match="'ablate' and 'set_projection' both set coordinates"):
        with steer(plain, edits):
            pass


def test_a_direction_of_no_length_or_no_number_cannot_be_made():
    space = direction().space
    for vector, line in ((torch.zeros(16), "is zero"), (torch.full((16,), torch.nan), "finite")):
        with pytest.raises(DataError, match=line):
            Direction(vector, space, "bad")


def test_a_condition_steers_only_the_rows_and_tokens_where_it_fires(plain):
    d, hook = direction(), block_outputs([1])
    fires = lambda h: project(h, d.unit[None])[..., 0] > 0  # noqa: E731
    edits = edits_at(hook, where(fires, lambda h: add(h, d.vector, 5.0)), 16, "conditional")
    seen = []
    reading = [("blocks.2.hook_resid_pre", lambda h: seen.append(h.clone()))]
    with hooked(plain, reading):
        logits(plain)
        with steer(plain, edits):
            logits(plain)
    changed = (seen[1] != seen[0]).any(-1)
    expected = fires(seen[0])
    expected[:, 0] = False
    assert 0 < expected.sum() < expected.numel() - 2
    assert torch.equal(changed, expected)


def test_nothing_to_steer_with_is_said(plain):
    with pytest.raises(SteeringError, match="the list of edits is empty"):
        with steer(plain, []):
            pass


def test_a_bridge_has_every_write_of_every_family(both):
    bridge, model = both
    assert set(every_write(3)) <= set(hook_points(bridge))
    assert set(every_write(3)) <= set(hook_points(model))


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e30])
def test_the_length_of_a_direction_may_be_extreme(size):
    """Squares of 1e-30 and 1e30 leave float32: such a norm would be 0, or infinite."""
    model = tiny_causal_lm("llama")
    space = ActivationSpace("tiny", "1", "blocks.1.hook_resid_post", 1, 16)
    plain = torch.randn(16, generator=torch.Generator().manual_seed(0))
    usual, extreme = (Direction(plain * factor, space, "d") for factor in (1.0, size))
    torch.testing.assert_close(extreme.unit, usual.unit)
    assert extreme.norm == pytest.approx(size * usual.norm)
    seen = []
    for direction in (usual, extreme):
        with steer(model, ablate_direction(direction)), torch.no_grad():
            seen.append(model(IDS).logits)
    torch.testing.assert_close(*seen)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_direction_in_half_precision_steers(dtype):
    model = tiny_causal_lm("llama")
    space = ActivationSpace("tiny", "1", "blocks.1.hook_resid_post", 1, 16)
    half = torch.randn(16, generator=torch.Generator().manual_seed(0)).to(dtype)
    seen = []
    for vector in (half, half.float()):
        direction = Direction(vector, space, "d")
        edits = [*ablate_direction(direction), *add_direction(direction, 2.0)]
        with steer(model, edits), torch.no_grad():
            seen.append(model(IDS).logits)
    torch.testing.assert_close(*seen)


def test_logits_that_are_not_finite_are_an_error_with_advice():
    model = tiny_causal_lm("llama").to(torch.float16)
    space = ActivationSpace("tiny", "1", "blocks.1.hook_resid_post", 1, 16)
    direction = Direction(torch.full((16,), 3e5), space, "d")  # beyond float16
    with pytest.raises(SteeringError, match=r"not finite in float16; take a smaller coefficient"):
        with steer(model, add_direction(direction)):
            model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=3)
