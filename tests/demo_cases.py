"""A planted direction on the tiny pair and what serves it, for the tests of the demos."""

import contextlib
import socket
import threading
import time

import torch

from persona.directions.direction import PersonaVector, Subspace, orthonormal
from persona.directions.storage import save_vector


def planted_vector(pair, layers=(1, 2), rank=1, seed=0, coefficient=1.0):
    """Random subspaces with random means, far enough apart to change what is written."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return PersonaVector(
        {
            layer: Subspace(
                orthonormal(draw(rank, pair.d_model)),
                -3 * draw(rank).abs() - 3,
                3 * draw(rank).abs() + 3,
                pair.space(layer),
            )
            for layer in layers
        },
        "planted",
        coefficient,
    )


def hook_count(pair):
    """Torch hooks on any module of either side."""
    total = 0
    for side in ("aligned", "finetuned"):
        with pair.active(side) as bridge, torch.no_grad():
            bridge(torch.tensor([[5, 6]]))  # transformers adds hooks of its own in the first pass
            total += sum(
                len(module._forward_hooks) + len(module._forward_pre_hooks)
                for module in bridge.modules()
            )
    return total


def leave_vector(pair, layers, path):
    """A direction such as `persona demo` leaves."""
    generator = torch.Generator().manual_seed(0)
    subspaces = {
        layer: Subspace(
            orthonormal(torch.randn(1, pair.d_model, generator=generator)),
            torch.zeros(1),
            torch.ones(1),
            pair.space(layer),
        )
        for layer in layers
    }
    return save_vector(PersonaVector(subspaces, "made up"), path)


@contextlib.contextmanager
def serving(app):
    """An ASGI app at an address of this machine, as `persona serve` runs one; its address."""
    import uvicorn

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()
