"""Where shards are worked on: in this process, or by Ray on one machine or many."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from persona.engine.shards import ShardRunner, run_here
from persona.errors import EngineError

EngineName = Literal["local", "ray"]


@dataclass(frozen=True)
class Engine:
    """Where shards are worked on; the results are the same wherever that is.

    name: "local" is this process, "ray" a cluster.
    workers: processes that hold a model each; None: one for each GPU of the cluster, without any
        one for each machine.
    address: of a running cluster, HOST:PORT or "auto"; None starts one on this machine, which ends
        with the work.
    Raises: EngineError for another name, no workers, or options of Ray without Ray.
    """

    name: EngineName = "local"
    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(EngineName):
            raise EngineError(
                f"unknown engine {self.name!r}; one of {', '.join(get_args(EngineName))}"
            )
        if self.name == "local" and (self.workers, self.address) != (None, None):
            raise EngineError(
                "workers and an address belong to Ray: add --engine ray, or leave them out"
            )
        if self.workers is not None and self.workers < 1:
            raise EngineError(f"at least one worker is needed; got {self.workers}")

    def require_installed(self) -> None:
        """Raises: EngineError, naming the extra, where Ray is needed and not installed."""
        if self.name == "ray":
            from persona.engine.cluster import import_ray

            import_ray()

    @contextlib.contextmanager
    def start(self) -> Iterator[ShardRunner]:
        """Yields what does shards; workers live, and hold their models, while the block is open.

        Nothing is started before the first shard.
        Raises: EngineError where Ray is not installed.
        """
        self.require_installed()
        if self.name == "local":
            yield run_here
            return
        from persona.engine.ray_workers import ray_workers

        with ray_workers(self.workers, self.address) as run:
            yield run
