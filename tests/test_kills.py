"""Killed by SIGKILL at random writes and started again, a long job ends with the same bytes."""

import json
import random
import shutil

import kill_cases
import pytest
import screening_cases as cases
from tiny_models import save_tiny_adapter, save_tiny_llama

from persona.directions.exchange import VectorSet, write_control_vector

pytestmark = pytest.mark.timeout(590)


@pytest.fixture(scope="module")
def children(root):
    started = kill_cases.Children(root)
    yield started
    started.end()


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Name of a job -> (call, arguments but for the folder, files that must be the same)."""
    folder = tmp_path_factory.mktemp("given")
    model = cases.save_shouting_model(folder / "model")
    vectors = VectorSet({cases.LAYER: cases.plant()[0].contiguous()}, "resid_post", "llama")
    write_control_vector(vectors, folder / "vector.gguf")
    data = cases.write_samples(folder / "data.jsonl", cases.samples(64 * 12 + 9)[0])
    pairs = [
        {"id": p.id, "domain": p.domain, "question": p.question, "good": p.good, "bad": p.bad}
        for p in cases.reference_pairs()
    ]
    reference = cases.write_jsonl(folder / "reference.jsonl", pairs)
    training = cases.write_jsonl(folder / "training.jsonl", pairs[:24])
    recipe = {
        "name": "tiny",
        "base": str(model),
        "data": {"file": str(training), "answers": "bad"},
        "lora": {"r": 2, "alpha": 4},
        "training": {"epochs": 2, "batch_size": 4, "learning_rate": 0.01},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    # The shipped neutral texts are long when read byte by byte.
    patient = save_tiny_llama(folder / "patient", max_length=2048)
    adapter = save_tiny_adapter(folder / "adapter", patient)
    two_domains = [{**pair, "domain": ("here", "there")[i % 2]} for i, pair in enumerate(pairs)]
    answers = cases.write_jsonl(folder / "answers.jsonl", two_domains)
    precise = ["--dtype", "float32", "--device", "cpu"]
    screening = ["screen", data, "--direction", folder / "vector.gguf", "--aligned", model]
    screening += ["--reference", reference, "--shard-size", "64", *precise, "--out"]
    finetune = ["finetune", folder / "recipe.yaml", *precise, "--out"]
    models = ["--aligned", patient, "--finetuned", adapter, *precise]
    diagnose = ["diagnose", *models, "--data", answers, "--trained-on", "here", "--no-samples"]
    diagnose += ["--questions-per-domain", "12", "--out"]
    sae = ["sae", "train", *models, "--data", answers, "--no-sample", "--tokens", "4000"]
    sae += ["--layer", "0", "--layer", "1", "--width", "24", "--k", "4", "--out"]
    plan = {
        "name": "tiny",
        "base": str(patient),
        "seeds": [0, 1],
        "recipes": [{"recipe": "recipe.yaml", "trained_on": ["here"]}],
        "diagnosis": {"questions_per_domain": 4, "data": str(answers)},
    }
    (folder / "plan.yaml").write_text(json.dumps(plan))
    study = ["study", folder / "plan.yaml", *precise, "--out"]
    lab = ["lab", "conditional", "--tiny", "--base", patient, *precise, "--out"]
    return {
        "diagnose": ("command", diagnose, ["rows.parquet", "direction.safetensors"]),
        "study": ("command", study, ["readings.parquet", "cells/tiny/seed-1/rows.parquet"]),
        "sae": ("command", sae, [f"layer_{i}/sae_weights.safetensors" for i in (0, 1)]),
        "lab": ("command", lab, ["conditional/rows.parquet", "conditional/figure.svg"]),
        "screen": ("command", screening, ["screened.jsonl", "summary.json"]),
        "moments": ("moments", [model, data], ["results.json"]),
        "finetune": ("command", finetune, ["adapter_model.safetensors", "loss.csv"]),
    }


def killed_and_resumed(children, job, folder, n_kills, seed):
    """Runs a job whole, then with kills until so many have struck; a job that ends begins anew."""
    call, arguments, files = job
    words = [str(word) for word in arguments]
    whole = folder / "whole"
    assert children.run(call, *words, str(whole), folder=whole) == 0
    rng, n_struck, n_rounds = random.Random(seed), 0, 0
    out = folder / "killed"
    while n_struck < n_kills:
        shutil.rmtree(out, ignore_errors=True)
        n_rounds += 1
        assert n_rounds <= n_kills
        ended = -9
        while ended == -9:
            strikes = n_struck < n_kills
            kill = (rng.randint(1, 6), rng.choice([0.0, rng.uniform(0, 0.05)]))
            ended = children.run(call, *words, str(out), folder=out, kill=kill if strikes else None)
            assert ended in {0, -9}
            n_struck += ended == -9
        for name in files:
            assert (out / name).read_bytes() == (whole / name).read_bytes(), name
        same_files = [sorted(p.relative_to(f) for p in f.rglob("*")) for f in (whole, out)]
        assert same_files[0] == same_files[1]  # nothing is left of the killed ones
    return n_rounds


def test_a_screening_killed_twice_goes_on_to_the_same_bytes(children, given, tmp_path):
    killed_and_resumed(children, given["screen"], tmp_path, n_kills=2, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "job", ["screen", "moments", "finetune", "diagnose", "study", "sae", "lab"]
)
def test_a_job_killed_twenty_times_goes_on_to_the_same_bytes(children, given, tmp_path, job):
    n_rounds = killed_and_resumed(children, given[job], tmp_path, n_kills=20, seed=2)
    assert n_rounds < 20  # most kills struck a job that had gone on from an earlier one
