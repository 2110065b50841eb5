"""A tiny aligned model with room for the shipped texts, byte by byte."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny_llama

from persona.models.precision import Placement
from steering.lab import LabSettings, Workbench


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def long_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "long-llama"
    return save_tiny_llama(folder, n_layers=3, d_model=16, max_length=2048)


@pytest.fixture(scope="package")
def settings(long_llama, tmp_path_factory: pytest.TempPathFactory) -> LabSettings:
    """One folder for the whole package: what one test has fine-tuned the next one reads."""
    out = tmp_path_factory.mktemp("lab")
    return LabSettings(out, str(long_llama), placement=Placement.of("float32", "cpu"), tiny=True)


@pytest.fixture
def bench(settings) -> Workbench:
    return Workbench(settings)
