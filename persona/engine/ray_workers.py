"""Shards handed out to Ray actors: one model each, opened once; a lost one costs its shard only.

The process that asked reads the input and keeps the results, so that the machines need share no
disk; only the model must be found by the same name on each.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from persona.engine.cluster import Room, joined
from persona.engine.shards import (
    Advance,
    Keep,
    Shard,
    ShardRunner,
    Work,
    loaded,
    machine_trouble,
    naming,
)
from persona.errors import EngineError, PersonaError
from persona.progress import counting

TRIES = 3
"""So often a shard is begun whose worker is lost; then it is what kills them."""
START_SECONDS = 600.0
"""So long a worker may wait for a machine and open its model while no other one works."""
FETCH_SECONDS = 120.0
"""So long a finished result may take to arrive before its machine counts as lost."""


class Worker:
    """What runs in an actor: the work, with the model it holds."""

    def __init__(self, threads: int) -> None:
        import torch

        from persona.progress import set_quiet

        torch.set_num_threads(threads)
        set_quiet(True)  # the bar is the asking process's

    def open(self, pickled: bytes) -> None:
        """Takes the work; the models in it are loaded here."""
        import ray

        self.work: Work = ray.cloudpickle.loads(pickled)

    def do(self, rows: Any) -> Any:
        return self.work(rows, _no_bar)


def _no_bar(n_rows: int) -> None:
    """The bar moves when the whole shard is there."""


@contextlib.contextmanager
def ray_workers(workers: int | None, address: str | None) -> Iterator[ShardRunner]:
    """Yields a runner that joins the cluster at the first shard; its actors end with the block."""
    with contextlib.ExitStack() as stack:
        pool: _Pool | None = None

        def run(shards: Sequence[Shard], work: Work, keep: Keep, description: str) -> None:
            nonlocal pool
            if not shards:
                return
            if pool is None:
                pool = _Pool(*stack.enter_context(joined(workers, address)))
                stack.callback(pool.end)
            with counting(description, sum(shard.n_rows for shard in shards)) as advance:
                _HandingOut(pool, shards, work, keep, advance).until_done()

        yield run


class _Pool:
    """The actors, and the making of new ones."""

    def __init__(self, ray: Any, room: Room) -> None:
        self.ray = ray
        options = {"num_cpus": room.cpus, "num_gpus": room.gpus, "scheduling_strategy": "SPREAD"}
        # max_restarts=0: Ray's own restarts and retries (max_task_retries, the model opened in the
        # constructor, ActorPool) do less. Measured with Ray 2.60.0, one of two machines gone: with
        # endless retries its shard was never done, however idle the other actor; with two, both
        # were used up in 5 s, before Ray knew of the death. Endless ones also never end for a shard
        # that kills whoever takes it, and what a constructor raises arrives without its type.
        self._make: Callable[[], Any] = lambda: (
            ray.remote(Worker).options(max_restarts=0, **options).remote(room.cpus)
        )
        self.actors = [self._make() for _ in range(room.workers)]

    def replace(self, actor: Any) -> Any:
        """A new actor in place of a lost one; it starts once there is room for it."""
        with contextlib.suppress(Exception):
            self.ray.kill(actor)
        self.actors.remove(actor)
        self.actors.append(self._make())
        return self.actors[-1]

    def end(self) -> None:
        for actor in self.actors:
            with contextlib.suppress(Exception):
                self.ray.kill(actor)


class _HandingOut:
    """One pass over some shards."""

    def __init__(
        self, pool: _Pool, shards: Sequence[Shard], work: Work, keep: Keep, advance: Advance
    ) -> None:
        self.pool, self.ray, self.keep, self.advance = pool, pool.ray, keep, advance
        self.left = deque(shards)
        self.work = self.ray.put(self.ray.cloudpickle.dumps(work))
        self.n_all = len(shards)
        self.tries: Counter[int] = Counter()
        self.n_lost_opening = 0
        self.failures: dict[int, Exception] = {}
        # What each actor is at: its shard, or None while it opens the work.
        self.running: dict[Any, tuple[Any, Shard | None]] = {}
        self.idle: list[Any] = []

    def until_done(self) -> None:
        """Raises: of the failures the one of the first shard; what was under way is kept first."""
        for actor in self.pool.actors[: self.n_all]:
            self._open(actor)
        while self._at_work():
            done, _ = self.ray.wait(list(self.running), num_returns=1, timeout=START_SECONDS)
            if not done and all(shard is None for _, shard in self.running.values()):
                self._fail(
                    None,
                    f"no worker has started within {START_SECONDS:.0f} s; the finished shards "
                    "are kept. Look at `ray status`",
                )
                break
            for reference in done:
                self._take(reference)
        if self.failures:
            raise self.failures[min(self.failures)]

    def _at_work(self) -> bool:
        """Whether to go on waiting: for a shard, or for a worker that may still take one."""
        on_shards = any(shard is not None for _, shard in self.running.values())
        return on_shards or (bool(self.left) and not self.failures)

    def _open(self, actor: Any) -> None:
        self.running[actor.open.remote(self.work)] = (actor, None)

    def _take(self, reference: Any) -> None:
        """Keeps a result, or sees to what went wrong; then hands out the next shard."""
        actor, shard = self.running.pop(reference)
        try:
            result = self.ray.get(reference, timeout=FETCH_SECONDS)
        except Exception as error:
            raised = self.ray.exceptions.RayTaskError  # the work; any other error of Ray is a loss
            if isinstance(error, self.ray.exceptions.RayError) and not isinstance(error, raised):
                self._lost(actor, shard, error)
                return
            self._failed(shard, getattr(error, "cause", None) or error)
        else:
            if shard is not None:
                self._keep(shard, result)
        self.idle.append(actor)
        self._hand_out()

    def _hand_out(self) -> None:
        """The next shard to an actor that has none, unless something failed."""
        if not self.idle or not self.left or self.failures:
            return
        actor, shard = self.idle.pop(), self.left.popleft()
        try:
            rows = loaded(shard)
        except PersonaError as error:
            self.failures[shard.number] = error
            return
        self.tries[shard.number] += 1
        self.running[actor.do.remote(rows)] = (actor, shard)

    def _keep(self, shard: Shard, result: Any) -> None:
        try:
            with naming(shard):
                self.keep(shard.number, result)
        except Exception as error:
            self.failures[shard.number] = error
        self.advance(shard.n_rows)

    def _lost(self, actor: Any, shard: Shard | None, error: Exception) -> None:
        """A worker is gone: its shard is done again, by another one."""
        reason, why = " ".join(str(error).split()), why_lost(error)
        if shard is None:
            self.n_lost_opening += 1
            if self.n_lost_opening >= TRIES:
                self._fail(
                    None,
                    f"a worker {why} {TRIES} times while it opened its model; try fewer --workers "
                    f"on a machine or a smaller model. Ray says: {reason[:200]}",
                )
                return
        elif self.tries[shard.number] >= TRIES:
            self._fail(
                shard,
                f"the worker {why} {TRIES} times; try a smaller --token-budget or fewer --workers "
                f"on a machine. The finished shards are kept. Ray says: {reason[:200]}",
            )
        else:
            self.left.appendleft(shard)
        if not self.failures:
            self._open(self.pool.replace(actor))
            self._hand_out()

    def _failed(self, shard: Shard | None, error: BaseException) -> None:
        """The work itself raised: bad input, or a machine in trouble."""
        if isinstance(error, PersonaError):
            self.failures[-1 if shard is None else shard.number] = error
            return
        line = machine_trouble(error) or f"{type(error).__name__}: {' '.join(str(error).split())}"
        self._fail(shard, line[:300])

    def _fail(self, shard: Shard | None, line: str) -> None:
        name = "opening the model on a worker" if shard is None else shard.name
        self.failures[-1 if shard is None else shard.number] = EngineError(f"{name}: {line}")


def why_lost(error: Exception) -> str:
    """Whether a worker "ran out of memory" or just "was lost"; Ray says so in many ways.

    Of any sudden death it names the system's memory as one possible cause, which tells nothing.
    """
    marks = ("OUT_OF_MEMORY", "low on memory")
    starved = type(error).__name__ == "OutOfMemoryError" or any(m in str(error) for m in marks)
    return "ran out of memory" if starved else "was lost"
