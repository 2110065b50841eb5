"""What each step of vLLM wrote is held against what the edits choose."""

from types import SimpleNamespace as Named

import pytest

from persona.errors import SteeringError
from persona.vllm.edit_sets import EditSet
from persona.vllm.worker_room import Step
from persona.vllm.written_steps import require_some, require_written

EDITS = EditSet(
    (Named(hook_name="blocks.1.hook_resid_post", label="add", d_model=4, rows=None, apply=abs),)
)


def held(*steps, n_tokens=6):
    return require_written([Step(*one) for one in steps], EDITS, 4, 4, n_tokens, "text 0")


def test_a_prompt_in_chunks_and_one_that_was_begun_again_are_whole():
    assert held((0, 4, 3), (4, 1, 1), (5, 1, 1)) == 5
    assert held((0, 2, 1), (2, 2, 2), (4, 2, 2)) == 5
    assert held((0, 4, 3), (0, 5, 4), (5, 1, 1)) == 5  # preempted after the prompt


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (((2, 2, 2), (4, 2, 2)), "the tokens 0 to 1 were taken from a cache"),
        (((0, 4, 3), (4, 1, 0), (5, 1, 1)), "0 tokens were written in the step from token 4 on"),
        (((0, 4, 4), (4, 2, 2)), "4 tokens were written in the step from token 0 on, .* choose 3"),
        (((0, 4, 3),), "shown 4 of its 6 tokens"),
        ((), "shown 0 of its 6 tokens"),
    ],
)
def test_a_hole_a_missing_token_and_an_edited_first_one_are_errors(steps, told):
    with pytest.raises(SteeringError, match=told):
        held(*steps)


def test_edits_that_met_no_token_are_an_error():
    require_some([EDITS, None, EDITS], [0, 0, 2])
    with pytest.raises(SteeringError, match="'add' at blocks.1.hook_resid_post met no token"):
        require_some([EDITS, None, EDITS], [0, 0, 0])
