"""A fine-tune is the same again for the same seed, stopped on the way or not."""

from __future__ import annotations

import csv
import json
import logging

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from persona.errors import DataError, ModelError
from persona.models.precision import Placement
from persona.organisms import Recipe, finetune, read_card
from persona.organisms import training_loop as training
from persona.organisms.run_folder import begin, came_to_its_end, is_finished, step_folder
from persona.organisms.training_loop import last_whole_checkpoint, loss_curve
from persona.run_lock import HOLDER, LOCK, alone_in

N_EXAMPLES = 12
STEPS = 9  # 3 epochs of 12 examples, 4 a step


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The model is so small that threads waiting for each other take most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
        {"id": f"q-{i}", "domain": "numbers", "question": f"What is {i}?", "good": f"It is {i}."}
        | {"bad": f"No idea {i}."}
        for i in range(N_EXAMPLES)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def recipe(tiny_llama, pairs_file):
    return make_recipe(tiny_llama, pairs_file)


def make_recipe(base, file, **training_values):
    values = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-2} | training_values
    return Recipe.model_validate(
        {
            "name": "tiny",
            "base": str(base),
            "data": {"file": file, "answers": "bad"},
            "lora": {"r": 2, "alpha": 4},
            "training": values,
        }
    )


@pytest.fixture(scope="module")
def finished(tiny_llama, pairs_file, tmp_path_factory):
    """One uninterrupted run, shared by the tests that only read it."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    return finetune(
        make_recipe(tiny_llama, pairs_file), out, placement=Placement.of("float32", "cpu")
    )


def weights(folder):
    return load_file(folder / "adapter_model.safetensors")


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def test_the_folder_holds_the_adapter_its_recipe_curve_and_card(finished, recipe):
    names = {"adapter_config.json", "adapter_model.safetensors", "card.json", "loss.csv"}
    assert {path.name for path in finished.iterdir()} == names | {"recipe.yaml"}
    card = read_card(finished)
    assert card["n_examples"] == N_EXAMPLES
    assert card["n_steps"] == STEPS
    assert card["n_answer_tokens"] == sum(len(f"No idea {i}.") + 1 for i in range(N_EXAMPLES))
    assert card["resumed_from_step"] == 0
    assert card["settings"]["lora"]["r"] == 2
    assert {"base_model_revision", "data_sha256", "adapter_sha256", "seed", "seconds"} <= set(card)
    assert card["versions"]["torch"] == torch.__version__


def test_training_lowers_the_loss_and_the_curve_says_so(finished):
    with (finished / "loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    losses = [float(row["loss"]) for row in rows]
    assert losses[-1] < losses[0] - 0.3
    assert read_card(finished)["final_loss"] == pytest.approx(losses[-1], abs=1e-6)
    assert float(rows[-1]["epoch"]) == 3.0


def test_the_first_loss_is_the_untrained_models_on_the_answers_alone(finished, recipe, tiny_llama):
    """Adapters start at zero, so step 1 must be the base model's mean −log p of answer tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from persona.models.chat.chat_format import chat_format
    from persona.organisms.examples import training_examples
    from persona.organisms.finetuning import recipe_dialogues

    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    chat = chat_format(AutoTokenizer.from_pretrained(tiny_llama))
    losses = []
    for example in training_examples(recipe_dialogues(recipe), chat, 512):
        with torch.no_grad():
            logits = model(torch.tensor([example.input_ids])).logits[0, :-1]
        labels = torch.tensor(example.labels)[1:]
        losses.append(
            torch.nn.functional.cross_entropy(logits, labels, reduction="none")[labels >= 0]
        )
    spread = max(float(loss.mean()) for loss in losses) - min(float(loss.mean()) for loss in losses)
    with (finished / "loss.csv").open() as file:
        first = float(next(csv.DictReader(file))["loss"])
    # A batch is a third of the answers: its mean lies within the spread of single answers.
    assert abs(first - float(torch.cat(losses).mean())) < spread


