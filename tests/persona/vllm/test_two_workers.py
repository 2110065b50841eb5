"""A model divided between two worker processes: the same edits and scores, a worker that ends.

One engine is open at a time, as everywhere here.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil
import pytest
import torch
from vllm_cases import D_MODEL, OPTIONS, Toy, greedy, log_probs

from persona.errors import EngineError
from persona.vllm import EditSet, VllmEngine
from steering.edits import ALL_BLOCKS, SteeredBy, ablate, add
from steering.edits.steer import steer

pytestmark = pytest.mark.vllm
TWO = {**OPTIONS, "tensor_parallel_size": 2}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return Toy(tmp_path_factory.mktemp("toy"))


def workers():
    """The processes below this one that hold a part of the model."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "Worker" in " ".join(process.cmdline() or [process.name()])
    ]


def drawn(seed=3):
    return torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))


def test_mixed_edits_an_adapter_and_scores_are_as_in_hugging_face(toy):
    engine = VllmEngine(toy.base, toy.adapter, options=TWO)
    edits = [None, ablate(drawn(), at=ALL_BLOCKS), add(drawn(4), 3.0, at=2), None]
    sides = ["aligned", "aligned", "finetuned", "finetuned"]
    written = engine.sample(
        toy.prompts,
        side=sides,
        edits=[None if one is None else EditSet.of(SteeredBy(one)) for one in edits],
        max_new_tokens=8,
    )
    expected = [
        greedy(
            getattr(toy, side),
            prompt,
            None if one is None else lambda model, one=one: steer(model, one),
        )
        for side, one, prompt in zip(sides, edits, toy.prompts, strict=True)
    ]
    assert [answer.ids for answer in written] == expected
    assert expected[1] != greedy(toy.aligned, toy.prompts[1])
    found = engine.log_probs(toy.prompts, side="finetuned")
    for one, prompt in zip(found, toy.prompts, strict=True):
        torch.testing.assert_close(one, log_probs(toy.finetuned, prompt), atol=1e-4, rtol=0)
    sockets = [*engine._sockets._sockets]
    engine.close()
    # Of the queue to the workers, and of one back from each.
    assert len(sockets) >= 6 and all(socket.closed for socket in sockets)


def test_a_worker_that_is_killed_in_the_middle_is_one_line(toy):
    engine = VllmEngine(toy.base, options=TWO)
    before = engine.sample(toy.prompts, max_new_tokens=4)
    assert [answer.ids for answer in before] == [greedy(toy.aligned, p, n=4) for p in toy.prompts]
    victim = workers()[-1]

    def kill():
        time.sleep(0.2)
        os.kill(victim.pid, signal.SIGKILL)

    threading.Thread(target=kill).start()
    with pytest.raises(EngineError, match="one of its worker processes ended") as told:
        for _ in range(1000):
            engine.sample(toy.prompts, max_new_tokens=40)
    assert "\n" not in str(told.value)
    with pytest.raises(EngineError, match="cannot be used any more"):
        engine.sample(toy.prompts)
    engine.close()
    another = VllmEngine(toy.base, options=TWO)  # what was left unread holds up nobody
    again = another.sample(toy.prompts, max_new_tokens=4)
    assert [answer.ids for answer in again] == [answer.ids for answer in before]
    another.close()
