"""The class that vLLM mixes into its worker; `LLM.collective_rpc` reaches it in every process."""

from __future__ import annotations

from typing import Any

from persona.vllm.wire import pack, unpack
from persona.vllm.worker_room import WorkerRoom


class PersonaWorker:
    """One method, so that none of vLLM's own is hidden; the rest is `WorkerRoom`."""

    def persona_call(self, name: str, arguments: bytes | tuple[Any, ...]) -> Any:
        """Call a method of this worker's room; arguments and result packed, or both as they are."""
        room: Any = getattr(self, "persona_room", None)
        if room is None:
            room = WorkerRoom(self)
            self.persona_room = room
        if name not in (
            "describe",
            "put_on",
            "take_off",
            "read",
            "collect",
            "score",
            "scored",
            "probe",
            "hand_on",
        ):
            raise ValueError(f"a worker's room has no {name!r}")
        method = getattr(room, name)
        if isinstance(arguments, bytes):
            return pack(method(*unpack(arguments)))
        return method(*arguments)
