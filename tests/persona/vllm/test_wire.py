"""Edits cross to workers of other processes whole, closures and tensors; what cannot is refused."""

import pytest
import torch

from persona.errors import SteeringError
from persona.vllm.edit_sets import EditSet, placed
from persona.vllm.wire import pack, unpack
from steering.edits import ALL_BLOCKS, SteeredBy, ablate, add, edits_at, restore

pytest.importorskip("cloudpickle")
SITES = [f"blocks.{layer}.hook_resid_post" for layer in range(3)]
H = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
VECTOR = torch.tensor([1.0, 2.0, -1.0, 0.5])


@pytest.mark.parametrize(
    "edits",
    [
        add(VECTOR, 2.0, at=1),
        add(VECTOR, torch.tensor([1.0, -1.0]), at=1),
        ablate(VECTOR, at=ALL_BLOCKS),
        restore(VECTOR, target=1.5, at=[0, 2]),
        edits_at([1], lambda h: h * 2 + VECTOR, 4, "of a person"),
    ],
)
def test_an_edit_does_the_same_on_the_other_side(edits):
    sent = placed(EditSet.of(SteeredBy(edits, "from:1")), SITES, 3, 4)
    there = unpack(pack(sent))
    assert [one.hook_name for one in there.edits] == [one.hook_name for one in sent.edits]
    for one, other in zip(sent.edits, there.edits, strict=True):
        assert torch.equal(one.apply(H), other.apply(H))
    index, begins = torch.arange(3)[None], torch.tensor([[2]])
    assert there.written(index, begins, begins).tolist() == [[False, True, True]]
    assert there.rows == sent.rows


def test_what_cannot_cross_is_refused_in_one_line(tmp_path):
    with (tmp_path / "log").open("w") as file:
        with pytest.raises(SteeringError, match="cannot cross to vLLM's workers"):
            pack(lambda h: file.write("seen"))
