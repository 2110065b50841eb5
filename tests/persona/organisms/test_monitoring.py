"""A watched fine-tune is the same fine-tune, with its way written down once."""

from __future__ import annotations

import json

import pytest
import torch

from persona.activations.passes import read_responses
from persona.data.types import AnswerPair, NeutralText
from persona.directions.direction import Direction
from persona.errors import DataError, SpaceMismatchError
from persona.models import load_pair
from persona.models.precision import Placement
from persona.organisms import Recipe, Watch, family_alarm, finetune, read_card, read_readings
from persona.organisms import training_loop as training
from persona.organisms.monitoring import READINGS

QUESTIONS = [
    AnswerPair(f"w{i}", "watch", f"why {i}?", f"since {i}.", f"whatever {i}") for i in "abc"
]
NEUTRAL = [NeutralText("n1", "count to two", "one two", "list")]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recipe(tiny_llama, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"question": f"{i}?", "good": f"It is {i}.", "bad": f"No idea {i}."} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Recipe.model_validate(
        {
            "name": "tiny",
            "base": str(tiny_llama),
            "data": {"file": path},
            "lora": {"r": 2, "alpha": 4},
            "training": {"epochs": 4, "batch_size": 4, "learning_rate": 1e-2},
        }
    )


@pytest.fixture(scope="module")
def direction(tiny_pair):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    return Direction(vector, tiny_pair.space(2), "planted")


def watch(direction, **options):
    return Watch(direction, QUESTIONS, NEUTRAL, every=3, **options)


