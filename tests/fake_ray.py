"""The little of Ray that hands out shards, in one process: what ends first is drawn by a seed."""

from __future__ import annotations

import contextlib
import pickle
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from persona.engine.cluster import Room


class WorkerLostError(Exception):
    pass


class WorkRaisedError(WorkerLostError):
    pass


class FakeRay:
    """n_places: actors that may start, lost ones included; those behind them wait for ever.

    dies: number of each call of `do`, over all actors, that kills its actor.
    """

    def __init__(self, seed: int = 0, n_places: int = 99, dies: tuple[int, ...] = ()) -> None:
        self.rng, self.n_places, self.dies = random.Random(seed), n_places, dies
        self.actors: list[Any] = []
        self.n_done, self.n_opened = 0, 0
        self.cloudpickle = SimpleNamespace(dumps=pickle.dumps, loads=pickle.loads)
        self.exceptions = SimpleNamespace(RayError=WorkerLostError, RayTaskError=WorkRaisedError)

    @contextlib.contextmanager
    def joined(self, workers: int | None, address: str | None) -> Iterator[tuple[Any, Room]]:
        yield self, Room(workers or 1, 1, 0)

    def remote(self, kind: type) -> Any:
        def make(*arguments: Any) -> Any:
            actor = SimpleNamespace(place=len(self.actors))
            actor.open = SimpleNamespace(remote=lambda work: self._open(actor, work))
            actor.do = SimpleNamespace(remote=lambda rows: self._do(actor, rows))
            self.actors.append(actor)
            return actor

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make))

    def _open(self, actor: Any, pickled: bytes) -> Any:
        def call() -> None:
            self.n_opened += 1
            actor.work = pickle.loads(pickled)

        return Reference(actor, call)

    def _do(self, actor: Any, rows: Any) -> Any:
        def call() -> Any:
            self.n_done += 1
            if self.n_done in self.dies:
                raise WorkerLostError("its machine is gone")
            return actor.work(rows, lambda n: None)

        return Reference(actor, call)

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> Any:
        able = [one for one in references if one.actor.place < self.n_places]
        if not able:
            return [], references
        chosen = self.rng.choice(able)
        return [chosen], [one for one in references if one is not chosen]

    def get(self, reference: Any, timeout: float) -> Any:
        return reference.call()

    def put(self, value: Any) -> Any:
        return value

    def kill(self, actor: Any) -> None:
        pass


class Reference:
    def __init__(self, actor: Any, call: Callable[[], Any]) -> None:
        self.actor, self.call = actor, call