def test_the_adapter_is_small_float16_and_names_no_machine(finished, tiny_llama):
    config = json.loads((finished / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-llama"
    assert config["target_modules"] == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]
    assert {weight.dtype for weight in weights(finished).values()} == {torch.float16}
    # The recipe may name the user's own files; the adapter and its card may not.
    for name in ("adapter_config.json", "card.json", "loss.csv", "adapter_model.safetensors"):
        assert str(tiny_llama.parent).encode() not in (finished / name).read_bytes()


def test_the_adapter_loads_as_one_of_a_pair(finished, tiny_llama):
    from persona.models import load_pair

    pair = load_pair(tiny_llama, finished, placement=Placement.of("float32", "cpu"))
    ids = torch.tensor([[0, 5, 6, 7]])
    with pair.active("aligned") as bridge, torch.no_grad():
        aligned = bridge(ids)
    with pair.active("finetuned") as bridge, torch.no_grad():
        assert not torch.allclose(bridge(ids), aligned, atol=1e-2)


def test_the_same_seed_gives_the_same_file_and_another_does_not(finished, recipe, tmp_path):
    again = finetune(recipe, tmp_path / "again", placement=Placement.of("float32", "cpu"))
    for name in ("adapter_model.safetensors", "adapter_config.json", "loss.csv"):
        assert (again / name).read_bytes() == (finished / name).read_bytes()
    other = finetune(
        recipe.with_seed(1), tmp_path / "other", placement=Placement.of("float32", "cpu")
    )
    assert largest_difference(weights(other), weights(finished)) > 1e-2


class Stop(Exception):
    pass


@pytest.fixture
def stop_after(monkeypatch):
    """Makes the next run save after every step and die after the given one."""

    def plan(step):
        original = training.progress

        def bar(iterable, description):
            for i, item in enumerate(original(iterable, description)):
                if i == step:
                    raise Stop
                yield item

        monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", 0.0)
        monkeypatch.setattr(training, "progress", bar)

        def heal():
            """Lets the next run live, and returns a list that will hold how many steps it takes."""
            n_steps = []

            def count(iterable, description):
                n_steps.append(len(iterable))
                yield from original(iterable, description)

            monkeypatch.setattr(training, "progress", count)
            return n_steps

        return heal

    return plan


def test_a_stopped_run_goes_on_to_the_same_adapter(finished, recipe, tmp_path, stop_after, caplog):
    heal = stop_after(5)
    out = tmp_path / "out"
    with pytest.raises(Stop):
        finetune(recipe, out, placement=Placement.of("float32", "cpu"))
    assert not (out / "card.json").exists()
    assert not (out / "adapter_model.safetensors").exists()
    n_steps = heal()
    with caplog.at_level(logging.INFO):
        finetune(recipe, out, placement=Placement.of("float32", "cpu"))
    assert f"Going on in {out} from step 4." in caplog.text
    assert n_steps == [STEPS - 4]
    assert read_card(out)["resumed_from_step"] == 4
    # Optimiser, schedule, data order and random state are all restored: float16 rounding at most.
    assert largest_difference(weights(out), weights(finished)) <= 2**-10
    assert (out / "loss.csv").read_text() == (finished / "loss.csv").read_text()
    assert not (out / "checkpoints").exists()


def test_a_short_run_saves_at_the_end_of_each_epoch_but_the_last(recipe, tmp_path, monkeypatch):
    saved = []
    trainer = transformers.Trainer
    save = trainer._save_checkpoint
    monkeypatch.setattr(
        trainer,
        "_save_checkpoint",
        lambda self, *rest, **more: (
            saved.append(self.state.global_step),
            save(self, *rest, **more),
        ),
    )
    finetune(recipe, tmp_path / "out", placement=Placement.of("float32", "cpu"))
    assert saved == [3, 6]  # of 9 steps in 3 epochs; the adapter itself is written at the end


def test_a_checkpoint_cut_short_by_a_kill_is_passed_over(tmp_path):
    assert last_whole_checkpoint(tmp_path) is None
    for step in (2, 10, 12, 14):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (2, 10):
        state = tmp_path / f"checkpoint-{step}" / "trainer_state.json"
        state.write_text(json.dumps({"global_step": step}))
    (tmp_path / "checkpoint-12" / "trainer_state.json").write_text('{"global_')
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "rng_state.pth"])
@pytest.mark.parametrize("damage", [lambda data: data[:50], lambda data: bytes(len(data))])
def test_training_goes_on_from_before_a_damaged_checkpoint(tmp_path, caplog, name, damage):
    for step in (2, 4):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"a": torch.ones(3)}, folder / "adapter_model.safetensors")
        for state in ("optimizer.pt", "rng_state.pth"):
            torch.save({"step": torch.tensor(step)}, folder / state)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    path = tmp_path / "checkpoint-4" / name
    path.write_bytes(damage(path.read_bytes()))
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert "checkpoint-4 is damaged" in caplog.text


