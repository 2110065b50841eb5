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


def test_every_step_of_a_script_for_cards_runs_on_one(tmp_path):
    from vllm_on_card import REPETITIONS, SMALL, of_speed

    fast, ratios = of_speed(tmp_path / "shape", SMALL, 8)
    assert len(fast) == len(ratios) == REPETITIONS
