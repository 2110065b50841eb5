"""Shards in this process: kept one by one, and the one that fails is named."""

import errno

import engine_cases as cases
import numpy as np
import pytest

from persona.engine import Engine, ShardFolder
from persona.engine.cluster import Room, room_for
from persona.errors import DataError, EngineError


def do(work, keep, n=4):
    with Engine().start() as run:
        run(cases.shards(n), work, keep, "Squaring")


def test_every_shard_is_kept_under_its_number():
    kept = {}
    do(cases.Squares(), kept.__setitem__)
    assert kept == {0: 0, 1: 1, 2: 4, 3: 9}


@pytest.mark.parametrize(
    ("how", "kind", "line"),
    [
        ("bad data", DataError, "data.jsonl, line 7: not JSON"),
        ("no memory", EngineError, "rows 129 to 192 (shard 2): out of memory; try a smaller --tok"),
        ("full disk", EngineError, "rows 129 to 192 (shard 2): no space left on the disk while wr"),
        ("a bug", KeyError, "'mean'"),
    ],
)
def test_a_failure_names_the_shard_and_those_before_it_are_kept(how, kind, line):
    kept = {}
    with pytest.raises(kind) as caught:
        do(cases.Squares(trouble=(2, how)), kept.__setitem__)
    assert str(caught.value).startswith(line)
    assert kept == {0: 0, 1: 1}


def test_a_disk_that_fills_up_is_named_with_the_shard_and_the_file(tmp_path, monkeypatch):
    folder = ShardFolder(tmp_path, {"job": 1})
    folder.write(0, {"x": np.arange(3)})

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("persona.files.os.fsync", full)
    keep = lambda number, result: folder.write(number, {"x": np.array(result)})  # noqa: E731
    with pytest.raises(EngineError) as caught:
        do(cases.Squares(), keep)
    assert str(caught.value) == (
        "rows 1 to 64 (shard 0): no space left on the disk while writing "
        f"{folder.path(0)}; free some space and run the same command again: the finished shards "
        "are kept"
    )
    kept = folder.read(0)
    assert kept is not None and kept["x"].tolist() == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000.npz", "job.json"]


def test_missing_shards_are_those_not_there_or_damaged(tmp_path):
    folder, shards = ShardFolder(tmp_path, {"job": 1}), cases.shards(4)
    for number in (0, 1, 3):
        folder.write(number, {"x": np.arange(number)})
    data = folder.path(1).read_bytes()
    folder.path(1).write_bytes(data[:-30] + bytes(30))
    folder.path(3).write_bytes(b"")
    assert [shard.number for shard in folder.missing(shards)] == [1, 2, 3]


def test_a_folder_of_another_job_is_refused_by_what_differs(tmp_path):
    ShardFolder(tmp_path, {"data": "a", "layers": [1], "seed": 0}, "a reading")
    with pytest.raises(DataError, match=r"other settings \(data is a there and b now; layers"):
        ShardFolder(tmp_path, {"data": "b", "layers": [2], "seed": 0}, "a reading")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"name": "dask"}, "unknown engine 'dask'; one of local, ray"),
        ({"workers": 2}, "belong to Ray: add --engine ray"),
        ({"name": "ray", "workers": 0}, "at least one worker is needed; got 0"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(options, why, unchecked_hints):
    with pytest.raises(EngineError, match=why):
        Engine(**options)


def nodes(*sizes):
    return [{"Resources": {"CPU": cpu, "GPU": gpu} if gpu else {"CPU": cpu}} for cpu, gpu in sizes]


@pytest.mark.parametrize(
    ("workers", "machines", "room"),
    [
        (None, [(8, 0), (8, 0)], Room(2, 8, 0)),
        (4, [(8, 0), (8, 0)], Room(4, 4, 0)),
        (3, [(8, 0), (4, 0)], Room(3, 4, 0)),
        (2, [(0, 0), (8, 0)], Room(2, 4, 0)),  # a head that does no work
        (None, [(64, 8), (64, 8)], Room(16, 1, 1)),
        (2, [(64, 8)], Room(2, 1, 1)),
    ],
)
def test_machines_are_shared_out_among_the_workers(workers, machines, room):
    assert room_for(workers, nodes(*machines)) == room


@pytest.mark.parametrize(
    ("workers", "machines", "why"),
    [
        (5, [(2, 0), (2, 0)], "5 workers need a processor each; the Ray cluster has 4"),
        (3, [(8, 2)], "3 workers need a GPU and a processor each; .* 2 GPUs and 8 processors"),
        (None, [(0, 0)], "no processor for work"),
    ],
)
def test_more_workers_than_there_is_room_for_are_refused(workers, machines, why):
    with pytest.raises(EngineError, match=why):
        room_for(workers, nodes(*machines))
