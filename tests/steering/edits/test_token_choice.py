"""Tokens chosen by their places alone are those that the tracker of passes chooses."""

import pytest
import torch
from tiny_models import save_tiny_llama
from transformers import AutoModelForCausalLM

from persona.errors import SteeringError
from steering.edits.position_tracker import PositionTracker
from steering.edits.token_choice import TokenChoice

SETS = ["all", "asking", "answering", "answering:2", "last", "from:3", (2, 4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = save_tiny_llama(tmp_path_factory.mktemp("llama"), d_model=16, n_layers=1)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("positions", SETS)
@pytest.mark.parametrize("first_token", [False, True])
def test_it_chooses_what_the_tracker_chooses_while_an_answer_is_written(
    model, positions, first_token
):
    prompt, n_new = [5, 6, 7, 8, 9], 4
    tracker = PositionTracker(positions, None, first_token)
    seen = []
    with tracker.watching(model, lambda: seen.append(tracker.mask[0].clone())):
        model.generate(
            torch.tensor([prompt]), max_new_tokens=n_new, min_new_tokens=n_new, do_sample=False
        )
    n = len(prompt) + n_new - 1
    begins = torch.tensor([[len(prompt)]])
    chosen = TokenChoice(positions, first_token)(torch.arange(n)[None], begins, begins)
    assert chosen[0].tolist() == torch.cat(seen).tolist()
    assert chosen.any()


def test_each_row_has_an_answer_of_its_own():
    index = torch.arange(6).expand(2, 6)
    begins = torch.tensor([[2], [4]])
    chosen = TokenChoice("answering")(index, begins, torch.full((2, 1), 6))
    assert chosen.int().tolist() == [[0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]]
    last = TokenChoice("last")(index, begins, torch.full((2, 1), 6))
    assert last.int().tolist() == [[0, 0, 0, 0, 0, 1]] * 2


def test_a_set_that_is_none_is_refused():
    with pytest.raises(SteeringError, match="positions must be one of"):
        TokenChoice("everywhere")
