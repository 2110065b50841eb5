"""Rows of a flattened pass are told by their places in their own texts."""

from types import SimpleNamespace as Named

import numpy as np
import pytest
import torch

from persona.errors import SteeringError
from persona.vllm.edit_sets import after_the_first
from persona.vllm.running_pass import TOLD, Span, groups_of, spans_of_pass

CPU = torch.device("cpu")


def runner(*requests):
    """As vLLM's: (tokens in this pass, tokens before, tokens of the prompt) of each request."""
    ends = np.cumsum([0, *(n for n, _, _ in requests)])
    names = [f"r{i}" for i in range(len(requests))]
    known = {
        name: Named(
            sampling_params=Named(extra_args={TOLD: {"request": i, "row": i}}),
            num_prompt_tokens=prompt,
        )
        for i, (name, (_, _, prompt)) in enumerate(zip(names, requests, strict=True))
    }
    batch = Named(
        num_reqs=len(requests),
        req_ids=names,
        num_computed_tokens_cpu=np.array([first for _, first, _ in requests]),
    )
    return Named(input_batch=batch, query_start_loc=Named(np=ends), requests=known)


def test_a_pass_of_prefill_a_chunk_and_decoding_is_told_apart():
    positions = torch.tensor([0, 1, 2, 4, 5, 9, 0, 0])  # the last two are padding
    spans = spans_of_pass(runner((3, 0, 3), (2, 4, 8), (1, 9, 6)), positions)
    assert [(s.start, s.end, s.first, s.n_prompt) for s in spans] == [
        (0, 3, 0, 3),
        (3, 5, 4, 8),
        (5, 6, 9, 6),
    ]
    assert [s.told["request"] for s in spans] == [0, 1, 2]


def test_positions_that_are_not_those_of_the_table_are_an_error():
    with pytest.raises(SteeringError, match="not known which token is which"):
        spans_of_pass(runner((3, 0, 3)), torch.tensor([0, 1, 3]))


def test_a_pass_that_measures_memory_has_no_requests():
    assert spans_of_pass(runner(), torch.arange(8)) == []


def span(start, n, first, row=0):
    return Span(start, start + n, first, 3, {"row": row})


def test_texts_of_one_length_are_edited_together_and_first_tokens_left_alone():
    groups = groups_of([span(0, 2, 0), span(2, 1, 7), span(3, 2, 4)], after_the_first, None, 5, CPU)
    assert [(g.shape, g.mask.tolist(), g.put.tolist()) for g in groups] == [
        ((2, 2), [[False, True], [True, True]], [1, 3, 4]),
        ((1, 1), [[True]], [2]),
    ]
    [alone] = groups_of([span(0, 1, 5), span(1, 1, 9)], after_the_first, None, 2, CPU)
    assert alone.take is None and alone.everything


def test_with_a_coefficient_for_each_row_every_request_stands_at_its_own():
    [group] = groups_of([span(0, 1, 7, row=2), span(1, 2, 3, row=0)], after_the_first, 3, 3, CPU)
    assert group.take.tolist() == [[1, 2], [0, 0], [0, 0]]
    assert group.mask.tolist() == [[True, True], [False, False], [True, False]]
    assert sorted(group.put.tolist()) == [0, 1, 2]
