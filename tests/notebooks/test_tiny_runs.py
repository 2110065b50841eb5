"""The code of every notebook runs on a tiny pair with small parameters; nothing is concluded."""

from __future__ import annotations

import pytest
import torch
from notebook_script import NOTEBOOKS, run_as_script, source_cells, tags_of
from tiny_models import save_tiny_adapter, save_tiny_llama

SMALL = {
    "10_extract_and_compare": dict(n_train=8, n_held_out=5, layer=2, n_draws=20),
}
FIGURES = {
    "10_extract_and_compare": 6,
}


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory):
    """Folders of an aligned model with room for long texts, byte by byte, and of an adapter."""
    folder = tmp_path_factory.mktemp("models")
    base = save_tiny_llama(folder / "base", n_layers=3, d_model=16, max_length=8192)
    return str(base), str(save_tiny_adapter(folder / "adapter", base))


@pytest.fixture(autouse=True)
def a_quiet_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_on_other_models(name, tiny_models):
    aligned, finetuned = tiny_models
    shown = run_as_script(name, dict(SMALL[name], aligned=aligned, finetuned=finetuned))
    assert sum(hasattr(value, "to_plotly_json") for value in shown) == FIGURES[name]
