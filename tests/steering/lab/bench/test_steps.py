"""A step is made once for its inputs, and never read for others."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from steering.lab.bench.steps import Steps, content_key


def table(value):
    return pd.DataFrame({"value": [value]})


@pytest.fixture
def steps(tmp_path):
    return Steps(tmp_path, {"model": "a"})


def test_a_step_is_made_once_for_the_same_inputs(steps, tmp_path):
    made = []

    def make():
        made.append(1)
        return table(len(made))

    for bench in (steps, steps, Steps(tmp_path, {"model": "a"})):
        assert bench.table("score", {"n": 1}, make)["value"].tolist() == [1]
    assert steps.table("score", {"n": 2}, make)["value"].tolist() == [2]
    assert Steps(tmp_path, {"model": "b"}).table("score", {"n": 1}, make)["value"].tolist() == [3]
    assert steps.table("other", {"n": 1}, make)["value"].tolist() == [4]


def test_a_step_that_was_killed_while_writing_is_made_again(steps, tmp_path):
    steps.table("score", {}, lambda: table(1))
    [clock] = tmp_path.glob("*.seconds")
    clock.unlink()
    assert steps.table("score", {}, lambda: table(2))["value"].tolist() == [2]


def test_a_step_that_fails_leaves_nothing(steps, tmp_path):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps.table("score", {}, fail)
    assert list(tmp_path.iterdir()) == []


def test_tensors_come_back_as_they_were(steps):
    rows = torch.randn(2, 3)
    for _ in range(2):
        assert torch.equal(steps.tensors("cells", {}, lambda: {"a": rows})["a"], rows)


def test_the_key_does_not_depend_on_the_order_of_the_inputs():
    assert content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 2})
