"""Edits at every site, on a bridge and on the plain model under it: the same meaning."""

from __future__ import annotations

import pickle

import pytest
import torch
from tiny_models import FAMILIES, tiny_bridge, tiny_causal_lm

from persona.directions.direction import Direction, PersonaVector, Subspace
from persona.errors import DataError, SteeringError
from persona.models.hooks import hook_points, hooked
from persona.models.space import ActivationSpace
from steering.edits.edit import Placed
from steering.edits.from_directions import (
    ablate,
    add,
    edits_at,
    induce,
    restore,
    set_coordinates,
)
from steering.edits.interventions import cap, clamp, floor, project, set_projection, where
from steering.edits.places import ALL_BLOCKS, EVERY_WRITE, hook_names
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
        add(d, 2.0),
        ablate(d, at=EVERY_WRITE),
        set_coordinates(d, cap, -0.5, at=ALL_BLOCKS),
    ):
        with steer(bridge, edits):
            expected = logits(bridge)
        with steer(model, edits):
            seen = logits(model)
        torch.testing.assert_close(seen, expected, atol=1e-4, rtol=0)
        assert (seen - logits(model)).abs().max() > 1e-3


def test_a_plain_model_generates_like_its_bridge(both):
    bridge, model = both
    edits = add(direction(), 3.0)
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
    assert record.n_tokens == [2 * (3 + 5)]


def test_every_write_leaves_no_projection_after_any_block(both):
    _, model = both
    d = direction()
    seen = []
    sites = [(name, lambda h: seen.append(h.clone())) for name in hook_names(ALL_BLOCKS, range(3))]
    with steer(model, ablate(d, at=EVERY_WRITE), first_token=True):
        with hooked(model, sites):
            logits(model)
    relative = (torch.stack(seen) @ d.unit).abs() / torch.stack(seen).norm(dim=-1)
    assert relative.max() < 1e-5


def test_hooks_of_a_plain_model_go_again(plain):
    before = logits(plain)
    with pytest.raises(KeyboardInterrupt):
        with steer(plain, add(direction())):
            raise KeyboardInterrupt
    assert torch.equal(logits(plain), before)


def test_each_layer_has_its_own_coefficient(plain):
    d = direction()
    names = hook_names([0, 1])
    with steer(plain, add(d, {0: 1.0, 1: -1.0}, names)):
        at_once = logits(plain)
    with steer(plain, add(d, 1.0, names[:1])):
        with steer(plain, add(d, -1.0, names[1:])):
            nested = logits(plain)
    assert torch.equal(at_once, nested)
    with pytest.raises(SteeringError, match="no coefficient for layers \\[1\\]"):
        add(d, {0: 1.0}, names)


def test_edits_at_one_hook_compose_in_the_order_given(plain):
    d = direction()
    put, remove = add(d, 2.0), ablate(d)
    seen = []
    reading = [("blocks.2.hook_resid_pre", lambda h: seen.append((h @ d.unit)[:, 1:]))]
    for edits in ([*put, *remove], [*remove, *put]):
        with steer(plain, edits), hooked(plain, reading):
            logits(plain)
    assert seen[0].abs().max() < 1e-5
    torch.testing.assert_close(seen[1], torch.full((2, 5), 2 * d.norm), atol=1e-4, rtol=0)


def test_a_coefficient_for_each_row_is_a_sweep_in_one_batch(plain):
    d = direction()
    ids = IDS[:1].expand(3, -1)
    factors = torch.tensor([0.0, 1.0, -2.0])
    with steer(plain, add(d, factors)):
        swept = logits(plain, ids)
    for row, factor in enumerate(factors.tolist()):
        with steer(plain, add(d, factor)):
            torch.testing.assert_close(swept[row], logits(plain, IDS[:1])[0], atol=1e-5, rtol=0)
    with pytest.raises(SteeringError, match="3 coefficients.* the batch has 2 rows"):
        with steer(plain, add(d, factors)):
            logits(plain)


