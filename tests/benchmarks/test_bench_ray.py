"""The benchmark of Ray workers runs, on a tiny model, and records the row it promises."""

import importlib

import pytest
import screening_cases as cases


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_efficiency_of_two_workers_is_recorded(root, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    bench = importlib.import_module("bench_ray")
    rows = {}
    monkeypatch.setattr(
        bench, "record", lambda name, value, unit, **more: rows.update({name: (value, more)})
    )
    pair = cases.shouting_pair(cases.save_shouting_model(tmp_path / "model"))
    data = bench.write_answers(tmp_path / "answers.jsonl", 128)
    bench.measure(pair, data, 1, repetitions=1)
    [(name, (value, more))] = rows.items()
    assert name == "ray.two_workers.efficiency"
    assert value > 0 and "128 answers in 2 shards" in more["note"]
