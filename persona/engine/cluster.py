"""A Ray cluster: started on this machine or joined, and what it has room for.

One that is started here is for this machine alone: every port listens on the loopback, and its
logs and sockets lie in a folder that nobody else can enter and that goes with it. One that the
user names is as its owner made it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from persona.errors import EngineError
from persona.extras import install_line

EXTRA = install_line("ray")
OBJECT_STORE_BYTES = 256 << 20
"""Of a cluster started here: only results travel, and none is kept there."""
CONNECT_SECONDS = 5.0
LOOPBACK = "127.0.0.1"
"""As a number: Ray takes any other name of the loopback for the address of a real network."""
START_TRIES = 3
"""Ray gives its own processes 30 seconds to start, which a busy machine may need twice."""
TOKEN_NAMES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE")


@dataclass(frozen=True)
class Room:
    """What each of the workers gets. cpus is also the number of its threads."""

    workers: int
    cpus: int
    gpus: int


def import_ray() -> Any:
    """Ray, which reports to nobody. Raises: EngineError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a change
    try:
        import ray
    except ImportError as error:
        raise EngineError(f"--engine ray needs Ray, which is not installed; {EXTRA}") from error
    return ray


@contextlib.contextmanager
def joined(workers: int | None, address: str | None) -> Iterator[tuple[Any, Room]]:
    """Ray, connected while the block is open, and the room of each worker.

    A connection that this process has already is used and left open.
    Raises: EngineError where there is no cluster at `address`, or too small a one.
    """
    ray = import_ray()
    with contextlib.ExitStack() as connected:
        if not ray.is_initialized():
            named = address or os.environ.get("RAY_ADDRESS") or "local"
            here = named == "local"
            connected.enter_context(_started(ray, workers) if here else _connected(ray, named))
        yield ray, room_for(workers, [node for node in ray.nodes() if node["Alive"]])


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """A cluster that somebody else started. Raises: EngineError where there is none."""
    if address != "auto":
        _require_listener(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of a dozen kinds, gRPC's among them
        raise _no_cluster(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _started(ray: Any, workers: int | None) -> Iterator[None]:
    """A cluster of this machine, which no other one can reach. Raises: EngineError."""
    # Not where the system keeps temporary files: Ray's sockets lie deep, and a path to a socket
    # has some 100 characters at most.
    short = "/tmp" if Path("/tmp").is_dir() else None
    with (
        tempfile.TemporaryDirectory(
            prefix="persona-ray-", dir=short, ignore_cleanup_errors=True
        ) as folder,
        _loopback_only(ray),
    ):
        for n_left in range(START_TRIES - 1, -1, -1):
            try:
                ray.init(
                    address="local",
                    num_cpus=max(workers or 1, os.cpu_count() or 1),
                    object_store_memory=OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _node_ip_address=LOOPBACK,
                    # One deeper: Ray opens the folder itself to every user.
                    _temp_dir=str(Path(folder, f"try-{n_left}")),
                )
                break
            except Exception as error:
                ray.shutdown()
                if not n_left or "timed out during startup" not in _one_line(error):
                    raise EngineError(
                        f"Ray could not be started on this machine: {_one_line(error)}"
                    ) from error
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _loopback_only(ray: Any) -> Iterator[None]:
    """Ray keeps to the loopback, as it does by itself on macOS and Windows, and writes no token.

    On Linux it else puts the address of the network in place of a loopback one. The token that
    its processes show each other is kept in ~/.ray, readable by all, unless it is handed in.
    """
    constants = ray._private.ray_constants
    before = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    wanted = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # for the processes that Ray starts
    kept = Path("~/.ray/auth_token").expanduser().exists()
    if not kept and not any(name in os.environ for name in TOKEN_NAMES):
        wanted["RAY_AUTH_TOKEN"] = _token()
    try:
        with _environment(wanted, TOKEN_NAMES):
            constants.ENABLE_RAY_CLUSTER = False
            try:
                yield
            finally:
                constants.ENABLE_RAY_CLUSTER = before
    finally:
        _forget_token()


def _forget_token() -> None:
    """Ray keeps it in this process, which would go on asking for it.

    The processes of a cluster that is joined later do not have it: that cluster then takes this
    process for dead and ends every worker as it starts.
    """
    with contextlib.suppress(Exception):  # none of it is public, nor worth the caller's own error
        from ray._raylet import AuthenticationTokenLoader, Config

        Config.initialize("")  # reads the variables anew
        AuthenticationTokenLoader.instance().reset_cache()


@cache
def _token() -> str:
    """One for this process."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str], touched: tuple[str, ...]) -> Iterator[None]:
    """Variables set while open; these and the touched ones are as before afterwards."""
    before = {name: os.environ.get(name) for name in (*wanted, *touched)}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _no_cluster(address: str, error: Exception) -> EngineError:
    return EngineError(
        f"no Ray cluster at {address}: {_one_line(error)}. Start one with `ray start --head`, or "
        "leave --ray-address out to start one on this machine"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _require_listener(address: str) -> None:
    """Ray itself waits for minutes where nobody listens."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except ValueError as error:
        raise EngineError(f"--ray-address must be HOST:PORT or auto; got {address!r}") from error
    except OSError as error:
        raise EngineError(
            f"no Ray cluster at {address}: {error.strerror or error}. Start one with "
            "`ray start --head`, or leave --ray-address out to start one on this machine"
        ) from error


def room_for(workers: int | None, nodes: list[dict[str, Any]]) -> Room:
    """Shares the machines out: a GPU for each worker where there are any, else processors.

    nodes: as `ray.nodes()` lists them. Machines without processors for work (a head started with
    num_cpus=0) do not count.
    Raises: EngineError where not all workers can run at the same time.
    """
    cpus = [int(cpu) for node in nodes if (cpu := node["Resources"].get("CPU", 0)) >= 1]
    if not cpus:
        raise EngineError("the Ray cluster has no processor for work; add a machine to it")
    n_gpus = int(sum(node["Resources"].get("GPU", 0) for node in nodes))
    n_workers = workers or n_gpus or len(cpus)
    if n_gpus:
        if n_workers > min(n_gpus, sum(cpus)):
            raise EngineError(
                f"{n_workers} workers need a GPU and a processor each; the Ray cluster has "
                f"{n_gpus} GPUs and {sum(cpus)} processors. Ask for fewer with --workers"
            )
        return Room(n_workers, 1, 1)
    # The most threads with which every worker still finds a place.
    for threads in range(max(cpus), 0, -1):
        if sum(cpu // threads for cpu in cpus) >= n_workers:
            return Room(n_workers, threads, 0)
    raise EngineError(
        f"{n_workers} workers need a processor each; the Ray cluster has {sum(cpus)}. Ask for "
        "fewer with --workers"
    )
