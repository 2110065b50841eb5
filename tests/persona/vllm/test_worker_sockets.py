"""What an engine leaves behind holds up no engine after it, in whatever order it is collected."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from persona.vllm.worker_sockets import WorkerSockets

zmq = pytest.importorskip("zmq")


class Queue:
    """As vLLM's: a context of its own, a message that nobody reads, and here a cycle."""

    def __init__(self):
        context = zmq.Context()
        self.local_socket, self.remote_socket = context.socket(zmq.PUSH), None
        self.local_socket.connect("tcp://127.0.0.1:9")
        self._spin_condition = SimpleNamespace(local_notify_socket=context.socket(zmq.PUB))
        self.local_socket.send(b"unread")
        self.itself = self


def llm(*queues):
    executor = SimpleNamespace(rpc_broadcast_mq=queues[0], response_mqs=queues[1:])
    core = SimpleNamespace(engine_core=SimpleNamespace(model_executor=executor))
    return SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core))


def test_sockets_and_contexts_of_every_queue_are_closed():
    queues = [Queue(), Queue()]
    contexts = [queue.local_socket.context for queue in queues]
    sockets = WorkerSockets(llm(*queues))
    sockets.close()
    sockets.close()
    assert all(context.closed for context in contexts)
    assert all(queue._spin_condition.local_notify_socket.closed for queue in queues)


def test_they_are_not_closed_under_a_thread_that_ends_the_workers():
    queue = Queue()
    model = llm(queue)
    worker = SimpleNamespace(worker_response_mq=queue)
    model.llm_engine.engine_core.engine_core.model_executor.workers = [worker]
    found = []

    def end():
        time.sleep(0.3)
        found.append(queue.local_socket.closed)
        worker.worker_response_mq = None

    ending = threading.Thread(target=end)
    sockets = WorkerSockets(model)
    ending.start()
    sockets.close()
    ending.join()
    assert found == [False] and queue.local_socket.closed


def test_an_engine_whose_worker_is_in_this_process_has_none():
    executor = SimpleNamespace()
    core = SimpleNamespace(engine_core=SimpleNamespace(model_executor=executor))
    WorkerSockets(SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core))).close()
    WorkerSockets(SimpleNamespace(llm_engine=SimpleNamespace(engine_core=None))).close()


LEFT_TO_THE_COLLECTOR = """
import gc
from test_worker_sockets import Queue, WorkerSockets, llm
queue = Queue()
WorkerSockets(llm(queue)).close()
del queue
gc.collect()
"""


def test_the_collector_does_not_wait_for_them():
    # In a process of its own: without `close` it hangs in ZeroMQ, where no timeout reaches.
    command = [sys.executable, "-c", LEFT_TO_THE_COLLECTOR]
    subprocess.run(command, cwd=Path(__file__).parent, timeout=60, check=True)