@pytest.mark.parametrize("intervention", [cap, floor, set_projection])
def test_two_edits_that_undo_each_other_are_refused(plain, intervention):
    d = direction()
    edits = [*ablate(d), *set_coordinates(d.vector, intervention, 1.0, at=1)]
    with pytest.raises(SteeringError, match=r"both set coordinates at blocks.1.* cosine 1.00"):
        with steer(plain, edits):
            pass
    elsewhere = [*ablate(d), *set_coordinates(d.vector, clamp, 1.0, 2.0, at=2)]
    with steer(plain, elsewhere):
        logits(plain)


@pytest.mark.parametrize(
    ("positions", "edited"),
    [
        ("answering:2", [3, 4]),
        ("from:4", [4, 5]),
        ((2, 4), [2, 3]),
        ((0, 2), [1]),
        ("answering", [3, 4, 5]),
    ],
)
def test_positions_name_the_tokens_that_change(plain, positions, edited):
    seen = []
    edits = edits_at(1, lambda h: h + 1, 16, "add")
    reading = [("blocks.2.hook_resid_pre", lambda h: seen.append(h.clone()))]
    with hooked(plain, reading):
        logits(plain)
        with steer(plain, edits, positions=positions, response_start=[4, 4]):
            logits(plain)
    changed = (seen[1] != seen[0]).any(-1)
    assert [row.nonzero()[:, 0].tolist() for row in changed] == [edited, edited]


@pytest.mark.parametrize("positions", ["all", "answering", "asking", "answering:3", "from:5"])
def test_decoding_with_and_without_a_cache_writes_the_same_tokens(plain, positions):
    plain.generation_config.eos_token_id = None
    edits = add(direction(), 3.0)
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
        ("answering:0", None, "positions must be one of"),
        ("response", None, "'response' names tokens that are read.*take 'answering'"),
        ("first_response:2", None, "names tokens that are read.*'answering:K'"),
        ("prompt", None, "names tokens that are read.*'asking'"),
        ((3, 3), None, "positions must be one of"),
        ((-1, 3), None, "positions must be one of"),
        ((2, 9), None, "the longest text has 6 tokens"),
        ("answering", [7, 2], "an answer begins at 1 or later"),
        ("answering", [0, 2], "an answer begins at 1 or later"),
        ("answering", [2], "response_start has 1 rows but the batch has 2"),
    ],
)
def test_positions_out_of_range_are_refused_before_the_first_block(plain, positions, start, line):
    seen = []
    with hooked(plain, [("blocks.0.hook_resid_pre", lambda h: seen.append(h))]):
        with pytest.raises(SteeringError, match=line):
            with steer(plain, add(direction()), positions=positions, response_start=start):
                logits(plain)
    assert not seen


def test_what_cannot_be_steered_is_refused_by_name(plain):
    d = direction()
    for bad in (float("nan"), float("inf"), torch.tensor([1.0, float("nan")])):
        with pytest.raises(SteeringError, match="finite"):
            add(d, bad)
        with pytest.raises(SteeringError, match="finite"):
            set_coordinates(d.vector, cap, bad, at=1)
    with pytest.raises(SteeringError, match="finite and non-zero"):
        set_coordinates(torch.zeros(16), cap, 1.0, at=1)
    with pytest.raises(SteeringError, match="linearly dependent"):
        set_coordinates(torch.ones(2, 16), cap, 1.0, at=1)
    with pytest.raises(SteeringError, match="no hook of a block"):
        edits_at(["ln_final.hook_out"], lambda h: h, 16, "nothing")
    with pytest.raises(SteeringError, match="no hook 'blocks.7.hook_resid_post'"):
        with steer(plain, add(d, 1.0, 7)):
            pass
    with pytest.raises(SteeringError, match="d_model=5 but the model has d_model=16"):
        with steer(plain, set_coordinates(torch.ones(5), cap, 1.0, at=1)):
            pass
    with pytest.raises(SteeringError, match="model differs"):
        with steer(plain, [*add(d), *add(direction(2, model="other"))]):
            pass
    with pytest.raises(SteeringError, match="model differs"):
        with steer(plain, add(d), space=direction(model="other").space):
            pass


