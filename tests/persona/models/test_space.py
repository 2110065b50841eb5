"""A space says one thing about where it is."""

import pytest

from persona.errors import SpaceMismatchError
from persona.models.space import ActivationSpace


def test_a_hook_of_another_block_than_the_layer_is_refused():
    with pytest.raises(
        SpaceMismatchError, match=r"blocks\.3\.hook_resid_post is of block 3, but layer=1"
    ):
        ActivationSpace("m", "r", "blocks.3.hook_resid_post", layer=1, d_model=2)


@pytest.mark.parametrize(
    "hook_name", ["blocks.3.hook_resid_post", "blocks.3.hook_attn_out", "ln_final"]
)
def test_a_hook_of_the_block_or_of_none_is_taken(hook_name):
    assert ActivationSpace("m", "r", hook_name, layer=3, d_model=2).layer == 3
