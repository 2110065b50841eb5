"""What is read is what a plain forward pass holds, however it is batched."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from persona.activations import (
    Moments,
    collect_at,
    collect_covariance,
    collect_moments,
    collect_rows,
    collect_sets,
    collect_tokens,
    merge_in_tree,
    token_span,
)
from persona.activations.batches import token_batches
from persona.data.types import Dialogue, Turn
from persona.errors import DataError, ModelError
from persona.models import load_pair
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import hooked, resid_post
from persona.models.precision import Placement


@pytest.fixture(scope="module")
def dialogues(tiny_pair):
    texts = ["short", "a longer answer than the first", "middle one", "x"]
    return tiny_pair.chat.encode_all(
        [
            Dialogue((Turn("user", f"q{i}"), Turn("assistant", t)), f"d{i}")
            for i, t in enumerate(texts)
        ]
    )


@pytest.mark.parametrize("token_set", ["response", "last_prompt", "prompt", "first_response:2"])
def test_rows_equal_the_means_of_hidden_states(tiny_pair, tiny_llama, dialogues, token_set):
    layers = [0, 2]
    with tiny_pair.active("aligned") as bridge:
        rows = collect_rows(bridge, dialogues, layers, token_set=token_set, token_budget=64)
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama)
    for row, d in zip(rows, dialogues, strict=True):
        with torch.no_grad():
            states = plain(torch.tensor([d.ids]), output_hidden_states=True).hidden_states
        start, end = token_span(d, token_set)
        for place, layer in enumerate(layers):
            expected = states[layer + 1][0, start:end].mean(0)
            torch.testing.assert_close(row[place], expected, atol=2e-5, rtol=1e-4)


def test_the_last_block_is_read_before_the_final_norm(tiny_pair, tiny_llama, dialogues):
    with tiny_pair.active("aligned") as bridge:
        rows = collect_rows(bridge, dialogues[:1], [3], token_set="last_prompt")
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with torch.no_grad():
        states = plain(torch.tensor([dialogues[0].ids]), output_hidden_states=True).hidden_states
    position = dialogues[0].response[0] - 1
    normed = plain.model.norm(rows[0, 0])
    torch.testing.assert_close(normed, states[-1][0, position], atol=1e-4, rtol=1e-4)


def test_the_sides_of_a_pair_differ_and_switching_back_restores(tiny_pair, dialogues):
    read = {}
    for turn, side in enumerate(["aligned", "finetuned", "aligned"]):
        with tiny_pair.active(side) as bridge:
            read[turn] = collect_rows(bridge, dialogues, [3])
    assert torch.equal(read[0], read[2])
    assert (read[0] - read[1]).abs().max() > 1e-3


def test_batching_never_changes_the_moments(tiny_pair, dialogues):
    with tiny_pair.active("finetuned") as bridge:
        one_by_one = collect_moments(bridge, dialogues, [1, 3], token_budget=1)
        together = collect_moments(bridge, dialogues, [1, 3], token_budget=4096)
        halves = sum(
            (collect_moments(bridge, part, [1, 3]) for part in (dialogues[2:], dialogues[:2])),
            start=Moments(0, torch.zeros(2, 32).double(), torch.zeros(2, 32).double()),
        )
    for other in (together, halves):
        torch.testing.assert_close(one_by_one.mean_LD, other.mean_LD, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(one_by_one.variance_LD, other.variance_LD, atol=1e-5, rtol=1e-4)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_moments_merge_to_the_same_in_any_order(sizes, random):
    generator = torch.Generator().manual_seed(sum(sizes))
    parts = [torch.randn(n, 2, 3, generator=generator) * 1e3 for n in sizes]
    direct = Moments.of(torch.cat(parts))
    shuffled = [Moments.of(part) for part in parts]
    random.shuffle(shuffled)
    merged = sum(shuffled[1:], start=shuffled[0])
    assert merged.count == direct.count
    torch.testing.assert_close(merged.mean_LD, direct.mean_LD, atol=1e-10, rtol=1e-10)
    expected = torch.cat(parts).double().var(0)
    torch.testing.assert_close(merged.variance_LD, expected, atol=1e-6, rtol=1e-9)


def test_a_variance_beside_a_mean_a_million_times_as_large_keeps_its_digits():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1000, 1, 4, generator=generator, dtype=torch.float64)
    large = rows + 1e6  # as where a massive activation stands
    merged = sum((Moments.of(part) for part in large.split(7)), start=Moments.none(1, 4))
    # float64 itself rounds the rows by 1e-10; sums of squares would lose four digits more.
    torch.testing.assert_close(merged.variance_LD, rows.var(0), atol=0, rtol=1e-9)


@given(st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_a_tree_of_moments_is_the_sum_and_the_same_bits_every_time(n_parts, seed):
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(3, 2, 3, generator=generator) * 1e3 for _ in range(n_parts)]
    merged = merge_in_tree(Moments.of(part) for part in parts)
    direct = Moments.of(torch.cat(parts))
    assert merged.count == direct.count == 3 * n_parts
    torch.testing.assert_close(merged.mean_LD, direct.mean_LD, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(merged.variance_LD, direct.variance_LD, atol=1e-6, rtol=1e-10)
    again = merge_in_tree([Moments.of(part) for part in parts])
    assert torch.equal(again.squares_LD, merged.squares_LD)


def test_no_moments_are_refused_and_empty_ones_change_nothing():
    with pytest.raises(DataError, match="no moments to merge"):
        merge_in_tree([])
    some = Moments.of(torch.ones(2, 1, 3))
    for total in (some + Moments.none(1, 3), Moments.none(1, 3) + some):
        assert total.count == 2 and torch.equal(total.mean_LD, some.mean_LD)
    with pytest.raises(DataError, match="mean of no texts"):
        _ = (Moments.none(1, 3) + Moments.none(1, 3)).mean_LD


@given(st.lists(st.integers(2, 60), min_size=1, max_size=30), st.integers(8, 200))
@settings(max_examples=50, deadline=None)
def test_batches_hold_every_dialogue_once_within_the_budget(lengths, budget):
    dialogues = [TokenizedDialogue(tuple(range(n)), (1, n)) for n in lengths]
    batches = token_batches(dialogues, 0, budget)
    assert sorted(i for batch in batches for i in batch.indices) == list(range(len(lengths)))
    for batch in batches:
        assert batch.ids.numel() <= budget or len(batch.indices) == 1
        assert batch.attention_mask.sum(1).tolist() == [lengths[i] for i in batch.indices]


def test_no_token_set_holds_the_first_token():
    d = TokenizedDialogue((5, 6, 7, 8), (2, 4))
    for token_set in ("response", "prompt", "last_prompt", "all", "first_response:9"):
        assert token_span(d, token_set)[0] >= 1


def test_bad_requests_are_named(tiny_pair, dialogues):
    with tiny_pair.active("aligned") as bridge:
        with pytest.raises(
            ModelError, match="layer 4 is out of range: the model has blocks 0 to 3"
        ):
            collect_rows(bridge, dialogues, [4])
        with pytest.raises(DataError, match="unknown token set 'answer'"):
            collect_rows(bridge, dialogues, [1], token_set="answer")
        with pytest.raises(DataError, match="no dialogues"):
            collect_rows(bridge, [], [1])


def test_activations_that_are_not_finite_name_dialogue_and_hook(tiny_pair, dialogues):
    from persona.models.hooks import hooked

    poison = lambda h: h * float("nan")  # noqa: E731
    with tiny_pair.active("aligned") as bridge:
        with hooked(bridge, [("blocks.1.hook_resid_post", poison)]):
            with pytest.raises(DataError, match=r"blocks\.1\.hook_resid_post are not finite"):
                collect_rows(bridge, dialogues, [0, 1])


def test_covariance_of_coordinates_far_from_zero_keeps_its_digits(tiny_pair, dialogues):
    far = 3_000 * torch.arange(32.0)

    def move(resid):
        return resid + far

    with tiny_pair.active("aligned") as bridge:
        near = collect_covariance(bridge, dialogues, [1], token_budget=64)[1]
        with hooked(bridge, [(resid_post(1), move)]):
            moved = collect_covariance(bridge, dialogues, [1], token_budget=64)[1]
    # What float32 keeps of a value near 90,000 is 0.004.
    scale = near.diagonal().sqrt()
    assert ((moved - near).abs() <= 0.02 * torch.outer(scale, scale) + 1e-3).all()


@pytest.mark.parametrize(("dtype", "advice"), [("float32", "hold NaN"), ("bfloat16", "float32")])
def test_numbers_that_are_none_are_named_and_another_format_advised_only_where_it_helps(
    tiny_llama, dialogues, dtype, advice
):
    pair = load_pair(tiny_llama, tiny_llama, placement=Placement.of(dtype, "cpu"), in_turn=True)

    def spoil(resid):
        return resid * torch.nan

    with pair.active("aligned") as bridge, hooked(bridge, [(resid_post(2), spoil)]):
        for collect in (collect_rows, collect_covariance):
            with pytest.raises(
                DataError, match=f"blocks.2.hook_resid_post are not finite.*{advice}"
            ):
                collect(bridge, dialogues, [1, 2, 3])


@pytest.mark.parametrize("token_budget", [1, 40, 4096])
def test_single_tokens_are_read_where_they_were_asked_for(tiny_pair, dialogues, token_budget):
    positions = [[len(d) - 1, 2] for d in dialogues]
    with tiny_pair.active("aligned") as bridge, torch.no_grad():
        rows = collect_at(bridge, dialogues, positions, [3, 0], token_budget=token_budget)
        assert rows.shape == (4, 2, 2, 32)
        for place, dialogue in enumerate(dialogues):
            for column, layer in enumerate((3, 0)):
                seen = []
                hook = (resid_post(layer), lambda resid, s=seen: s.append(resid.clone()))
                with hooked(bridge, [hook]):
                    bridge(torch.tensor([dialogue.ids]), return_type=None, use_cache=False)
                torch.testing.assert_close(
                    rows[place, :, column], seen[0][0, positions[place]], atol=1e-5, rtol=1e-4
                )


def test_places_outside_a_text_and_uneven_lists_are_refused(tiny_pair, dialogues):
    n = len(dialogues[3])
    with tiny_pair.active("aligned") as bridge:
        with pytest.raises(DataError, match=rf"'d3' has {n} tokens; positions \[{n}\]"):
            collect_at(bridge, dialogues, [[1], [1], [1], [n]])
        with pytest.raises(DataError, match="same number of positions"):
            collect_at(bridge, dialogues, [[1], [1, 2], [1], [1]])
        with pytest.raises(DataError, match="no texts"):
            collect_at(bridge, [], [])
        with pytest.raises(ModelError, match="out of range"):
            collect_at(bridge, dialogues, [[1]] * 4, [9])
        with pytest.raises(ModelError, match="no layer was asked for"):
            collect_at(bridge, dialogues, [[1]] * 4, [])


def test_each_of_several_sets_is_what_a_pass_of_its_own_gives(tiny_pair, dialogues):
    sets, layers = ["response", "last_prompt", "all"], [2, 0]
    with tiny_pair.active("aligned") as bridge:
        together = collect_sets(bridge, dialogues, sets, layers, token_budget=64)
        for place, one in enumerate(sets):
            alone = collect_rows(bridge, dialogues, layers, token_set=one, token_budget=64)
            torch.testing.assert_close(together[:, place], alone, rtol=1e-5, atol=1e-6)


def test_a_text_without_such_tokens_is_named(tiny_pair):
    waiting = tiny_pair.chat.encode(Dialogue((Turn("user", "why?"),), "the waiting one"))
    with (
        tiny_pair.active("aligned") as bridge,
        pytest.raises(DataError, match="'the waiting one' has no tokens in the set 'response'"),
    ):
        collect_sets(bridge, [waiting], ["response"], [0])


@pytest.mark.parametrize("token_set", ["response", "prompt", "all"])
def test_the_mean_of_the_tokens_is_the_pooled_row(tiny_pair, dialogues, token_set):
    with tiny_pair.active("finetuned") as bridge:
        tokens = collect_tokens(bridge, dialogues, [0, 2], token_set=token_set, token_budget=40)
        rows = collect_rows(bridge, dialogues, [0, 2], token_set=token_set)
        with pytest.raises(DataError, match="no dialogues"):
            collect_tokens(bridge, [], [0])
    torch.testing.assert_close(torch.stack([t.mean(0) for t in tokens]), rows)
    spans = [token_span(d, token_set) for d in dialogues]
    assert [len(t) for t in tokens] == [end - start for start, end in spans]
