"""Shards handed out to workers that end in any order, die, or never start: a Ray of one process."""

import engine_cases as cases
import pytest
from fake_ray import FakeRay

from persona.engine import ray_workers
from persona.errors import DataError, EngineError

N = 12
ALL = {i: i**2 for i in range(N)}


def done(monkeypatch, ray, work=None, keep=None, workers=3, n_passes=1):
    monkeypatch.setattr(ray_workers, "joined", ray.joined)
    kept = {}
    with ray_workers.ray_workers(workers, None) as run:
        for _ in range(n_passes):
            run(cases.shards(N), work or cases.Squares(), keep or kept.__setitem__, "Squaring")
    return kept


@pytest.mark.parametrize("workers", [1, 2, 5, 20])
@pytest.mark.parametrize("seed", range(3))
def test_every_shard_is_done_once_whatever_ends_first(monkeypatch, workers, seed):
    ray = FakeRay(seed)
    assert done(monkeypatch, ray, workers=workers) == ALL
    assert ray.n_done == N
    assert ray.n_opened <= min(workers, N)  # more workers than shards would open for nothing


@pytest.mark.parametrize("seed", range(5))
def test_a_lost_worker_costs_its_shard_alone(monkeypatch, seed):
    ray = FakeRay(seed, dies=(2, 7))
    assert done(monkeypatch, ray) == ALL
    assert ray.n_done == N + 2
    assert len(ray.actors) == 3 + 2


@pytest.mark.parametrize("seed", range(5))
def test_those_that_are_left_do_it_where_no_new_worker_can_start(monkeypatch, seed):
    for dies in ((1,), (N,), (1, 4)):  # the first shard, the last, and two of three workers
        assert done(monkeypatch, FakeRay(seed, n_places=3, dies=dies)) == ALL


def test_a_run_ends_where_no_worker_ever_starts(monkeypatch):
    with pytest.raises(EngineError, match=r"no worker has started within 600 s; .* `ray status`"):
        done(monkeypatch, FakeRay(n_places=0))


def test_a_shard_that_loses_three_workers_is_named(monkeypatch):
    kept = {}
    with pytest.raises(EngineError) as caught:
        done(monkeypatch, FakeRay(dies=(1, 2, 3)), keep=kept.__setitem__, workers=1)
    assert str(caught.value).startswith("rows 1 to 64 (shard 0): the worker was lost 3 times; try")
    assert str(caught.value).endswith("Ray says: its machine is gone")
    assert kept == {}


@pytest.mark.parametrize("seed", range(5))
def test_the_first_failed_shard_is_named_and_what_was_under_way_is_kept(monkeypatch, seed):
    kept = {}
    ray = FakeRay(seed)
    with pytest.raises(DataError, match="data.jsonl, line 7: not JSON"):
        done(monkeypatch, ray, cases.Squares(trouble=(4, "bad data")), kept.__setitem__)
    assert len(kept) == ray.n_done - 1
    assert set(range(2)) <= set(kept) and 4 not in kept


def test_a_result_that_cannot_be_kept_ends_the_run(monkeypatch):
    kept = {}

    def keep(number, result):
        if number == 3:
            raise OSError(28, "No space left on device", "/results/000003.npz")
        kept[number] = result

    with pytest.raises(EngineError) as caught:
        done(monkeypatch, FakeRay(), keep=keep)
    assert str(caught.value).startswith(
        "rows 193 to 256 (shard 3): no space left on the disk while writing /results/000003.npz"
    )
    assert kept.keys() >= {0}


def test_a_second_pass_goes_to_the_same_workers(monkeypatch):
    ray = FakeRay()
    assert done(monkeypatch, ray, n_passes=2) == ALL
    assert len(ray.actors) == 3 and ray.n_done == 2 * N


def test_nothing_is_started_for_no_shards(monkeypatch):
    def joined(*_):
        raise AssertionError("a cluster was joined")

    monkeypatch.setattr(ray_workers, "joined", joined)
    with ray_workers.ray_workers(2, None) as run:
        run([], cases.Squares(), {}.__setitem__, "Squaring")
