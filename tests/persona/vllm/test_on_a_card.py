"""Steering through vLLM where there is a card; without one these are skipped."""

from __future__ import annotations

import pytest
import torch

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no card"),
]


def test_the_certificate_holds_on_a_card(tmp_path):
    from vllm_on_card import of_certificate

    assert of_certificate(tmp_path / "toy") <= 1e-5


def test_answers_are_edited_as_fast_as_the_others_within_reason(tmp_path):
    from vllm_on_card import SMALL, of_speed

    fast, ratios = of_speed(tmp_path / "shape", SMALL, 8)
    assert min(fast) > 0 and sorted(ratios)[len(ratios) // 2] < 3
