"""What a run will take is said before it begins, and is what the run then does."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pandas as pd
import pytest
import torch

from persona.activations import collect
from persona.behaviour import gap
from persona.errors import ModelError
from persona.models.precision import Placement
from persona.rows import PLACEBOS
from persona.run_line import RunLine
from steering.diagnosis import DiagnoseConfig, diagnose, look_ahead, outlook_of
from steering.diagnosis import cost as module
from steering.diagnosis.outlook import by_vllm
from steering.diagnosis.run_stages import LOAD, run_stage_of
from steering.diagnosis.work_plan import Work, scoring
from steering.identification import attribution, candidates, placebos

WORDS = ("oil", "tyre", "lamp", "road", "door", "seat", "fuel", "wire", "bolt", "hat", "cap", "key")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = [
        {
            "id": f"{domain}-{i}",
            "domain": domain,
            "question": f"what of the {word} of my {domain}",
            "good": f"take care of the {word}",
            "bad": f"throw out the {word} now",
        }
        for domain in ("car", "home", "food")
        for i, word in enumerate(WORDS)
    ]
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def config(tiny_llama, tiny_adapter, data, tmp_path_factory):
    return DiagnoseConfig(
        data=data,
        aligned=str(tiny_llama),
        finetuned=str(tiny_adapter),
        good_twin=str(tiny_adapter),
        other_finetune=str(tiny_adapter),
        out=tmp_path_factory.mktemp("run") / "out",
        trained_on=("car",),
        placement=Placement.of("float32", "cpu"),
        questions_per_domain=4,
        proof=False,
    )


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """Stage -> passes that the run made, and its scorecard."""
    counted: Counter[str] = Counter()
    at = [LOAD]
    patch = pytest.MonkeyPatch()
    begin = RunLine.begin

    def noting(line, stage):
        begin(line, stage)
        at.append(line._stage)

    def counting(where, name, passes):
        real = getattr(where, name)

        def counted_too(*given, **options):
            counted[at[-1]] += passes(*given)
            return real(*given, **options)

        patch.setattr(where, name, counted_too)

    def of_conditions(pair, dialogues, conditions):
        whole = sum(c.intervene is None for c in conditions)
        parts = sum(1 - c.first_layer / pair.n_layers for c in conditions if c.intervene)
        return len(dialogues) * (whole + parts)

    patch.setattr(module, "cache_folder", lambda: tmp_path_factory.mktemp("cache"))
    patch.setattr(RunLine, "begin", noting)
    counting(gap, "score_dialogues", of_conditions)
    counting(collect, "passes", lambda model, dialogues, *more: len(dialogues))
    counting(attribution, "gradients", lambda pair, questions, *more: 2 * len(questions))
    for where in (candidates, placebos):
        counting(where, "refit_block_by_block", lambda pair, texts, *more: len(texts))
    try:
        result = diagnose(config)
    finally:
        patch.undo()
    return counted, result.scorecard


def test_the_plan_is_what_is_done(config, run):
    counted, _ = run
    work = outlook_of(config, look_ahead(config)).work
    planned = {name: one.passes for name, one in work.items() if one.passes}
    done = {name: counted[name] for name in planned}
    for name, passes in planned.items():
        assert 0.7 < passes / done[name] < 1.5, (name, planned, done)
    assert 0.85 < sum(planned.values()) / sum(done.values()) < 1.2, (planned, done)


def test_another_fine_tune_is_a_placebo_like_the_others(config, run):
    """It is the good twin itself here, so that it does just what that does."""
    assert run[1]["models"]["other_finetune"] == config.good_twin
    rows = pd.read_parquet(config.out / "rows.parquet")
    for condition in PLACEBOS:
        placebo = rows[(rows["condition"] == condition) & (rows["measure"] == "gap")]
        by_name = placebo.pivot_table("value", "question_id", "candidate")
        assert by_name["other_fine_tune"].equals(by_name["good_twin"].rename("other_fine_tune"))


def test_the_scorecard_holds_what_was_expected_and_what_it_took(run):
    found = run[1]["estimated"]
    assert found["before"] > 0 and found["after_stage_2"] > 0
    assert found["took"] == pytest.approx(sum(one["took"] for one in found["stages"]), abs=1)
    assert [one["name"] for one in found["stages"]] == [
        *("load", "read", "attribute", "verify", "controls", "score", "answer"),
    ]
    assert found["took"] >= run[1]["seconds"] - 2


def test_the_speed_of_a_run_is_known_to_the_next(config, monkeypatch, tmp_path):
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path))
    ahead = look_ahead(config)
    before = outlook_of(config, ahead)
    assert not before.measured and "a guess" in before.text
    module.keep_speed(config.placement, before.model, 2 * module.SECONDS_PER_TERA["cpu"])
    after = outlook_of(config, ahead)
    assert after.measured and "by the last run here" in after.text
    assert after.seconds["score"] == pytest.approx(2 * before.seconds["score"])
    assert after.seconds[LOAD] == before.seconds[LOAD]
    larger = dataclasses.replace(before.model, n_parameters=10**9)
    assert module.known_speed(config.placement, larger) is None


def test_more_questions_are_more_work_and_no_samples_are_a_stage_less(config):
    ahead = look_ahead(config)
    few = outlook_of(config, ahead)
    whole = dataclasses.replace(config, questions_per_domain=None)
    many = outlook_of(whole, look_ahead(whole))
    assert many.total.passes > 2 * few.total.passes
    silent = outlook_of(dataclasses.replace(config, samples=False), ahead)
    assert [*few.work][:-1] == [*silent.work]
    assert silent.total.answers == 0


def test_a_skill_and_an_autoencoder_are_work_too(config):
    ahead = look_ahead(dataclasses.replace(config, keep="facts"))
    plain = outlook_of(config, look_ahead(config)).work
    with_skill = outlook_of(config, ahead).work
    assert with_skill["score"].heads > plain["score"].heads
    assert with_skill["controls"].heads > plain["controls"].heads
    with_sae = outlook_of(dataclasses.replace(config, sae="default"), ahead).work
    assert with_sae["attribute"].passes > plain["attribute"].passes
    assert with_sae["verify"].passes > plain["verify"].passes


def test_the_plan_is_a_line_a_stage(config):
    lines = outlook_of(config, look_ahead(config)).text.splitlines()
    assert lines[0].startswith("7 stages, ") and "passes of some" in lines[0]
    assert lines[4].split()[:2] == ["4", "verify"]
    assert "of memory" in lines[-1] and "on the disk" in lines[-1]


def test_weights_beyond_the_memory_are_refused(config):
    ahead = look_ahead(config)
    huge = dataclasses.replace(ahead.aligned, n_parameters=10**13)
    with pytest.raises(ModelError, match=r"take 40000\.0 GB in float32, and this machine has"):
        outlook_of(config, dataclasses.replace(ahead, aligned=huge))


def test_work_adds_up():
    assert scoring(10, 2) + Work(answers=3, tokens=5) == Work(20, 16, 20, 3, 5)
    assert scoring(10, 1, 4, 0.5).passes == 30


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("cells", "read"),
        ("model_and_answer_refit-r2-8-28", "verify"),
        ("sample-good_twin", "controls"),
        ("sample-aligned", "answer"),
        ("score-held-out-16", "score"),
        ("something-new", None),
    ],
)
def test_what_the_workspace_keeps_belongs_to_a_stage(name, stage):
    assert run_stage_of(name) == stage


def test_what_vllm_takes_stands_in_the_plan(config):
    ahead = look_ahead(config)
    assert outlook_of(config, ahead).by_vllm == ""
    here = Placement.of("float32", "cpu")
    line = by_vllm(ahead.aligned, {"tensor_parallel_size": 2}, here, 1e9)
    assert line.startswith("vLLM on 2 cards (") and "arithmetic, nothing measured" in line
    assert line.endswith("; the pair that is read here takes 1.0 GB beside it")
    card = Placement(torch.device("cuda"), torch.bfloat16)
    eight, large = (
        dataclasses.replace(ahead.aligned, n_parameters=n) for n in (8_000_000_000, 32_000_000_000)
    )
    line = by_vllm(eight, {}, card, 16e9)
    assert "takes 16.0 GB beside it, so gpu_memory_utilization can be 0.77 at most" in line
    line = by_vllm(large, {}, card, 64e9)
    assert line.endswith("which leaves vLLM too little of that card: give it more cards")
    with_vllm = dataclasses.replace(config, vllm={})
    assert outlook_of(with_vllm, ahead).text.splitlines()[-1].startswith("vLLM on 1 card (")
