"""Means over spans do not depend on how vLLM cuts a text."""

import pytest
import torch

from persona.errors import DataError
from persona.vllm.pooled_reading import PooledReading
from persona.vllm.running_pass import Span

HOOK = "blocks.0.hook_resid_post"
TEXT = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))


def shown(reading, *pieces):
    for first, n in pieces:
        rows = torch.cat([torch.full((2, 3), 9.0), TEXT[first : first + n]])  # another request's
        reading.see(HOOK, rows, [Span(0, 2, 5, 7, {}), Span(2, 2 + n, first, 7, {"request": 4})])
    return reading.pooled()[4][HOOK]


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, 7)],
        [(0, 3), (3, 4)],
        [(0, 1), (1, 1), (2, 5)],
        [(0, 4), (0, 7)],  # begun again after a preemption: no token counts twice
        [(0, 4), (0, 2), (2, 5)],
    ],
)
def test_chunks_and_preemption_change_nothing(pieces):
    found = shown(PooledReading([HOOK], {4: [(1, 7), (2, 3), (0, 5)]}), *pieces)
    expected = torch.stack([TEXT[1:7].mean(0), TEXT[2:3].mean(0), TEXT[:5].mean(0)])
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(shown(PooledReading([HOOK], {4: []}), *pieces), TEXT)


def test_what_is_not_finite_is_an_error_that_names_the_text():
    reading = PooledReading([HOOK], {4: [(0, 2)]})
    with pytest.raises(DataError, match="text 4 at blocks.0.hook_resid_post are not finite"):
        reading.see(
            HOOK, torch.tensor([[1.0, float("nan"), 0.0]]), [Span(0, 1, 0, 2, {"request": 4})]
        )