def test_shapes_that_fit_no_batch_are_refused_before_the_model_runs(plain, unchecked_hints):
    d = direction()
    for bad in (torch.ones(2, 2), torch.ones(0)):
        with pytest.raises(SteeringError, match=r"a number or a tensor \[rows\]; got shape"):
            add(d, bad)
    for bad in (torch.ones(3), torch.ones(3, 2)):
        with pytest.raises(SteeringError, match=r"a number or a table \[rows 1\].* got shape"):
            set_coordinates(d.vector, cap, bad, at=1)
    with pytest.raises(SteeringError, match=r"levels are for different numbers of rows: \[2, 3\]"):
        set_coordinates(d.vector, clamp, torch.zeros(2, 1), torch.ones(3, 1), at=1)
    swept = [*add(d, torch.ones(2)), *add(d, torch.ones(3), 2)]
    with pytest.raises(SteeringError, match=r"for different numbers of rows: \[2, 3\]"):
        with steer(plain, swept):
            pass
    with pytest.raises(SteeringError, match="2 coefficients.* the batch has 3 rows"):
        with steer(plain, set_coordinates(d.vector, cap, torch.zeros(2, 1), at=1)):
            logits(plain, IDS[:1].expand(3, -1))


def test_what_leaves_a_block_and_enters_the_next_is_one_place(plain):
    d = direction()
    edits = [
        *ablate(d, at=EVERY_WRITE),
        *set_coordinates(d.vector, set_projection, 1.0, at=1),
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
    d = direction()
    fires = lambda h: project(h, d.unit[None])[..., 0] > 0  # noqa: E731
    edits = edits_at(1, where(fires, lambda h: h + 5.0 * d.vector), 16, "conditional")
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
    assert set(hook_names(EVERY_WRITE, range(3))) <= set(hook_points(bridge))
    assert set(hook_names(EVERY_WRITE, range(3))) <= set(hook_points(model))


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
        with steer(model, ablate(direction)), torch.no_grad():
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
        edits = [*ablate(direction), *add(direction, 2.0)]
        with steer(model, edits), torch.no_grad():
            seen.append(model(IDS).logits)
    torch.testing.assert_close(*seen)


def test_logits_that_are_not_finite_are_an_error_with_advice():
    model = tiny_causal_lm("llama").to(torch.float16)
    space = ActivationSpace("tiny", "1", "blocks.1.hook_resid_post", 1, 16)
    direction = Direction(torch.full((16,), 3e5), space, "d")  # beyond float16
    with pytest.raises(SteeringError, match=r"not finite in float16; take a smaller coefficient"):
        with steer(model, add(direction)):
            model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=3)


def test_every_block_of_whatever_model_is_steered_needs_no_number_of_blocks(both):
    bridge, model = both
    d = direction()
    one_by_one = [edit for layer in range(3) for edit in ablate(d, at=layer)]
    for steered in (bridge, model):
        with steer(steered, one_by_one):
            expected = logits(steered)
        with steer(steered, ablate(d, at=ALL_BLOCKS)) as record:
            seen = logits(steered)
        assert [edit.layer for edit in record.edits] == [0, 1, 2]
        assert torch.equal(seen, expected)


def persona_vector(layers=(0, 1)):
    def line(layer):
        d = direction(layer, seed=layer)
        means = torch.tensor([-1.0]), torch.tensor([2.5])
        return Subspace(d.unit[None], *means, d.space)

    return PersonaVector({layer: line(layer) for layer in layers}, "made up", coefficient=0.5)