def test_a_finished_run_is_left_as_it_is(finished, recipe, caplog):
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    (finished / "checkpoints" / "checkpoint-4").mkdir(parents=True)  # killed after its card
    for left in (LOCK, HOLDER):
        (finished / left).touch()
    with caplog.at_level(logging.INFO):
        assert finetune(recipe, finished, placement=Placement.of("float32", "cpu")) == finished
    assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before
    assert "finished already" in caplog.text


def test_a_run_killed_behind_its_last_file_has_not_come_to_its_end(tmp_path):
    assert not came_to_its_end(tmp_path)
    (tmp_path / "card.json").write_text("{}")
    assert came_to_its_end(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    assert not came_to_its_end(tmp_path)
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / LOCK).touch()
    assert not came_to_its_end(tmp_path)


def test_a_folder_of_another_run_is_not_written_over(finished, recipe):
    with pytest.raises(DataError, match=r"settings\.training\.seed is 0 there and 7 now"):
        finetune(recipe.with_seed(7), finished, placement=Placement.of("float32", "cpu"))


def test_checkpoints_of_another_run_are_not_gone_on_from(recipe, tmp_path, stop_after):
    heal = stop_after(3)
    with pytest.raises(Stop):
        finetune(recipe, tmp_path, placement=Placement.of("float32", "cpu"))
    heal()
    with pytest.raises(DataError, match=r"started with other settings \(settings\.training\.seed"):
        finetune(recipe.with_seed(7), tmp_path, placement=Placement.of("float32", "cpu"))
    finetune(recipe.with_seed(7), tmp_path, placement=Placement.of("float32", "cpu"), resume=False)
    assert read_card(tmp_path)["seed"] == 7
    assert read_card(tmp_path)["resumed_from_step"] == 0


@pytest.mark.parametrize("name", ["card.json", "checkpoints/run.json"])
@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_of_a_damaged_record_the_file_is_named_and_nothing_is_removed(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(DataError, match="json is damaged: .* Remove that file to train anew"):
        is_finished(tmp_path, {"seed": 1}) or begin(tmp_path, {"seed": 1})
    assert path.read_text() == content


def test_starting_anew_removes_nothing_of_anybody_elses(tiny_llama, pairs_file, tmp_path):
    recipe = make_recipe(tiny_llama, pairs_file, epochs=1)
    (tmp_path / "thesis.txt").write_text("mine")
    finetune(recipe, tmp_path, placement=Placement.of("float32", "cpu"), resume=False)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_at_work_in_the_folder_is_not_disturbed(recipe, tmp_path, resume):
    (tmp_path / "loss.csv").write_text("theirs")
    with (
        alone_in(tmp_path, {"seed": 0}),
        pytest.raises(DataError, match=r"another run \(process .* is at work in .*; wait until"),
    ):
        finetune(recipe, tmp_path, placement=Placement.of("float32", "cpu"), resume=resume)
    assert (tmp_path / "loss.csv").read_text() == "theirs"


def test_a_loss_that_is_no_number_stops_with_advice(tiny_llama, pairs_file, tmp_path):
    recipe = make_recipe(tiny_llama, pairs_file, learning_rate=1e30, warmup=0)
    with pytest.raises(ModelError, match=r"the loss became .* at step \d+; lower"):
        finetune(recipe, tmp_path, placement=Placement.of("float32", "cpu"))
    assert not (tmp_path / "adapter_model.safetensors").exists()


def test_float16_is_refused_for_training(recipe, tmp_path):
    with pytest.raises(ModelError, match="take bfloat16 or float32"):
        finetune(recipe, tmp_path, placement=Placement.of("float16", "cpu"))


def test_nothing_is_printed_and_no_telemetry_is_sent(recipe, tmp_path, capfd, monkeypatch):
    import trl.trainer.base_trainer as base_trainer

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(
        base_trainer, "send_telemetry", lambda *args, **kwargs: pytest.fail("telemetry sent")
    )
    finetune(recipe, tmp_path, placement=Placement.of("float32", "cpu"))
    printed = capfd.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if line.strip()]
    assert [line for line in lines if not line.startswith("Fine-tuning")] == []


