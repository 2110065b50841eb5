"""The version of vLLM that is there is held against the tested ones, without importing it."""

import pytest

from persona.errors import EngineError
from persona.vllm import InstalledVllm, installed_vllm, require_vllm
from persona.vllm import installed as module


@pytest.mark.parametrize(
    ("version", "fault"),
    [
        ("0.30.0", None),
        ("0.30.4+cpu", None),
        ("0.29.9", "too old"),
        ("0.31.0rc1", "too new"),
        ("1.0", "too new"),
        ("unknown", "too old"),
    ],
)
def test_only_the_tested_range_is_taken(monkeypatch, version, fault):
    monkeypatch.setattr(module, "version", lambda name: version)
    assert (installed_vllm().fault or "none") == (
        "none" if fault is None else f"vllm {version} is {fault}: tested are 0.30 to below 0.31"
    )


def test_what_is_missing_is_said_with_how_to_get_it(monkeypatch):
    monkeypatch.setattr(module, "installed_vllm", lambda: None)
    with pytest.raises(EngineError, match=r"vLLM is not installed; .*constraints-vllm\.txt"):
        require_vllm()


def test_another_version_is_refused_with_the_range(monkeypatch):
    monkeypatch.setattr(module, "installed_vllm", lambda: InstalledVllm("vllm", "0.33.0"))
    with pytest.raises(EngineError, match=r"vllm 0\.33\.0 is too new: tested are 0\.30"):
        require_vllm()


@pytest.mark.vllm
def test_the_environment_of_these_tests_has_a_tested_version():
    assert require_vllm().fault is None
