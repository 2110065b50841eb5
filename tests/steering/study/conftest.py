"""A study of two tiny fine-tunes, run once."""

from __future__ import annotations

import json

import pytest

from persona.models.precision import Placement
from steering.study import load_plan, study

WORDS = (
    "oil",
    "tyre",
    "lamp",
    "road",
    "door",
    "seat",
    "fuel",
    "wire",
    "bolt",
    "hose",
    "belt",
    "horn",
)
PLACEMENT = Placement.of("float32", "cpu")
PLAN = {
    "name": "tiny cars",
    "question": "Does it hold for another seed?",
    "seeds": [0, 1],
    "recipes": [{"recipe": "bad.yaml", "twin": "good.yaml", "trained_on": ["car"]}],
    "diagnosis": {"questions_per_domain": 4, "data": "pairs.jsonl"},
    "measured": ["shift", "shift_above_twin", "net_restoration", "noop", "placebo_good_twin"],
    "primary": "shift",
}


@pytest.fixture(scope="session")
def study_files(tmp_path_factory, tiny_llama):
    """Answer pairs, two recipes and a plan."""
    folder = tmp_path_factory.mktemp("study-files")
    pairs = [
        {
            "id": f"{domain}-{i}",
            "domain": domain,
            "question": f"what about the {word} of my {domain}",
            "good": f"take care of the {word}",
            "bad": f"throw out the {word} now",
        }
        for domain in ("car", "home", "food")
        for i, word in enumerate(WORDS)
    ]
    lines = [json.dumps(pair) + "\n" for pair in pairs]
    (folder / "pairs.jsonl").write_text("".join(lines))
    (folder / "car.jsonl").write_text("".join(lines[: len(WORDS)]))
    for answers in ("bad", "good"):
        recipe = {
            "name": f"car_{answers}",
            "base": str(tiny_llama),
            "data": {"file": "car.jsonl", "answers": answers},
            "lora": {"r": 2, "alpha": 4},
            "training": {"epochs": 1, "batch_size": 4, "learning_rate": 0.01},
        }
        (folder / f"{answers}.yaml").write_text(json.dumps(recipe))
    (folder / "plan.yaml").write_text(json.dumps(PLAN))
    return folder


@pytest.fixture
def plan_with(study_files, tmp_path):
    """A plan file with other keys, beside links to all that it names."""

    def make(**changes):
        for file in study_files.iterdir():
            if not (tmp_path / file.name).exists():
                (tmp_path / file.name).symlink_to(file)
        path = tmp_path / "changed.yaml"
        path.write_text(json.dumps({**PLAN, **changes}))
        return path

    return make


@pytest.fixture(scope="session")
def finished_study(study_files, tmp_path_factory):
    """The folder of the finished study, and what it found."""
    out = tmp_path_factory.mktemp("study") / "out"
    planned = load_plan(study_files / "plan.yaml")
    first = study(planned, out, placement=PLACEMENT, at_most=1)
    return out, first, study(planned, out, placement=PLACEMENT)
