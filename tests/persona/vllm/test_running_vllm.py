"""Whatever vLLM raises is one line, and ends the engine that raised it."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from persona.errors import DataError, EngineError, SteeringError
from persona.vllm.running_vllm import RunningVllm, _Progress
from persona.vllm.worker_room import HANDED_ON


class EngineDeadError(Exception):
    """As vLLM's, which says no more than to look above."""


def idle():
    engine = object.__new__(RunningVllm)
    engine.name, engine._fault = "org/model", None
    return engine


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no\nroom"), "vLLM did not run org/model: ValueError: no room$"),
        (RuntimeError("cancelled"), "one of its worker processes ended, .* is kept"),
        (EngineDeadError("see above"), "one of its worker processes ended, .* is kept"),
        (
            RuntimeError(
                "Worker failed with error '[pair.cc:537] Connection reset by peer. GLHF!'"
            ),
            "one of its worker processes ended, .* is kept",
        ),
    ],
)
def test_an_error_of_vllm_is_one_line_and_the_engine_is_not_used_again(error, told):
    engine = idle()
    with pytest.raises(EngineError, match=told):
        with engine._one_clear_line("run"):
            raise error
    assert not engine.usable
    with pytest.raises(EngineError, match="cannot be used any more: it ended with an error"):
        with engine._one_clear_line("run"):
            raise AssertionError("it must not come here")


def test_an_error_of_ours_stays_as_it_is():
    engine = idle()
    with pytest.raises(SteeringError, match="^left out$"):
        with engine._one_clear_line("run"):
            raise SteeringError("left out")
    assert not engine.usable


def of_dtype(dtype, max_model_len=16):
    engine = idle()
    config = SimpleNamespace(dtype=dtype, max_model_len=max_model_len)
    engine.llm = SimpleNamespace(model_config=config)
    return engine


def test_a_text_that_there_is_no_room_for_is_said_before_anything_runs():
    engine = of_dtype(torch.float32)
    with pytest.raises(DataError, match="a text has 16 tokens, and vLLM was given room for 16"):
        engine.run([[1] * 3, [1] * 16], [None] * 2, "aligned", [None] * 2, None, [1, 1], "Asking")
    assert engine.usable


@pytest.mark.parametrize(
    ("dtype", "apart", "goes_on"),
    [
        (torch.float32, 1e-6, True),
        (torch.float32, 1e-3, False),
        (torch.bfloat16, 0.01, True),
        (torch.bfloat16, 0.1, False),
        (torch.bfloat16, None, False),
    ],
)
def test_blocks_that_do_not_go_on_from_the_stream_are_refused(monkeypatch, dtype, apart, goes_on):
    """A stale residual is told by 0.1 and more in any format; no word is no leave."""
    engine = of_dtype(dtype)
    told = [{"another stage": 0.0}] if apart is None else [{HANDED_ON: apart}, {}]
    monkeypatch.setattr(RunningVllm, "_probed_passes", lambda self, handed_on: told)
    with contextlib.nullcontext() if goes_on else pytest.raises(EngineError, match="do not go on"):
        engine._require_that_edits_go_on()


def test_a_bar_moves_by_what_vllm_has_finished():
    moved = []
    bar = _Progress(moved.append)
    bar.update(3)
    bar.update(2)
    bar.refresh()
    bar.close()
    assert (moved, bar.n) == ([3, 2], 5)
    assert bar.format_dict["elapsed"] > 0
