"""A set of edits is anything that says its hooks; what does not fit is refused."""

from types import SimpleNamespace as Named

import pytest
import torch

from persona.errors import SteeringError
from persona.vllm.edit_sets import EditSet, after_the_first, placed, require_rows

SITES = [f"blocks.{layer}.hook_resid_post" for layer in range(3)]


def edit(name=SITES[1], rows=None, d_model=4):
    return Named(hook_name=name, label="made up", d_model=d_model, rows=rows, apply=lambda h: h)


def test_edits_for_every_block_stand_once_for_each_in_their_order():
    found = placed(EditSet((edit("blocks.*.hook_resid_post"), edit())), SITES, 3, 4)
    assert [one.hook_name for one in found.edits] == [*SITES, SITES[1]]
    index = torch.arange(3)[None]
    assert after_the_first(index, index[:, :1], index[:, :1]).tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            edit("blocks.7.hook_resid_post"),
            "has no hook .*7.hook_resid_post. .it has 3 blocks",
        ),
        (edit(d_model=8), "has d_model=8 but the model has d_model=4"),
    ],
)
def test_another_hook_and_another_width_are_refused(wrong, told):
    with pytest.raises(SteeringError, match=told):
        placed(EditSet((wrong,)), SITES, 3, 4)


def test_what_does_not_say_its_edits_is_refused():
    with pytest.raises(SteeringError, match="got a function, which edits a model in this process"):
        EditSet.of(lambda model: None)
    with pytest.raises(SteeringError, match="the list of edits is empty"):
        EditSet.of(Named(edits=()))


def test_rows_are_those_of_the_coefficients():
    chosen = EditSet((edit(rows=3), edit()))
    require_rows(chosen, [2, 0, 1])
    for rows in ([0, 1], [0, 1, 1], [0, 1, 2, 3]):
        with pytest.raises(
            SteeringError, match=f"3 coefficients, .* the batch has {len(rows)} rows"
        ):
            require_rows(chosen, rows)
    with pytest.raises(SteeringError, match=r"different numbers of rows: \[2, 3\]"):
        _ = EditSet((edit(rows=3), edit(rows=2))).rows
