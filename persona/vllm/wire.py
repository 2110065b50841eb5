"""What crosses from the asking process to workers of vLLM in other processes, and back.

Edits are closures, which plain pickle does not take. Both ends are processes of one program: the
workers are started by the engine and reached by vLLM's own queues, and nothing that came from a
file or a hub is ever unpacked. A worker in this process is handed the objects themselves.
"""

from __future__ import annotations

from typing import Any

from persona.errors import SteeringError


def pack(thing: Any) -> bytes:
    """The object as bytes, closures and tensors included.

    Raises: SteeringError for what cannot be taken apart, such as an edit that holds an open file.
    """
    import cloudpickle

    try:
        return cloudpickle.dumps(thing)
    except Exception as error:  # whatever the parts of a closure raise
        raise SteeringError(
            f"the edits cannot cross to vLLM's workers ({type(error).__name__}: {error}); make "
            "them with steering.edits, or of plain functions and tensors"
        ) from error


def unpack(payload: bytes) -> Any:
    """The object that `pack` of this program was given."""
    import cloudpickle

    return cloudpickle.loads(payload)
