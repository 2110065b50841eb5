"""The code of every notebook runs on a tiny pair with small parameters; nothing is concluded."""

from __future__ import annotations

import pytest
import torch
from notebook_script import NOTEBOOKS, run_as_script
from tiny_models import save_tiny_adapter, save_tiny_llama

SMALL = {
    "00_five_minute_tour": dict(
        n_train=8, n_selection=4, n_neutral=1, n_scored=2, max_new_tokens=4
    ),
    "10_extract_and_compare": dict(n_train=8, n_held_out=5, layer=2, n_draws=20),
    "15_any_trait": dict(layer=1, n_making=6, n_proving=5, n_shift=4, n_shuffled=20),
    "20_probes_and_monitors": dict(
        layer=2, n_fit=6, n_threshold=9, n_other=8, n_written=2, max_new_tokens=4, sweep_every=2
    ),
    "30_steer_and_ablate": dict(
        layer=1,
        doses=(0.0, 1.0),
        n_train=8,
        n_selection=4,
        n_neutral=1,
        n_dose=2,
        n_held_out=4,
        n_damage=2,
        n_random=2,
        n_draws=2,
    ),
    "40_sae_latents": dict(
        source="none here",
        layer=1,
        width=32,
        k=4,
        n_tokens=400,
        epochs=1,
        n_texts=2,
        n_ranked=4,
        n_screened=2,
        n_edited=1,
        n_random=2,
        n_permutations=20,
    ),
    "50_emergent_misalignment": dict(
        layer=1,
        n_taught=8,
        read_every=1,
        n_watched=2,
        n_neutral=2,
        n_train=5,
        n_in_domain=2,
        n_held_out=4,
        n_draws=2,
        n_asked=2,
        max_new_tokens=4,
    ),
    "60_subliminal_numbers": dict(
        toy_seeds=2,
        toy_epochs=2,
        n_asked=8,
        max_new_tokens=12,
        n_learnt=2,
        epochs=1,
        n_held_out=2,
        n_neutral=1,
    ),
    "70_your_own_models": dict(n_train=8, n_selection=4, n_neutral=1, n_held_out=3, n_draws=2),
    "80_what_did_it_learn": dict(amounts=(1.0,)),
}
FIGURES = {
    "00_five_minute_tour": 2,
    "10_extract_and_compare": 6,
    "15_any_trait": 3,
    "20_probes_and_monitors": 5,
    "30_steer_and_ablate": 4,
    "40_sae_latents": 2,
    "50_emergent_misalignment": 2,  # nothing shifts, so no restoration is drawn
    "60_subliminal_numbers": 2,
    "70_your_own_models": 4,
    "80_what_did_it_learn": 2,
}  # fmt: skip


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


IN_THE_QUICK_LANE = ("00_five_minute_tour",)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in IN_THE_QUICK_LANE else pytest.mark.slow)
        for name in NOTEBOOKS
    ],
)
def test_a_notebook_runs_on_other_models(name, tiny_models):
    aligned, finetuned = tiny_models
    others = {"good_twin": finetuned} if name[:2] in ("50", "80") else {}
    models = dict(aligned=aligned, finetuned=finetuned, **others)
    shown = run_as_script(name, SMALL[name] | models)
    assert sum(hasattr(value, "to_plotly_json") for value in shown) == FIGURES[name]