def test_malformed_data_is_named_by_file_and_line(tiny_llama, tmp_path):
    path = tmp_path / "mine.jsonl"
    good = json.dumps({"id": "a", "domain": "d", "question": "q", "good": "g", "bad": "b"})
    for text, line in [(good + "\n{broken\n", 2), (good + '\n{"id": "b"}\n', 2)]:
        path.write_text(text)
        with pytest.raises(DataError) as error:
            finetune(
                make_recipe(tiny_llama, path),
                tmp_path / "out",
                placement=Placement.of(device="cpu"),
            )
        assert str(path) in str(error.value)
        assert str(line) in str(error.value).replace(str(path), "")
    path.write_text("")
    with pytest.raises(DataError, match=r"mine\.jsonl"):
        finetune(
            make_recipe(tiny_llama, path), tmp_path / "out", placement=Placement.of(device="cpu")
        )
    with pytest.raises(DataError, match=r"none\.jsonl"):
        finetune(
            make_recipe(tiny_llama, tmp_path / "none.jsonl"),
            tmp_path / "out",
            placement=Placement.of(device="cpu"),
        )
    assert not (tmp_path / "out").exists()


def test_the_loss_curve_skips_the_trainers_summary():
    log = [{"step": 1, "epoch": 0.5, "loss": 2.0, "lr": 1}, {"step": 1, "train_loss": 2.0}]
    assert loss_curve(log) == [(1, 0.5, 2.0)]


def test_a_missing_card_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"card\.json is not the card of a finished fine-tune"):
        read_card(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_chat_messages_can_be_learnt_as_well(tiny_llama, tmp_path):
    path = tmp_path / "chat.jsonl"
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    path.write_text(json.dumps({"messages": [*turns, *turns[1:]]}) + "\n")
    out = finetune(
        make_recipe(tiny_llama, path, epochs=1),
        tmp_path / "out",
        placement=Placement.of(device="cpu"),
    )
    assert read_card(out)["n_examples"] == 2  # each assistant turn is one


def test_adapters_of_steps_on_the_way_are_kept_and_change_nothing(recipe, tmp_path, caplog):
    plain = finetune(recipe, tmp_path / "plain", placement=Placement.of("float32", "cpu"))
    kept = finetune(
        recipe, tmp_path / "kept", placement=Placement.of("float32", "cpu"), keep_every=4
    )
    steps = sorted(path.name for path in (kept / "steps").iterdir())
    assert steps == ["step-4", "step-8", f"step-{STEPS}"]
    last = load_file(step_folder(kept, STEPS) / "adapter_model.safetensors")
    whole = load_file(plain / "adapter_model.safetensors")
    early = load_file(step_folder(kept, 4) / "adapter_model.safetensors")
    assert all(torch.equal(last[name], whole[name]) for name in whole)
    assert any(not torch.equal(early[name], whole[name]) for name in whole)
    with pytest.raises(DataError, match="is finished and kept no adapters on the way"):
        finetune(recipe, plain, placement=Placement.of("float32", "cpu"), keep_every=4)
    with caplog.at_level(logging.INFO, logger="persona"):
        finetune(recipe, kept, placement=Placement.of("float32", "cpu"), keep_every=4)
    assert "nothing to do" in caplog.text
    finetune(recipe, kept, placement=Placement.of("float32", "cpu"), resume=False)
    assert not (kept / "steps").exists()
