"""A Ray cluster: started on this machine or joined, and what it has room for."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from persona.errors import EngineError

EXTRA = "pip install 'personascope[ray]'"
OBJECT_STORE_BYTES = 256 << 20
"""Of a cluster started here: only results travel, and none is kept there."""
CONNECT_SECONDS = 5.0


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
    mine = not ray.is_initialized()
    if mine:
        _connect(ray, workers, address or os.environ.get("RAY_ADDRESS") or "local")
    try:
        yield ray, room_for(workers, [node for node in ray.nodes() if node["Alive"]])
    finally:
        if mine:
            ray.shutdown()


def _connect(ray: Any, workers: int | None, address: str) -> None:
    options: dict[str, Any] = {}
    if address == "local":
        options = {
            "num_cpus": max(workers or 1, os.cpu_count() or 1),
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    elif address != "auto":
        _require_listener(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # of a dozen kinds, gRPC's among them
        raise EngineError(
            f"no Ray cluster at {address}: {' '.join(str(error).split())[:160]}. Start one with "
            "`ray start --head`, or leave --ray-address out to start one on this machine"
        ) from error


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
