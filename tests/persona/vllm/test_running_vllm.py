"""Whatever vLLM raises is one line, and ends the engine that raised it."""

import pytest

from persona.errors import EngineError, SteeringError
from persona.vllm.running_vllm import RunningVllm, _Progress


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


def test_a_bar_moves_by_what_vllm_has_finished():
    moved = []
    bar = _Progress(moved.append)
    bar.update(3)
    bar.update(2)
    bar.refresh()
    bar.close()
    assert (moved, bar.n) == ([3, 2], 5)
    assert bar.format_dict["elapsed"] > 0
