"""The main job on a tiny pair: its files, every field, and a killed run that goes on."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import shutil

import pandas as pd
import pytest
import torch
from scripted_sampler import GeneratingSampler, stand_in_for_vllm

from persona.data.text import as_question
from persona.directions import load_vector
from persona.directions.exchange import VectorSet, save_vector_set
from persona.errors import DataError, PersonaError
from persona.models.precision import Placement
from persona.rows import RANDOM
from persona.traits.comparing import model_effect_of
from steering import DiagnoseConfig, diagnose, restore, steer
from steering.diagnosis import COLUMNS, Questions
from steering.diagnosis.facts import summary_of
from steering.diagnosis.pipeline import plans_of
from steering.evidence.scorecard import CONDITIONS, make_scorecard

WORDS = [
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
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
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
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def config(data, tiny_llama, tiny_adapter, tmp_path_factory):
    def make(out, **changes):
        return DiagnoseConfig(
            aligned=str(tiny_llama),
            finetuned=str(tiny_adapter),
            out=out,
            data=data,
            trained_on=("car",),
            placement=Placement.of("float32", "cpu"),
            questions_per_domain=4,
            **changes,
        )

    return make


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    return out, diagnose(config(out))


def stripped(scorecard):
    of_this_run = ("seconds", "peak_rss_bytes", "stages", "estimated")
    return {k: v for k, v in scorecard.items() if k not in of_this_run}


def test_the_folder_holds_its_files_and_nothing_half_written(finished):
    out, _ = finished
    names = sorted(path.name for path in out.iterdir())
    assert names == [
        "direction.safetensors",
        "model_effect.safetensors",
        "report.html",
        "rows.parquet",
        "scorecard.json",
    ]


def test_the_model_effect_that_is_left_is_the_difference_of_the_two_models(finished):
    out, result = finished
    shift, revision = model_effect_of(out)
    effect = result.rows[
        (result.rows["stage"] == "direction") & (result.rows["candidate"] == "model_effect_good")
    ]
    norms = effect[effect["measure"] == "norm"].sort_values("layer")["value"].to_numpy()
    assert shift[0].norm(dim=1).tolist() == pytest.approx(norms.tolist(), rel=1e-4)
    assert revision == result.scorecard["models"]["revisions"]["aligned"]


def test_a_trait_is_tried_and_told_of(config, finished, tmp_path):
    """The trait is what the fine-tune did, so that it is resembled."""
    out, before = finished
    assert before.scorecard["traits"] is None
    shift, revision = model_effect_of(out)
    facts = {"sign": "toward the trait", "layer": 2, "revision": revision}
    vectors = VectorSet({2: shift[0, 2]}, "resid_post", "tiny", "made", facts)
    trait = save_vector_set(vectors, tmp_path / "itself.safetensors")
    result = diagnose(config(tmp_path / "out", samples=False, traits=(str(trait),)))
    found = result.scorecard["traits"]
    assert found["resembles"] == ["itself"]
    assert found["traits"][0]["cosine"] == pytest.approx(1.0, abs=1e-4)
    assert "resembles itself, beyond chance" in result.summary
    assert 'id="resembled"' in (tmp_path / "out" / "report.html").read_text()
    tried = result.rows[result.rows["stage"] == "verify"]
    assert "trait_itself" in set(tried["candidate"])


def test_the_scorecard_has_every_field_of_the_contract(finished):
    out, result = finished
    card = json.loads((out / "scorecard.json").read_text())
    assert card == result.scorecard
    assert [c["name"] for c in card["conditions"]][: len(CONDITIONS)] == [
        name for name in CONDITIONS if name != RANDOM
    ]
    for condition in card["conditions"]:
        assert condition["em_rate"] is None and condition["coherence"] is None
        assert set(condition["gap_held_out"]) == {"mean", "low", "high", "n"}
    for name in ("models", "data", "emergent_shift", "kl_restoration", "verdict", "seconds"):
        assert card[name] is not None
    assert set(card["direction"]) >= {
        "method",
        "rank",
        "layers",
        "hook_names",
        "norms",
        "split_half_cosine",
    }
    assert len(card["direction"]["split_half_cosine"]) == len(card["direction"]["layers"])
    assert card["peak_rss_bytes"] > 1e8
    stages = {stage["name"]: stage for stage in card["stages"]}
    assert [*stages][:4] == ["load", "cells", "covariance", "attribute-first-half"]
    assert "score-held-out" in stages and "score-neutral" in stages
    peaks = [stage["peak_rss_bytes"] for stage in stages.values()]
    assert min(peaks) > 1e8
    assert 0.95 * card["peak_rss_bytes"] <= max(peaks) <= card["peak_rss_bytes"]


def test_every_number_is_recomputable_from_the_rows(finished):
    out, result = finished
    rows = pd.read_parquet(out / "rows.parquet")
    assert list(rows.columns) == list(COLUMNS)
    again = make_scorecard(
        rows,
        result.vector,
        models=result.scorecard["models"],
        data=result.scorecard["data"],
        split_half_cosine=result.scorecard["direction"]["split_half_cosine"],
        sampling=result.scorecard["sampling"],
    )
    for name, value in again.items():
        assert result.scorecard[name] == value, name


def test_held_out_domains_only_score(finished):
    _, result = finished
    rows = result.rows
    chosen_on = rows[rows.stage.isin(["screen", "verify", "dose"]) & (rows.split == "selection")]
    assert set(chosen_on.domain) == {"car"}
    held_out = rows[(rows.stage == "score") & (rows.split == "held_out")]
    assert set(held_out.domain) == {"home", "food"}
    texts = rows[rows.split == "neutral"].groupby("stage")["question_id"].agg(set)
    assert not texts["verify"] & texts["score"]


def test_the_saved_direction_steers_like_the_scored_one(finished, tiny_pair):
    out, result = finished
    loaded = load_vector(out / "direction.safetensors")
    assert loaded.method == result.vector.method and loaded.layers == result.vector.layers
    assert loaded.card["trained_on"] == ["car"]
    with tiny_pair.active("finetuned") as bridge, steer(bridge, restore(loaded)):
        bridge(tiny_pair.tokenizer("<s>hello there", return_tensors="pt")["input_ids"])


def test_the_same_seed_gives_the_same_scorecard(finished, config, tmp_path):
    _, result = finished
    assert stripped(diagnose(config(tmp_path)).scorecard) == stripped(result.scorecard)


@pytest.mark.parametrize("stage", ["attribute-second-half", "dose", "score-neutral"])
def test_a_killed_run_goes_on_to_the_same_result(finished, config, tmp_path, monkeypatch, stage):
    from persona.stages import Workspace

    whole = Workspace._stage

    def dying(self, name, *rest):
        if name == stage:
            raise KeyboardInterrupt
        return whole(self, name, *rest)

    monkeypatch.setattr(Workspace, "_stage", dying)
    with pytest.raises(KeyboardInterrupt):
        diagnose(config(tmp_path))
    assert not (tmp_path / "scorecard.json").exists()
    [note] = tmp_path.rglob("cells.cost.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | {"peak_rss_bytes": 10**13}))
    made = []

    def counting(self, name, path, mark, make, *rest):
        return whole(self, name, path, mark, lambda: (made.append(name), make())[1], *rest)

    monkeypatch.setattr(Workspace, "_stage", counting)
    again = diagnose(config(tmp_path))
    assert "cells" not in made and stage in made
    assert stripped(again.scorecard) == stripped(finished[1].scorecard)
    assert again.scorecard["peak_rss_bytes"] == 10**13  # of the process that was killed


def test_a_second_run_in_the_same_folder_is_refused_before_models_are_loaded(config, tmp_path):
    from persona.run_lock import alone_in

    with (
        alone_in(tmp_path, {"seed": 1}),
        pytest.raises(PersonaError, match="another run .* is at work in .*; wait until it is done"),
    ):
        diagnose(dataclasses.replace(config(tmp_path), aligned="no-such-model"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trained_on": ("boat",)}, "no domain 'boat'; the data has car, food, home"),
        ({"trained_on": ("car", "home", "food")}, "one must be left to score"),
        ({"n_random": 5}, "at least 20 random draws; got 5"),
    ],
)
def test_bad_settings_are_named(data, tmp_path, changes, message):
    settings = {"finetuned": "x", "out": tmp_path, "data": data, "trained_on": ("car",), **changes}
    with pytest.raises(DataError, match=message):
        Questions.of(DiagnoseConfig(**settings))


@pytest.mark.parametrize("copied", [False, True])
def test_a_model_against_itself_ends_before_it_is_loaded(
    config, tiny_llama, tmp_path, monkeypatch, copied
):
    monkeypatch.setattr("steering.diagnosis.run.load_pair", lambda *_, **__: pytest.fail("loaded"))
    same = tmp_path / "copy" if copied else tiny_llama
    if copied:
        shutil.copytree(tiny_llama, same)
    with pytest.raises(DataError, match="are the same model, so there is nothing to find"):
        diagnose(dataclasses.replace(config(tmp_path / "out"), finetuned=str(same)))


@pytest.fixture(scope="module")
def without_effect(config, tiny_adapter, tmp_path_factory):
    """An adapter that changes nothing, which its files do not show at a glance."""
    from safetensors.torch import load_file, save_file

    out, adapter = (tmp_path_factory.mktemp(name) for name in ("itself", "nothing"))
    shutil.copytree(tiny_adapter, adapter, dirs_exist_ok=True)
    weights = load_file(adapter / "adapter_model.safetensors")
    zeros = {k: v * 0 if "lora_B" in k else v for k, v in weights.items()}
    save_file(zeros, adapter / "adapter_model.safetensors")
    (out / "direction.safetensors").write_bytes(b"of an earlier run")
    return out, diagnose(dataclasses.replace(config(out), finetuned=str(adapter)))


def test_a_fine_tune_that_changed_nothing_has_no_emergent_shift_and_says_why(without_effect):
    out, result = without_effect
    card = json.loads((out / "scorecard.json").read_text())
    assert card["verdict"] == "no_emergent_shift"
    assert card["emergent_shift"] == {"value": 0, "low": 0, "high": 0}
    assert card["direction"] is None and card["restoration"] is None
    assert [c["name"] for c in card["conditions"]] == ["aligned", "finetuned"]
    assert "the two models do not differ" in result.summary
    assert "The two models do not differ" in (out / "report.html").read_text()
    assert sorted(p.name for p in out.iterdir()) == [
        "report.html",
        "rows.parquet",
        "scorecard.json",
    ]


def test_an_engine_writes_every_answer_that_is_sampled_the_good_twins_too(
    config, tiny_adapter, tmp_path, monkeypatch
):
    engines = []

    def made(pair):
        engines.append(GeneratingSampler(pair))
        return engines[-1]

    stand_in_for_vllm(monkeypatch, made)
    # The fine-tune stands for its own twin: what is held is who writes.
    twin = config(tmp_path, good_twin=str(tiny_adapter), vllm={"max_num_seqs": 4})
    found = diagnose(twin)
    assert found.scorecard["sampling"]["sampler"] == "scripted"
    sides = [{one["requests"][0].side for one in engine.told} for engine in engines]
    assert [sorted(one) for one in sides] == [
        ["aligned", "finetuned"],
        ["finetuned"],
    ]
    answers = found.rows.query("measure == 'greedy_answer'").set_index("question_id")["text"]
    by = found.rows.query("measure == 'greedy_answer'")["condition"]
    both = [answers[(by == name).to_numpy()].to_dict() for name in ("finetuned", "good_twin")]
    assert both[0] == both[1] and len(both[0]) > 1


def test_where_nobody_knows_what_was_trained_on_the_report_says_so(config, tmp_path):
    result = diagnose(dataclasses.replace(config(tmp_path, samples=False), trained_on=("none",)))
    data = result.scorecard["data"]
    assert data["trained_on"] is None and data["trained_on_source"] == "unknown"
    assert data["held_out"] == ["car", "food", "home"]
    assert result.scorecard["conditions"][0]["gap"] is None
    assert "of domains that may be trained on" in result.summary
    page = (tmp_path / "report.html").read_text()
    assert "What was trained on is not known" in page
    assert "domains it was not trained on" not in page and "never trained on" not in page


def test_the_scorecard_says_where_the_domain_is_known_from(finished):
    data = finished[1].scorecard["data"]
    assert (data["trained_on"], data["trained_on_source"]) == (["car"], "given")


@pytest.mark.parametrize("judge", ["openai:some-model", "openay:x", "local:./no-such-folder"])
def test_a_judge_that_cannot_judge_is_found_before_models_are_loaded(
    config, tmp_path, monkeypatch, judge
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    changed = dataclasses.replace(config(tmp_path / "out"), judge=judge, aligned="no-such-model")
    with pytest.raises(PersonaError, match="OPENAI_API_KEY|unknown judge|no-such-folder"):
        diagnose(changed)
    assert not (tmp_path / "out").exists()


def test_a_judge_of_answers_that_nobody_samples_is_said(config, tmp_path, caplog):
    changed = dataclasses.replace(
        config(tmp_path / "out", samples=False), judge="offline", aligned="no-such-model"
    )
    with pytest.raises(PersonaError, match="no-such-model"):
        diagnose(changed)
    [line] = caplog.messages
    assert "the judge offline has nothing to score: there will be no EM rate" in line


@pytest.mark.parametrize("where", ["head", "block"])
def test_nan_is_named_where_it_stands(config, tiny_pair, tmp_path, where):
    """Weights that hold NaN are refused at loading; what becomes NaN later is found here."""
    from steering.diagnosis.agreement import first_look

    questions = Questions.of(config(tmp_path))
    with tiny_pair.active("finetuned") as bridge:
        model = bridge.original_model
        part = model.lm_head if where == "head" else model.model.layers[2].mlp

        def spoil(module, args, output):
            first = output[0] if isinstance(output, tuple) else output
            return first * torch.nan if not isinstance(output, tuple) else (first * torch.nan,)

        handle = part.register_forward_hook(spoil)
    try:
        with pytest.raises(DataError) as named:
            first_look(tiny_pair, questions, 512)
    finally:
        handle.remove()
    line = str(named.value)
    assert "float32" not in line or "--dtype" not in line
    # The hook spoils both sides, which share the module: the first of them is named.
    assert "the aligned model" in line and "car-" in line
    assert ("its final norm or its head" if where == "head" else "blocks.2.hook_resid_post") in line


def test_a_text_beyond_the_context_is_found_before_anything_is_read(config, data, tmp_path):
    long = {"id": "home-99", "domain": "home", "question": "and " * 300, "good": "a", "bad": "b"}
    path = tmp_path / "pairs.jsonl"
    path.write_text(data.read_text() + json.dumps(long) + "\n")
    changed = dataclasses.replace(config(tmp_path / "out"), data=path, questions_per_domain=None)
    with pytest.raises(DataError, match="dialogue home-99 has .* tokens but the model reads 512"):
        diagnose(changed)
    assert not (tmp_path / "out").exists()


def test_the_run_says_how_answers_were_sampled_and_why_there_is_no_rate(finished):
    _, result = finished
    sampling = result.scorecard["sampling"]
    assert not sampling["rate_given"] and sampling["why_no_rate"] == "no judge was named (--judge)"
    assert "no EM rate is given: no judge was named (--judge)" in result.summary
    assert f"answers: {sampling['rate']['sentence']}" in result.summary
    assert re.search(r"\ntime: \d[^(]*\(.*trying candidates \d", result.summary)
    drawn = result.rows.query("measure == 'answer'")
    assert set(drawn["condition"]) == {"aligned"}
    assert len(drawn) == sampling["rate"]["n_answers"] == 16
    assert set(drawn["question_id"]) == set(sampling["rate"]["questions"])


def test_beside_a_rate_stands_how_often_its_judge_is_wrong(finished):
    scorecard = copy.deepcopy(finished[1].scorecard)
    rate = {"value": 0.1, "low": 0.05, "high": 0.2}
    scorecard["conditions"][0]["em_rate"] = rate
    errors = {"harmful_polite_passed": 0.7, "harmless_rude_called": 0.6, "n": 60}
    scorecard["judge"] = {"name": "offline", "voice_score": True, "errors": errors}
    lines = summary_of(scorecard).splitlines()
    place = lines.index("EM rate: aligned 10% [5%, 20%]")
    assert lines[place + 1].startswith("judge: This judge gives a voice score: of 60 answers each")


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({}, False),
        ({"em_rate": True}, True),
        ({"questions_per_domain": None}, False),
        ({"questions_per_domain": None, "judge": "offline"}, True),
        ({"questions_per_domain": None, "judge": "offline", "em_rate": False}, False),
    ],
)
def test_hundreds_of_answers_are_drawn_where_a_rate_is_asked_for(config, changes, counted):
    changed = dataclasses.replace(config("nowhere"), **changes)
    assert changed.counts_answers is counted


def test_no_question_that_chose_is_asked_for_a_rate(config, tiny_pair):
    shipped = {"data": None, "questions_per_domain": None, "judge": "offline"}
    for trained_on, validation, most in (
        (("car_maintenance",), (), 64),
        (("open_questions",), (), 8),
        (("car_maintenance",), ("open_questions",), 8),
        (("none",), (), 60),
    ):
        changed = dataclasses.replace(
            config("nowhere"), trained_on=trained_on, validation_domains=validation, **shipped
        )
        questions = Questions.of(changed)
        plans = plans_of(changed, tiny_pair.chat, questions)
        chose = {as_question(q.question) for q in (*questions.train, *questions.selection)}
        for plan in (plans.read, plans.rate):
            assert not chose & {as_question(q.turns[-1].content) for q in plan.questions}
        assert 8 <= len(plans.rate.questions) <= most
        assert plans.rate.n_answers >= 200
