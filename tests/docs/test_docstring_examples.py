"""Every example in a docstring runs and gives what it shows; the public names have one.

An example that loads a model is run with the tiny one, so it shows only what no model changes.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import persona.models
import probes
import steering

ROOMS = ("persona.directions", "persona.models.in_memory", "probes", "steering")
WITH_EXAMPLE = {
    "persona": ["Direction", "extract", "load_vector", "pair_of"],
    "persona.directions": ["two_by_two", "planted_contrast"],
    "probes": [
        *("DifferenceOfMeansProbe", "LdaProbe", "LogisticProbe", "RidgeProbe", "GradedProbe"),
        *("AttentionPoolProbe", "PooledProbe", "MultiLayerProbe"),
        *("fit", "evaluate", "compare", "monitoring"),
    ],
    "probes.evaluation": ["text_baselines"],
    "probes.monitor": [
        *("score_tokens", "threshold_for", "find_drift", "turn_scores", "token_heat_map"),
    ],
    "probes.nulls": ["null_table"],
    "probes.separation": ["separation"],
    "probes.sweep": ["sweep_layers", "sweep_table", "sweep_figure"],
    "steering": ["steer", "add", "ablate", "restore"],
}


def found_in(room: str) -> list[doctest.DocTest]:
    """The examples of a package's modules, each at the module that defines it."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    package = importlib.import_module(room)
    inner = pkgutil.walk_packages(getattr(package, "__path__", []), f"{room}.")
    names = [room, *(m.name for m in inner)]
    modules = [importlib.import_module(name) for name in names]
    return [test for module in modules for test in finder.find(module) if test.examples]


EXAMPLES = [example for room in ROOMS for example in found_in(room)]


@pytest.fixture(autouse=True)
def default_model_is_tiny(monkeypatch, tiny_pair):
    monkeypatch.setattr(persona.models, "load_pair", lambda *_, **__: tiny_pair)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_gives_what_it_shows(example):
    with torch.random.fork_rng():
        told: list[str] = []
        failed = doctest.DocTestRunner().run(example, out=told.append).failed
    assert failed == 0, "".join(told)


@pytest.mark.parametrize("room", WITH_EXAMPLE)
def test_the_public_names_have_an_example(room):
    names = {example.name.rpartition(".")[2] for example in EXAMPLES}
    assert set(WITH_EXAMPLE[room]) - names == set()
    assert [n for n in WITH_EXAMPLE[room] if not hasattr(importlib.import_module(room), n)] == []


def test_an_example_whose_result_changed_fails():
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner().run(wrong, out=lambda _: None).failed == 1


def test_every_estimator_is_among_the_names():
    estimators = {name for name in probes.__all__ if name.endswith("Probe")} - {"FittedProbe"}
    assert estimators <= set(WITH_EXAMPLE["probes"])
    assert "steer" in steering.__all__
