"""The sockets over which an engine talks to worker processes of its own, closed with the engine.

vLLM leaves them to the garbage collector. Where they are in a cycle, as behind an error, it may
come to a ZeroMQ context before the context's sockets, and then waits for them for ever: the next
engine of the process never starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

NAMES = (
    *("local_socket", "remote_socket"),
    *("local_notify_socket", "write_cancel_socket", "read_cancel_socket"),
)
"""What vLLM 0.30 calls them, in a queue and in what wakes its readers."""
LONGEST_END_SECONDS = 20.0
"""vLLM waits for its workers, then asks them to end, then kills them."""


class WorkerSockets:
    """Those of one `vllm.LLM`, found while it runs; none where its one worker is in here."""

    def __init__(self, llm: Any) -> None:
        core = getattr(llm.llm_engine.engine_core, "engine_core", None)
        executor = getattr(core, "model_executor", None)
        self._workers = [*(getattr(executor, "workers", None) or ())]
        self._sockets = [*_sockets_of(executor)]
        for socket in self._sockets:
            socket.linger = 0  # nothing that was not read holds up whoever closes it

    def close(self) -> None:
        """Close them and their contexts, once vLLM has done with them.

        Where a worker died, a thread of vLLM's own ends the others, and then still uses them.
        """
        until = time.monotonic() + LONGEST_END_SECONDS
        while any(map(_in_use, self._workers)) and time.monotonic() < until:
            time.sleep(0.05)
        for context in {id(socket.context): socket.context for socket in self._sockets}.values():
            context.destroy(linger=0)
        self._sockets.clear()


def _in_use(worker: Any) -> bool:
    return getattr(worker, "worker_response_mq", None) is not None


def _sockets_of(executor: Any) -> Iterator[Any]:
    queues = [
        getattr(executor, "rpc_broadcast_mq", None),
        *(getattr(executor, "response_mqs", None) or ()),
    ]
    for queue in filter(None, queues):
        for holder in (queue, getattr(queue, "_spin_condition", None)):
            yield from filter(None, (getattr(holder, name, None) for name in NAMES))
