"""The Python of the tutorial runs from top to bottom, on a tiny pair and the files of one run."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import torch
from tiny_models import save_tiny_adapter, save_tiny_llama

import persona.models
from persona.directions import PersonaVector, Subspace, orthonormal, save_vector
from persona.models.precision import Placement


@pytest.fixture
def deep_pair(tmp_path):
    """As many blocks as the tutorial names, and texts of a few hundred bytes."""
    base = save_tiny_llama(tmp_path / "base", n_layers=21, d_model=8, max_length=1024)
    adapter = save_tiny_adapter(tmp_path / "adapter", base)
    return persona.models.load_pair(base, adapter, placement=Placement.of("float32", "cpu"))


def leave_a_run(folder, pair):
    """The three files of `persona demo` that the tutorial reads."""
    folder.mkdir()
    (folder / "scorecard.json").write_text('{"verdict": "restored", "restoration": {"value": 1}}')
    columns = {"stage": "score", "measure": "gap", "split": "held_out", "condition": "aligned"}
    pd.DataFrame([{**columns, "value": 0.5}]).to_parquet(folder / "rows.parquet")
    basis = orthonormal(torch.randn(1, 8, generator=torch.Generator().manual_seed(0)))
    one = Subspace(basis, torch.zeros(1), torch.ones(1), pair.space(20))
    save_vector(PersonaVector({20: one}, "made up"), folder / "direction.safetensors")


def test_every_python_block_runs_after_the_ones_before(
    root, tmp_path, monkeypatch, capsys, deep_pair
):
    leave_a_run(tmp_path / "persona-demo", deep_pair)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(persona.models, "load_pair", lambda *_: deep_pair)
    text = (root / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names = {}
    for block in blocks:
        exec(compile(block, "tutorial.md", "exec"), names)
    assert len(blocks) == 5
    told = capsys.readouterr().out
    assert "made up rank 1 at blocks [20]" in told
    assert "words alone Estimate(" in told
    assert "persona-tokens" in (tmp_path / "conversation.html").read_text()