def test_a_direction_a_persona_vector_and_a_plain_vector_mean_the_same(plain):
    vector = persona_vector([1])
    d = vector.direction(1)
    pairs = [
        (add(vector, -2.0), add(d, -2.0), add(d.vector, -2.0, at=1)),
        (ablate(vector, 0.5), ablate(d, 0.5), ablate(d.vector, 0.5, at=1)),
        (restore(vector), restore(d, 0.5, target=-1.0), restore(d.vector, 0.5, 1, target=-1.0)),
        (induce(vector), induce(d, 0.5, target=2.5), induce(d.vector, 0.5, 1, target=2.5)),
    ]
    for of_vector, of_direction, of_tensor in pairs:
        seen = []
        for edits in (of_vector, of_direction, of_tensor):
            with steer(plain, edits):
                seen.append(logits(plain))
        torch.testing.assert_close(seen[1], seen[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(seen[2], seen[0], atol=1e-5, rtol=0)
        assert (seen[0] - logits(plain)).abs().max() > 1e-3


def test_a_plain_vector_is_ablated_at_every_write_and_added_only_where_told(plain):
    vector = torch.randn(16, generator=torch.Generator().manual_seed(3))
    assert [e.hook_name for e in ablate(vector)] == list(EVERY_WRITE)
    for make in (add, restore, induce):
        with pytest.raises(SteeringError, match="does not know where it was read"):
            make(vector)
    with pytest.raises(SteeringError, match="one vector .* at a time"):
        add(torch.eye(16)[:2], at=1)


def test_where_no_mean_is_known_a_target_is_asked_for(plain):
    for make in (restore, induce):
        with pytest.raises(SteeringError, match=f"to {make.__name__} takes the models' means"):
            make(direction())
        for bad in (float("nan"), torch.ones(2)):
            with pytest.raises(SteeringError, match="target"):
                make(direction(), target=bad)


def test_a_persona_vector_is_written_at_blocks_of_its_own_only():
    vector = persona_vector()
    assert [e.layer for e in restore(vector, at=1)] == [1]
    assert [e.layer for e in restore(vector, at=ALL_BLOCKS)] == [0, 1]
    assert [e.layer for e in add(vector, {1: 2.0})] == [1]
    with pytest.raises(SteeringError, match=r"nothing at blocks.2.*; it has blocks \[0, 1\]"):
        restore(vector, at=2)


def test_one_edit_needs_no_list(plain):
    [edit] = add(direction(), 2.0)
    with steer(plain, [edit]):
        expected = logits(plain)
    with steer(plain, edit):
        assert torch.equal(logits(plain), expected)


def test_what_is_written_moves_to_the_device_once_and_not_in_every_pass(monkeypatch):
    moved = []
    to = torch.Tensor.to

    def watched(tensor, *args, **options):
        result = to(tensor, *args, **options)
        moved.append(result.device != tensor.device)
        return result

    space = ActivationSpace("m", "r", "blocks.3.hook_resid_post", layer=3, d_model=2)
    direction = Direction(torch.tensor([3.0, 4.0]), space, "made up")
    line = Subspace(torch.eye(2)[:1], torch.tensor([-1.0]), torch.tensor([4.0]), space)
    resid = torch.zeros(1, 3, 2, device="meta")
    monkeypatch.setattr(torch.Tensor, "to", watched)
    for [edit], n_tensors in (
        (add(direction), 1),
        (ablate(direction), 2),
        (restore(PersonaVector({3: line}, "made up")), 3),
        (set_coordinates(direction, cap, 1.0), 1),
        # A coefficient or a level for each row of the batch is a tensor too.
        (add(direction, torch.tensor([2.0])), 2),
        (ablate(direction, torch.tensor([2.0])), 3),
        (restore(PersonaVector({3: line}, "made up"), torch.tensor([2.0])), 4),
        (set_coordinates(direction, cap, torch.tensor([[1.0]])), 2),
    ):
        moved.clear()
        for _ in range(3):
            edit.apply(resid)
        assert sum(moved) == n_tensors, edit.label


def test_another_process_moves_tensors_to_its_own_device():
    placed = Placed(torch.ones(2))
    placed.on(torch.device("meta"))
    again = pickle.loads(pickle.dumps(placed))
    assert (
        again.parts[0].tolist() == [1, 1] and again.on(torch.device("cpu"))[0].device.type == "cpu"
    )
