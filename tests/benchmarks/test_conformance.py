"""The conformance table: its reference, two of its paths, its verdicts and its page."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch):
    """Imports a script of benchmarks/ or of benchmarks/conformance/ by its name."""
    for folder in (BENCHMARKS / "conformance", BENCHMARKS):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module


def test_the_reference_is_what_transformers_computes(scripts, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    models = scripts("conformance_models")
    ids = models.prompts()[0]
    for folder in models.save_models(tmp_path).values():
        model = AutoModelForCausalLM.from_pretrained(folder).double().eval()
        with torch.no_grad():
            out = model(torch.tensor([ids]), output_hidden_states=True)
        resid, log_probs = models.Reference.read(folder).run(ids)
        assert (out.hidden_states[models.BLOCK + 1][0] - resid).abs().max() < 1e-5
        assert (out.logits[0].log_softmax(-1) - log_probs).abs().max() < 1e-5


def test_two_paths_are_told_apart_and_both_stand_on_the_page(scripts, tmp_path: Path) -> None:
    """A hook that adds to the whole output, and one that adds to row 0 of a batch alone."""
    conformance, worker = scripts("conformance"), scripts("worker")
    task = conformance.Task(tmp_path, families=("llama",)).write()
    job, rows = task.job("llama"), {}
    for path in ("hook", "hook_first"):
        worker.main(path, str(job))
        row = conformance.row_of(job, "")
        cell = {"path": path, "pins": [], "loose": False, "date": "2026-11-28"}
        rows[path] = cell | {"families": {"llama": json.loads(json.dumps(row))}}
    facts = rows["hook"]["families"]["llama"]["facts"]
    assert facts["written"] == [facts["n_prompt"], 1, 1, 1, 1, 1]
    assert facts["batch_written"] == [[27, 1, 1, 1, 1, 1], [10, 1, 1, 1, 1, 1]]
    assert max(facts["reference"], facts["cached_uncached"], facts["batch_single"]) < 1e-4
    verdicts = {path: row["families"]["llama"]["verdict"] for path, row in rows.items()}
    assert verdicts == {
        "hook": "steered everywhere",
        "hook_first": "steered everywhere; wrong in a padded batch",
    }
    page = scripts("conformance_page").render(rows, {})
    for verdict in verdicts.values():
        assert f"| {verdict} |" in page
    assert "27, 1, 1, 1, 1, 1" in page


def test_a_path_is_seen_where_its_library_takes_all_hooks_out(scripts, tmp_path: Path) -> None:
    seen, hook = scripts("seen"), scripts("path_hook")
    task = scripts("conformance").Task(tmp_path, families=("llama",)).write()
    job = seen.Job.read(task.job("llama"))

    class TakesHooksOut(hook.Path):
        hooks_are_kept = False

        def generate(self, ids, mask, cached: bool):
            for module in seen.places(self.model, job):
                module._forward_hooks.clear()
                module._forward_pre_hooks.clear()
            return super().generate(ids, mask, cached)

    traces = [
        kind(job, steered=True).trace(job.prompts[:1], True) for kind in (hook.Path, TakesHooksOut)
    ]
    assert traces[0].passes == traces[1].passes == [27, 1, 1, 1, 1, 1]
    assert (traces[0].log_probs == traces[1].log_probs).all()
    for one, other in zip(traces[0].residual, traces[1].residual, strict=True):
        assert (one == other).all()


def test_verdicts_name_what_a_path_left_out(scripts) -> None:
    verdicts = scripts("conformance_verdicts")

    def said(written: list[int], **facts) -> str:
        whole = verdicts.Facts(written=written, n_prompt=5, expected=5, reference=1.0, **facts)
        return verdicts.verdict(whole, {})

    assert said([0, 0, 0]) == "silently unsteered"
    assert said([5, 0, 0]) == "prompt only"
    assert said([0, 1, 1]) == "answer only"
    assert said([5, 1, 0]) == said([4, 1, 1]) == said([5, 1, 1], partly=1) == "partly steered"
    assert said([5, 0, 0], partly=2) == "partly steered"
    assert said([5, 0, 0], partly=2, unsteered=1.0) == "generates wrongly, steered or not"
    assert said([5, 1, 1]) == "steered, but the logits are wrong"
    assert verdicts.verdict(verdicts.Facts(), {"cached": "ValueError: no"}) == "raises"


def test_a_release_that_cannot_be_installed_keeps_its_reason(
    scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conformance = scripts("conformance")

    def refuse(*_: object, **__: object) -> None:
        raise conformance.CannotInstall("ERROR: no matching distribution")

    monkeypatch.setattr(conformance, "environment", refuse)
    cell = conformance.Cell("repeng", ("repeng==0.0.0",))
    rows = conformance.measure(cell, conformance.Task(tmp_path), tmp_path)
    assert rows["llama"]["verdict"] == "cannot be installed"
    assert "no matching distribution" in rows["llama"]["errors"]["install"]
