"""Shards on a real Ray cluster of two machines: the same results, and a lost worker costs one."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time

import engine_cases as cases
import pytest
import screening_cases
import torch

import probes
from persona.activations import extract_moments
from persona.behaviour import score_files
from persona.engine import Engine
from persona.engine.ray_workers import why_lost
from persona.errors import DataError, EngineError, ModelError
from persona.models import load_pair
from persona.models.precision import Placement

pytestmark = pytest.mark.timeout(500)
MEMORY = 100 << 20
NODE = {"num_cpus": 1, "object_store_memory": MEMORY}
RAY = Engine("ray", workers=2)


@pytest.fixture(scope="module")
def cluster(root):
    """Two machines with one processor each, both processes on this one; this process is joined."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{root}{os.pathsep}{root / 'tests'}")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        quick = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}
        head = {**NODE, "include_dashboard": False, "_system_config": quick}
        two = Cluster()
        try:
            for options in (head, NODE):
                started(two, options)
            ray.init(address=two.address, log_to_driver=False, logging_level=logging.ERROR)
            yield two
        finally:
            ray.shutdown()
            two.shutdown()


def started(cluster, options):
    """Ray gives a machine 30 seconds to start, which a busy computer may need twice."""
    for n_left in (2, 1, 0):
        try:
            return cluster.add_node(**options)
        except Exception as error:
            if not n_left or "timed out" not in str(error):
                raise


def squared(work, n=6, keep=None, engine=RAY):
    kept = {}
    with engine.start() as run:
        run(cases.shards(n), work, keep or kept.__setitem__, "Squaring")
    return kept


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return screening_cases.save_shouting_model(tmp_path_factory.mktemp("models") / "shouting")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    return screening_cases.write_samples(path, screening_cases.samples(300)[0])


