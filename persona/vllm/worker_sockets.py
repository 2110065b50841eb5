"""The sockets over which an engine talks to worker processes of its own, closed with the engine.

vLLM leaves them to the garbage collector. Where they are in a cycle, as behind an error, it may
come to a ZeroMQ context before the context's sockets, and then waits for them for ever: the next
engine of the process never starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class WorkerSockets:
    """Those of one `vllm.LLM`, found while it runs; none where its one worker is in here."""

    def __init__(self, llm: Any) -> None:
        core = getattr(llm.llm_engine.engine_core, "engine_core", None)
        self._sockets = [*_sockets_of(getattr(core, "model_executor", None))]
        for socket in self._sockets:
            socket.linger = 0  # nothing that was not read holds up whoever closes it

    def close(self) -> None:
        """Close them and their contexts; once the workers have ended."""
        for context in {id(socket.context): socket.context for socket in self._sockets}.values():
            context.destroy(linger=0)
        self._sockets.clear()


def _sockets_of(executor: Any) -> Iterator[Any]:
    queues = [
        getattr(executor, "rpc_broadcast_mq", None),
        *(getattr(executor, "response_mqs", None) or ()),
    ]
    if not any(queues):
        return
    import zmq

    for queue in filter(None, queues):
        for holder in (queue, getattr(queue, "_spin_condition", None)):
            for value in getattr(holder, "__dict__", {}).values():
                if isinstance(value, zmq.Socket):
                    yield value
