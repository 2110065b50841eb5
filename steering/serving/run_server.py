"""The endpoint on an address of this machine, behind a gate."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from persona.errors import DataError, PersonaError
from persona.extras import install_line
from steering.demo.browser.gate import LOOPBACK_NAMES, bracketed, gate
from steering.demo.session.endpoint import KEY_VARIABLE
from steering.serving.http_app import http_app
from steering.serving.served_models import ServedModels

SHORTEST_KEY = 16
FIRST_PORT, N_PORTS = 8000, 50


def require_server(host: str) -> str | None:
    """The key that clients must show, None where none is asked for; before minutes of loading.

    Read from the environment variable PERSONASCOPE_API_KEY, so that no list of processes shows it.
    Raises: PersonaError without the extra; DataError for a key that is too short, and for an
        address beyond this machine without one.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise PersonaError(f"serving needs the extra `serve`: {install_line('serve')}") from error
    key = os.environ.get(KEY_VARIABLE) or None
    if key is not None and len(key) < SHORTEST_KEY:
        raise DataError(
            f"{KEY_VARIABLE} has {len(key)} characters; a key has {SHORTEST_KEY} or more"
        )
    if key is None and bracketed(host).lower() not in LOOPBACK_NAMES:
        raise DataError(
            f"serving at {host} lets other machines in: set {KEY_VARIABLE} to a key of "
            f"{SHORTEST_KEY} characters or more, or serve at 127.0.0.1"
        )
    return key


def serve(
    models: ServedModels,
    host: str = "127.0.0.1",
    port: int | None = None,
    key: str | None = None,
    started: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves until Ctrl-C. port: None takes the first free one from 8000.

    started: told the address once requests are answered there.
    Raises: PersonaError where the port or host cannot be had.
    """
    import uvicorn

    bound = _bound(host, port)
    address = f"http://{bracketed(host)}:{bound.getsockname()[1]}/v1"

    class Told(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started(address)

    config = uvicorn.Config(
        gate(http_app(models, key), host),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        lifespan="off",
        server_header=False,
    )
    try:
        Told(config).run(sockets=[bound])
    except KeyboardInterrupt:
        pass
    finally:
        bound.close()


def _bound(host: str, port: int | None) -> socket.socket:
    """A socket that listens at the address. Raises: PersonaError where it cannot be had."""
    tried = [port] if port is not None else range(FIRST_PORT, FIRST_PORT + N_PORTS)
    last: OSError | None = None
    for number in tried:
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(
                host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            found = socket.socket(family, kind, protocol)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                found.bind(where)
            except OSError:
                found.close()
                raise
            return found
        except OSError as error:
            last = error
    where_asked = f"{host}:{port}" if port is not None else host
    raise PersonaError(f"cannot serve at {where_asked}: {last}; try another --port") from last
