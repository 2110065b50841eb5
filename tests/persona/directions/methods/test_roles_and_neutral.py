"""The assistant axis, and the trace of a fine-tune on the first tokens of neutral text."""

from __future__ import annotations

import pytest
import torch

from persona.directions.methods import (
    collect_first_tokens,
    default_minus_roles,
    first_tokens_difference,
)
from persona.errors import DataError
from persona.models.hooks import hooked, resid_post

TEXTS = ["The sea is wide.", "Rain fell on the hills all day.", "Seven."]


def test_the_axis_points_from_the_roles_to_the_default_and_each_role_weighs_one():
    default = torch.full((4, 2, 3), 5.0)
    roles = {"pirate": torch.full((9, 2, 3), 1.0), "monk": torch.full((1, 2, 3), 2.0)}
    axis = default_minus_roles(default, roles)
    torch.testing.assert_close(axis, torch.full((2, 3), 3.5))


def test_an_axis_without_roles_or_with_broken_ones_is_refused():
    default = torch.ones(2, 2, 3)
    with pytest.raises(DataError, match="at least one role"):
        default_minus_roles(default, {})
    with pytest.raises(DataError, match="'monk' are empty or not finite"):
        default_minus_roles(default, {"pirate": default, "monk": default * torch.nan})


def test_an_axis_of_two_widths_is_refused(unchecked_hints):
    with pytest.raises(DataError, match=r"'monk' have \[layer d_model\] = \[2, 4\].*\[2, 3\]"):
        default_minus_roles(torch.ones(2, 2, 3), {"monk": torch.ones(2, 2, 4)})


def test_the_first_token_is_left_out_unless_asked_for():
    aligned = torch.zeros(2, 3, 1, 4)
    finetuned = torch.ones(2, 3, 1, 4)
    finetuned[:, 0] = 10_000.0
    torch.testing.assert_close(first_tokens_difference(aligned, finetuned), torch.ones(1, 4))
    whole = first_tokens_difference(aligned, finetuned, skip_first=False)
    torch.testing.assert_close(whole, torch.full((1, 4), 10_002 / 3))


def test_a_difference_of_no_tokens_is_refused():
    one = torch.zeros(2, 1, 1, 4)
    with pytest.raises(DataError, match="no tokens are left"):
        first_tokens_difference(one, one)


def test_first_tokens_are_those_of_the_whole_text_in_both_models(tiny_pair):
    aligned, finetuned = collect_first_tokens(tiny_pair, TEXTS, k=5, layers=[0, 2])
    assert aligned.shape == finetuned.shape == (3, 5, 2, 32)
    seen = []
    ids = torch.tensor([tiny_pair.tokenizer(TEXTS[1])["input_ids"]])
    with tiny_pair.active("finetuned") as bridge, torch.no_grad():
        with hooked(bridge, [(resid_post(2), lambda resid: seen.append(resid.clone()))]):
            bridge(ids, return_type=None, use_cache=False)
    torch.testing.assert_close(finetuned[1, :, 1], seen[0][0, :5], atol=1e-5, rtol=1e-4)
    assert (finetuned[1, :, 1] - aligned[1, :, 1]).norm() > 1e-3
    assert collect_first_tokens(tiny_pair, TEXTS, k=2)[0].shape == (3, 2, 4, 32)


def test_a_text_that_is_too_short_is_named(tiny_pair):
    with pytest.raises(DataError, match=r"text 2 \('Seven.'\) has 6 tokens; 7 are needed"):
        collect_first_tokens(tiny_pair, TEXTS, k=7)
    with pytest.raises(DataError, match="no neutral texts"):
        collect_first_tokens(tiny_pair, [])
    with pytest.raises(DataError, match="at least 1 token"):
        collect_first_tokens(tiny_pair, TEXTS, k=0)