def equal(first, second):
    assert first.count == second.count
    torch.testing.assert_close(first.mean_LD, second.mean_LD, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(first.variance_LD, second.variance_LD, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_moments_of_two_workers_equal_those_of_one_process(cluster, model, data):
    pair = screening_cases.shouting_pair(model)
    here = extract_moments(pair, data, [0, 2], shard_size=64)
    there = extract_moments(pair, data, [0, 2], shard_size=64, engine=RAY)
    assert there.count == 300
    equal(there, here)


@pytest.mark.slow
def test_a_killed_worker_costs_its_shard_and_that_is_done_again(cluster, tmp_path):
    kept = squared(cases.Squares(trouble=(3, "dies"), mark=tmp_path))
    assert kept == {i: i**2 for i in range(6)}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_is_named_and_the_rest_is_kept(cluster, tmp_path):
    kept = {}
    with pytest.raises(EngineError, match=r"\(shard 3\): the worker was lost 3 times") as caught:
        squared(cases.Squares(0.2, (3, "dies"), tmp_path, n_deaths=9), keep=kept.__setitem__, n=20)
    assert "\n" not in str(caught.value)
    assert 3 not in kept and kept.keys() >= {0, 1, 2}
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "kind", "line"),
    [
        ("bad data", DataError, "data.jsonl, line 7: not JSON"),
        ("no memory", EngineError, "rows 129 to 192 (shard 2): out of memory; try a smaller"),
        ("full disk", EngineError, "rows 129 to 192 (shard 2): no space left on the disk"),
        ("a bug", EngineError, "rows 129 to 192 (shard 2): KeyError: 'mean'"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_one_line_here(cluster, how, kind, line):
    kept = {}
    with pytest.raises(kind) as caught:
        squared(cases.Squares(trouble=(2, how)), keep=kept.__setitem__)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
    assert kept.keys() >= {0}


@pytest.mark.slow
def test_a_machine_killed_in_the_middle_changes_nothing(cluster, model, data, tmp_path):
    pair = screening_cases.shouting_pair(model)
    here = extract_moments(pair, data, [0, 2], shard_size=64)
    lost = cluster.list_all_nodes()[-1]

    def kill_once_there_is_a_result():
        while not list(tmp_path.glob("*.npz")):
            time.sleep(0.01)
        cluster.remove_node(lost, allow_graceful=False)

    killer = threading.Thread(target=kill_once_there_is_a_result)
    killer.start()
    try:
        there = extract_moments(pair, data, [0, 2], shard_size=64, engine=RAY, out=tmp_path)
    finally:
        killer.join(60)
        started(cluster, NODE)
    equal(there, here)
    squared_slowly = squared(cases.Squares(0.05), n=10)  # the machine that came in its place works
    assert squared_slowly == {i: i**2 for i in range(10)}


@pytest.mark.slow
def test_scores_and_screenings_of_two_workers_are_the_same_bytes(cluster, model, data, tmp_path):
    pair = screening_cases.shouting_pair(model)
    here = score_files(pair, data, shard_size=64)
    there = score_files(pair, data, shard_size=64, engine=RAY)
    assert there.equals(here)
    direction = screening_cases.planted_direction(pair)
    given = {"reference": screening_cases.reference_pairs(), "n_draws": 50, "shard_size": 64}
    for name, engine in (("here", None), ("there", RAY)):
        probes.screen(pair, data, direction, out=tmp_path / name, engine=engine, **given)
    for name in ("screened.jsonl", "summary.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


@pytest.mark.slow
def test_a_worker_that_cannot_find_the_same_model_says_so(cluster, model, data, tmp_path):
    import shutil

    moved = shutil.copytree(model, tmp_path / "model")
    pair = screening_cases.shouting_pair(moved)
    shutil.rmtree(moved)
    with pytest.raises(ModelError, match="no such model file or folder") as caught:
        extract_moments(pair, data, [0], engine=RAY)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_more_workers_than_the_cluster_has_room_for_are_refused(cluster):
    with pytest.raises(EngineError, match="9 workers need a processor each; the Ray cluster has 2"):
        squared(cases.Squares(), engine=Engine("ray", workers=9))


def test_weights_that_differ_from_those_the_run_began_with_are_refused(model):
    pair = load_pair(model, model, placement=Placement.of("float32", "cpu"), in_turn=True)
    reload, arguments = pair.__reduce__()
    again = reload(*arguments)
    assert again.revisions == pair.revisions and again.names == pair.names
    other = {**pair.revisions, "aligned": "0123456789ab"}
    with pytest.raises(ModelError, match="but the run began with 0123456789ab; put the same files"):
        reload(arguments[0], other)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:9", "no Ray cluster at 127.0.0.1:9: Connection refused. Start one with"),
        ("cluster", "--ray-address must be HOST:PORT or auto; got 'cluster'"),
        ("head:six", "--ray-address must be HOST:PORT or auto; got 'head:six'"),
    ],
)
def test_an_address_without_a_cluster_is_named_at_once(address, why, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    started = time.perf_counter()
    with pytest.raises(EngineError) as caught:
        squared(cases.Squares(), engine=Engine("ray", address=address))
    assert str(caught.value).startswith(why) and "\n" not in str(caught.value)
    assert time.perf_counter() - started < 10


LISTENERS = """
import json, os, psutil
from pathlib import Path
from persona.engine.cluster import joined

with joined(2, None) as (ray, room):
    ray.get([ray.remote(lambda: os.getpid()).remote() for _ in range(2)])
    folder = ray._private.worker._global_node.get_session_dir_path()
    private = oct(os.stat(Path(folder).parents[1]).st_mode & 0o777)
    listening = [
        [process.name(), connection.laddr.ip]
        for process in psutil.Process().children(recursive=True) + [psutil.Process()]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    kept = os.environ.get("RAY_AUTH_TOKEN", "")
left = [name for name in os.environ if name.startswith("RAY_AUTH")]
print(json.dumps([listening, private, Path(folder).exists(), len(kept), left]))
"""


@pytest.mark.slow
def test_a_cluster_of_this_machine_listens_on_the_loopback_and_leaves_nothing(root, tmp_path):
    pytest.importorskip("ray")
    pytest.importorskip("psutil")
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"HOME": str(tmp_path), "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    listening, mode, left, n_token, variables = json.loads(done.stdout.splitlines()[-1])
    names = {name for name, _ in listening}
    assert {"gcs_server", "raylet"} <= names and len(listening) >= 6
    assert {ip.removeprefix("::ffff:") for _, ip in listening} == {"127.0.0.1"}
    assert (mode, left, n_token, variables) == ("0o700", False, 64, [])
    assert list(tmp_path.iterdir()) == []  # no ~/.ray


TWO_CLUSTERS = """
from persona.engine.cluster import joined
from ray.cluster_utils import Cluster

def work(ray):
    class Worker:
        def answer(self):
            return 42
    actor = ray.remote(Worker).options(max_restarts=0).remote()
    return ray.get(actor.answer.remote())

with joined(1, None) as (ray, room):
    answers = [work(ray)]
other = Cluster()
try:
    other.add_node(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False)
    with joined(1, other.address) as (ray, room):
        answers.append(work(ray))
finally:
    other.shutdown()
print(answers)
"""


@pytest.mark.slow
def test_after_a_cluster_of_its_own_a_process_can_join_another(root, tmp_path):
    pytest.importorskip("ray")
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"HOME": str(tmp_path), "PYTHONPATH": str(root), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_CLUSTERS], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[42, 42]"


@pytest.mark.parametrize(
    ("trouble", "n_tries"),
    [("no\nroom", 1), ("The current node timed out\nduring startup.", 3)],
)
def test_a_busy_machine_is_given_more_than_one_start_and_trouble_is_one_line(
    monkeypatch, trouble, n_tries
):
    ray = pytest.importorskip("ray")
    tries = []

    def init(**options):
        tries.append(options["_temp_dir"])
        raise Exception(trouble)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(EngineError, match="Ray could not be started on this machine: ") as told:
        squared(cases.Squares())
    assert "\n" not in str(told.value)
    assert len(set(tries)) == n_tries


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(EngineError, match=r"not installed; pip install -e .*\[ray\]"):
        with contextlib.ExitStack() as stack:
            stack.enter_context(Engine("ray").start())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "The actor is dead because its worker process has died. Worker exit type: "
            "NODE_OUT_OF_MEMORY Worker exit detail: Task was killed due to the node running low "
            "on memory.",
            "ran out of memory",
        ),
        (
            "The actor died unexpectedly before finishing this task. Worker exit type: "
            "SYSTEM_ERROR. There are some potential root causes. (1) The process is killed by "
            "SIGKILL by OOM killer due to high memory usage. (2) ray stop --force is called.",
            "was lost",
        ),
    ],
)
def test_memory_is_blamed_only_where_ray_found_it_short(text, why):
    assert why_lost(RuntimeError(text)) == why
