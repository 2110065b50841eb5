"""Chunks of questions: scored once, kept, and the same rows after a journey to another process."""

import os
import subprocess
import sys

import pytest

from persona.behaviour import Condition
from persona.data.types import AnswerPair
from persona.engine.shards import run_here
from persona.stages import Workspace
from steering import add
from steering.diagnosis.chunks import SCORE_CHUNK, ChunkScoring, score_in_chunks
from steering.edits.steer import steered_by


@pytest.fixture(scope="module")
def scoring(tiny_pair):
    import torch

    from persona.directions import Direction

    vector = torch.randn(tiny_pair.d_model, generator=torch.Generator().manual_seed(0))
    pushed = steered_by(add(Direction(vector, tiny_pair.space(1), "any"), 4.0))
    conditions = (Condition("plain", "finetuned"), Condition("pushed", "finetuned", pushed, 1))
    return ChunkScoring(tiny_pair, conditions, "held_out", kl=True, token_budget=256)


def questions(n):
    return [
        AnswerPair(f"q{i}", "d", f"what is {i}?", f"it is {i}", f"no idea {i}") for i in range(n)
    ]


def scored(workspace, scoring, run=run_here, n=SCORE_CHUNK + 3):
    return score_in_chunks(run, workspace, "score", questions(n), scoring, "Scoring questions")


def test_chunks_are_kept_with_their_time_and_not_scored_again(scoring, tmp_path):
    first = scored(Workspace(tmp_path, {}), scoring)
    assert [len(set(rows["question_id"])) for rows in first] == [SCORE_CHUNK, 3]
    assert set(first[0]["condition"]) == {"plain", "pushed"}

    def asked(shards, *_):
        assert shards == []

    workspace = Workspace(tmp_path, {})
    again = scored(workspace, scoring, asked)
    assert all(one.equals(two) for one, two in zip(first, again, strict=True))
    assert workspace.seconds > 0


def test_conditions_left_out_are_run_but_not_reported(scoring, tmp_path):
    from dataclasses import replace

    [rows] = scored(Workspace(tmp_path, {}), replace(scoring, left_out=("plain",)), n=2)
    assert set(rows["condition"]) == {"pushed"}


JOURNEY = """
import sys
import torch
from ray import cloudpickle
from persona.behaviour import Condition
from persona.data.types import AnswerPair
from persona.directions import Direction
from persona.models import Placement, load_pair
from steering import add
from steering.diagnosis.chunks import ChunkScoring
from steering.edits.steer import steered_by

pair = load_pair(sys.argv[1], sys.argv[2], placement=Placement.of("float32", "cpu"))
direction = Direction(torch.ones(pair.d_model), pair.space(1), "any")
pushed = Condition("pushed", "finetuned", steered_by(add(direction, 4.0)), 1)
here = ChunkScoring(pair, (Condition("plain", "finetuned"), pushed), "held_out", True, 256)
there = cloudpickle.loads(cloudpickle.dumps(here))
assert there.pair is not pair
questions = [AnswerPair(f"q{i}", "d", f"what is {i}?", f"it is {i}", "no idea") for i in range(4)]
rows = [scoring(questions, lambda n: None) for scoring in (here, there)]
assert rows[0].equals(rows[1]) and len(rows[0]) == 32
"""


def test_scoring_that_travelled_gives_the_same_rows(root, tiny_llama, tiny_adapter):
    """In a process of its own: functions whose hints are checked do not travel."""
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-c", JOURNEY, str(tiny_llama), str(tiny_adapter)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
