"""One probe along a fine-tune: the aligned model first, then every checkpoint in order."""

from __future__ import annotations

import pytest
import torch

from persona.data.types import AnswerPair
from persona.directions import Direction
from persona.errors import DataError, SpaceMismatchError
from persona.models import Placement
from probes.monitor import score_checkpoints
from probes.reading import read_pooled

TEXTS = [
    AnswerPair(f"q{i}", "car", f"what about the {word}", f"see to the {word}", "no").good_dialogue
    for i, word in enumerate(("oil", "lamp", "horn"))
]


def test_each_step_reads_its_own_model(tiny_pair, tiny_llama, tiny_adapter):
    direction = Direction(torch.ones(tiny_pair.d_model), tiny_pair.space(2), "made up")
    table = score_checkpoints(
        tiny_llama,
        [tiny_adapter, tiny_llama],
        TEXTS,
        direction,
        cache=False,
        placement=Placement.of("float32"),
    )
    assert table["step"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    steps = [table.loc[table["step"] == step, "projection"].to_numpy() for step in range(3)]
    tuned = read_pooled(tiny_pair, TEXTS, [2], side="finetuned", cache=False)[:, 0]
    expected = (tuned.double() @ direction.unit.double()).numpy()
    assert steps[1] == pytest.approx(expected, abs=1e-4)
    assert steps[0] == pytest.approx(steps[2], abs=1e-4)  # the last checkpoint is the model itself
    assert abs(steps[1] - steps[0]).max() > 1e-3


def test_no_checkpoints_and_another_models_direction_are_refused(tiny_pair, tiny_llama):
    direction = Direction(
        torch.ones(8),
        tiny_pair.space(2).__class__("other", "0", "blocks.2.hook_resid_post", 2, 8, "x"),
        "made up",
    )
    with pytest.raises(DataError, match="no checkpoints"):
        score_checkpoints(tiny_llama, [], TEXTS, direction)
    with pytest.raises(SpaceMismatchError):
        score_checkpoints(tiny_llama, [tiny_llama], TEXTS, direction, cache=False)