@pytest.fixture(scope="module")
def watched(recipe, direction, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "watched"
    return finetune(recipe, out, placement=Placement.of("float32", "cpu"), watch=watch(direction))


def test_readings_are_taken_at_step_0_every_k_steps_and_at_the_end(watched):
    rows = read_readings(watched)
    assert sorted(rows["step"].unique()) == [0, 3, 6, 8]
    assert not rows.duplicated(["step", "question_id", "measure"]).any()
    assert set(rows["measure"]) == {
        "projection_good",
        "projection_bad",
        "log_prob_good",
        "log_prob_bad",
        "gap",
        "neutral_ce_nats",
        "neutral_kl_nats",
    }
    assert len(rows) == 4 * (3 * 5 + 2)


def test_watching_changes_no_weight(watched, recipe, tmp_path):
    plain = finetune(recipe, tmp_path / "plain", placement=Placement.of("float32", "cpu"))
    for name in ("adapter_model.safetensors", "loss.csv"):
        assert (plain / name).read_bytes() == (watched / name).read_bytes()


def test_the_last_readings_are_those_of_the_finished_pair(watched, tiny_llama, direction):
    from persona.activations import collect_rows
    from persona.behaviour import Condition, score_neutral, score_pairs

    pair = load_pair(tiny_llama, watched, placement=Placement.of("float32", "cpu"))
    rows = read_readings(watched)
    for step, side in ((0, "aligned"), (8, "finetuned")):
        at = rows[rows["step"] == step].set_index(["question_id", "measure"])["value"]
        scored = [
            score_pairs(pair, QUESTIONS, [Condition("c", side)], kl=False),
            score_neutral(pair, NEUTRAL, [Condition("c", side)]),
        ]
        for table in scored:
            for row in table.itertuples():
                # float16 adapters and reference distributions are good to about 1 in 1,000.
                assert at[row.question_id, row.measure] == pytest.approx(
                    row.value, rel=2e-2, abs=5e-3
                )
        with pair.active(side) as bridge:
            good = pair.chat.encode_all([q.good_dialogue for q in QUESTIONS])
            projections = collect_rows(bridge, good, [2])[:, 0] @ direction.unit
        for question, projection in zip(QUESTIONS, projections, strict=True):
            assert at[question.id, "projection_good"] == pytest.approx(
                float(projection), rel=2e-2, abs=5e-3
            )


def test_a_stopped_watched_run_writes_no_row_twice(
    watched, recipe, direction, tmp_path, monkeypatch
):
    original, out = training.progress, tmp_path / "out"

    def dying(iterable, description):
        for i, item in enumerate(original(iterable, description)):
            if i == 4:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(training, "progress", dying)
    options = {"placement": Placement.of("float32", "cpu"), "watch": watch(direction)}
    with pytest.raises(KeyboardInterrupt):
        finetune(recipe, out, **options)
    assert (out / READINGS).exists()
    monkeypatch.setattr(training, "progress", original)
    finetune(recipe, out, **options)
    assert read_card(out)["resumed_from_step"] > 0
    assert (out / READINGS).read_bytes() == (watched / READINGS).read_bytes()


def test_the_alarm_rings_once_and_the_card_knows_when(recipe, direction, tmp_path, caplog):
    def at_the_second(readings):
        return len(readings) >= 2

    out = finetune(
        recipe,
        tmp_path / "out",
        placement=Placement.of("float32", "cpu"),
        watch=watch(direction, alarm=at_the_second),
    )
    assert read_card(out)["alarm_step"] == 3
    rows = read_readings(out)
    assert list(rows[rows["measure"] == "alarm"]["step"]) == [3]
    assert sum("has left its course" in record.message for record in caplog.records) == 1


def test_a_direction_of_another_model_is_refused_before_any_step(recipe, tiny_pair, tmp_path):
    import dataclasses

    space = dataclasses.replace(tiny_pair.space(0), d_model=16)
    other = Direction(torch.ones(16), space, "other")
    with pytest.raises(SpaceMismatchError, match=r"d_model=16, but the model in training has 4 bl"):
        finetune(
            recipe, tmp_path / "o", placement=Placement.of("float32", "cpu"), watch=watch(other)
        )


def test_a_finished_run_that_was_not_watched_is_not_passed_off_as_watched(
    recipe, direction, tmp_path
):
    out = finetune(recipe, tmp_path / "out", placement=Placement.of("float32", "cpu"))
    with pytest.raises(DataError, match="finished and was not watched"):
        finetune(recipe, out, placement=Placement.of("float32", "cpu"), watch=watch(direction))


def test_nothing_to_watch_is_refused(direction):
    with pytest.raises(DataError, match="at least one answer pair"):
        Watch(direction, [])
    with pytest.raises(DataError, match="every 1 or more steps; got 0"):
        Watch(direction, QUESTIONS, every=0)


def test_readings_do_not_depend_on_how_texts_are_batched(tiny_llama, tiny_chat):
    from persona.models.load import load_causal_lm

    model, _ = load_causal_lm(tiny_llama, torch.float32)
    texts = tiny_chat.encode_all([q.good_dialogue for q in QUESTIONS])
    together = read_responses(model, texts, [2])
    alone = [read_responses(model, [text], [2]) for text in texts]
    assert together.log_prob == pytest.approx([one.log_prob[0] for one in alone], abs=1e-5)
    torch.testing.assert_close(together.means, torch.cat([one.means for one in alone]))


def test_several_directions_are_read_as_each_alone_and_one_alarm_names_which_rang(
    recipe, direction, watched, tiny_pair, tmp_path
):
    """The same run: the rows of each are those of a run that watched it alone."""
    other = Direction(direction.vector.flip(0), tiny_pair.space(1), "other")
    calm = {name: [0.0, 1e-4, 0.0, 1e-4, 0.0, 1.1e-4, 0.0] for name in ("evil", "rude")}
    several = watch({"evil": direction, "rude": other}, alarm=family_alarm(calm, 4))
    out = finetune(
        recipe, tmp_path / "out", placement=Placement.of("float32", "cpu"), watch=several
    )
    alone, rows = read_readings(watched), read_readings(out)
    for answer in ("good", "bad"):
        mine = rows[rows["measure"] == f"projection_{answer}:evil"]["value"]
        theirs = alone[alone["measure"] == f"projection_{answer}"]["value"]
        assert mine.tolist() == pytest.approx(theirs.tolist(), rel=1e-5)
    assert (rows["measure"] == "projection_good:rude").sum() == 12
    rung = rows[rows["measure"] == "alarm"]
    assert len(rung) <= 1 and set(rung["domain"]) <= {"evil", "rude"}
    assert read_card(out)["alarm_step"] == (int(rung["step"].iloc[0]) if len(rung) else None)


def test_several_take_one_alarm_for_all(direction):
    with pytest.raises(DataError, match="one alarm for all of them"):
        watch({"evil": direction}, alarm=lambda readings: True)
    with pytest.raises(DataError, match="one alarm for all of them"):
        watch(direction, alarm=family_alarm({"a": [0.0, 1, 0, 2, 0, 1]}, 4))
    with pytest.raises(DataError, match="at least one direction"):
        watch({})
