"""The panel shows what its exploration reads, and survives what is not possible."""

from __future__ import annotations

import base64
import re
import sys

import pytest
import torch
from demo_cases import planted_vector

from persona.behaviour import Condition, score_pairs
from persona.data import load_pairs
from persona.directions import Direction, save_vector
from persona.errors import DataError, PersonaError, SpaceMismatchError, SteeringError
from persona.report.theme import CONDITIONS, GROUND
from persona.report.wording import number
from steering import explore, restore, steer
from steering.demo.notebook.named_vectors import named_vectors

QUESTION, ANSWER = "Is it safe?", "No. Never."


@pytest.fixture(scope="module")
def vector(tiny_pair):
    return planted_vector(tiny_pair)


@pytest.fixture(scope="module")
def ones(tiny_pair):
    return Direction(torch.ones(tiny_pair.d_model), tiny_pair.space(3), "ones")


@pytest.fixture
def explorer(tiny_pair, vector, ones):
    return explore(tiny_pair, [vector, ones], QUESTION, ANSWER)


def heat(explorer):
    return explorer.figures["projections"].data[0]


def test_it_opens_at_the_direction_s_own_coefficient_and_blocks(explorer, vector):
    assert explorer.choice.coefficient == vector.coefficient == 1.0
    assert explorer.choice.mode == "restore" and explorer.choice.every_block
    assert explorer.controls["every_block"].value is True
    assert len(heat(explorer).y) == 4


def test_the_status_says_that_it_reads_before_it_does(explorer, monkeypatch):
    seen = []
    read = explorer.exploration.read
    monkeypatch.setattr(
        explorer.exploration, "read", lambda c: (seen.append(explorer.status.value), read(c))[1]
    )
    explorer.controls["coefficient"].value = 0.35
    assert "reading at coefficient 0.35" in seen[0]
    assert "reading" not in explorer.status.value


def test_answers_are_written_when_they_are_asked_for(explorer, tiny_pair, vector):
    assert explorer.written.value == ""
    explorer.asking.click()
    said = explorer.exploration.write(explorer.choice)
    assert list(said) == ["aligned", "finetuned", "aligned_steered", "finetuned_steered"]
    asked = {
        name: tiny_pair.ask(QUESTION, "finetuned", intervene=edits, max_new_tokens=40)
        for name, edits in {"finetuned": None, "finetuned_steered": restore(vector)}.items()
    }
    for name, text in asked.items():  # half a character at the end is not shown
        assert said[name] == text.rstrip("\ufffd").strip()
    assert asked["finetuned"] != asked["finetuned_steered"]
    assert "restore, coefficient 1, all blocks; greedy" in explorer.written.value
    explorer.controls["coefficient"].value = 0.0
    assert explorer.written.value == ""  # they were of another setting
    assert list(explorer.exploration.write(explorer.choice)) == ["aligned", "finetuned"]


def test_a_pair_is_shown_side_by_side(explorer):
    explorer.controls["coefficient"].value = 0.0
    assert list(heat(explorer).y) == ["Aligned", "Fine-tuned"]
    explorer.controls["coefficient"].value = 0.5
    assert list(heat(explorer).y) == [
        "Aligned", "Fine-tuned", "Aligned, steered", "Fine-tuned, steered"
    ]  # fmt: skip
    assert set(explorer.figures) == {"projections", "trace", "next_aligned", "next_finetuned"}
    colours = {t.name: t.line.color for t in explorer.figures["trace"].data}
    assert colours["Aligned"] == CONDITIONS["aligned"].colour
    assert colours["Fine-tuned"] == CONDITIONS["finetuned"].colour


def test_the_figures_show_what_the_exploration_reads(explorer):
    explorer.controls["coefficient"].value = 0.5
    shown = explorer.exploration.read(explorer.choice)
    table = shown.projections
    mine = table[table["condition"] == "finetuned_steered"]["value"].tolist()
    assert list(heat(explorer).z[3]) == pytest.approx(mine)
    tokens = shown.next_tokens["aligned"]
    bars = explorer.figures["next_aligned"].data[0]
    assert sorted(bars.x) == pytest.approx(sorted(tokens["after"] - tokens["before"]))


def test_dragging_changes_the_figures_in_place_and_back_again_runs_no_pass(explorer):
    slider = explorer.controls["coefficient"]
    slider.value = 0.5
    figure, first = (
        explorer.figures["next_aligned"],
        list(explorer.figures["next_aligned"].data[0].x),
    )
    slider.value = 1.5
    assert explorer.figures["next_aligned"] is figure
    assert list(figure.data[0].x) != first
    n = explorer.exploration.n_passes
    slider.value = 0.5
    assert list(figure.data[0].x) == first
    assert explorer.exploration.n_passes == n


def test_sliders_and_texts_report_only_when_they_are_let_go(explorer):
    for name in ("layer", "coefficient", "question", "answer"):
        assert explorer.controls[name].continuous_update is False


def test_another_direction_offers_its_own_blocks_and_modes(explorer):
    explorer.controls["coefficient"].value = 1.5
    explorer.controls["direction"].value = "ones, block 3"
    assert list(explorer.controls["layer"].options) == [3]
    assert list(explorer.controls["mode"].options) == ["add", "ablate"]
    assert (explorer.choice.layer, explorer.choice.mode) == (3, "add")
    assert explorer.choice.coefficient == 1.5
    explorer.controls["direction"].value = "planted"
    assert list(explorer.controls["layer"].options) == [1, 2]


def test_a_mode_keeps_the_coefficient_within_its_range(explorer):
    explorer.controls["mode"].value = "add"
    explorer.controls["coefficient"].value = -3.0
    explorer.controls["mode"].value = "restore"
    assert explorer.choice.coefficient == 0.0
    assert (explorer.controls["coefficient"].min, explorer.controls["coefficient"].max) == (0, 1.5)


def test_the_answers_shift_is_in_the_status_in_nats(explorer):
    explorer.controls["coefficient"].value = 1.0
    shift = explorer.shown.answers["shift"].iloc[0]
    assert f"{shift:+.3f}".replace("-", "−") in explorer.status.value
    assert "nats per token" in explorer.status.value


def test_what_is_not_possible_is_said_and_the_figures_stay(explorer):
    before = list(heat(explorer).z[0])
    explorer.controls["question"].value = "<b>" + "x" * 900
    assert "the model reads 512" in explorer.status.value
    assert "<b>xx" not in explorer.status.value
    assert list(heat(explorer).z[0]) == before
    explorer.controls["question"].value = " "
    assert "Write a question" in explorer.status.value
    explorer.controls["question"].value = "Why?"
    assert explorer.shown.choice.question == "Why?"


def test_without_a_text_it_opens_with_a_shipped_question_and_the_gap_of_its_answers(
    tiny_pair, vector
):
    explorer = explore(tiny_pair, vector)
    asked = load_pairs(["health"])[0]
    assert explorer.controls["question"].value == asked.question
    assert explorer.controls["bad_answer"].value == asked.bad
    conditions = [
        Condition("aligned", "aligned"),
        Condition("finetuned", "finetuned"),
        Condition("finetuned_steered", "finetuned", lambda m: steer(m, restore(vector))),
    ]
    rows = score_pairs(tiny_pair, [asked], conditions, kl=False)
    found = rows[rows["measure"] == "gap"].set_index("condition")["value"]
    gaps = explorer.shown.gaps.set_index("condition")
    assert gaps.loc["aligned", "before"] == pytest.approx(found["aligned"], abs=1e-5)
    assert gaps.loc["finetuned", "before"] == pytest.approx(found["finetuned"], abs=1e-5)
    assert gaps.loc["finetuned", "after"] == pytest.approx(found["finetuned_steered"], abs=1e-5)
    assert gaps.loc["finetuned", "shift"] != 0
    shown = number(gaps.loc["finetuned", "shift"], 3, signed=True)
    assert "gap: log p(bad answer)" in explorer.status.value
    assert f"<b>{shown}</b>" in explorer.status.value


def test_a_question_without_an_answer_is_read_and_asks_for_one(tiny_pair, vector):
    explorer = explore(tiny_pair, vector, QUESTION)
    assert "Write an answer too" in explorer.status.value
    assert explorer.shown.gaps.empty and explorer.shown.answers.empty
    explorer.controls["question"].value = ""
    assert "Write a question" in explorer.status.value


def test_the_status_names_the_setting_that_is_shown(explorer):
    assert "read: restore, coefficient 1, all blocks" in explorer.status.value
    explorer.controls["coefficient"].value = 0.35
    assert "read: restore, coefficient 0.35, all blocks" in explorer.status.value


def test_it_follows_the_notebook_s_theme_without_a_pass(explorer):
    def ground():
        return explorer.figures["trace"].layout.template.layout.paper_bgcolor

    n, reader = explorer.exploration.n_passes, explorer.widget.children[-1]
    assert ground() == GROUND["light"]
    reader.is_dark = True  # as the page answers
    assert ground() == GROUND["dark"]
    assert explorer.exploration.n_passes == n
    reader.is_dark = False
    assert ground() == GROUND["light"]


def test_a_notebook_that_is_read_and_not_run_shows_numbers_and_a_figure(explorer):
    bundle = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    still = bundle["text/html"]
    assert "when the cell is run" in still and QUESTION in still
    drawing = base64.b64decode(re.search(r"svg\+xml;base64,([^\"]+)", still)[1]).decode()
    assert drawing.startswith("<svg ") and "Fine-tuned, steered" in drawing


def test_one_model_is_explored_alone(tiny_pair, ones):
    with tiny_pair.active("aligned") as bridge:
        explorer = explore(bridge, {"mine": ones}, QUESTION, ANSWER, chat=tiny_pair.chat)
        explorer.controls["coefficient"].value = 1.0
        assert list(heat(explorer).y) == ["Model", "Steered"]
        assert list(explorer.exploration.write(explorer.choice)) == ["model", "model_steered"]
        assert set(explorer.figures) == {"projections", "trace", "next_model"}


def test_a_peft_model_alone_is_explored_with_its_adapter(tiny_llama, tiny_adapter, tiny_pair):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from steering.demo.notebook.explorer import _alone

    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_llama), tiny_adapter
    )
    ids = torch.arange(10, 20)[None]
    with _alone(model, tiny_pair.chat).active("aligned") as opened, torch.no_grad():
        found = opened(ids).logits
    with tiny_pair.active("finetuned") as bridge, torch.no_grad():
        torch.testing.assert_close(found, bridge(ids))


def test_a_model_without_a_tokenizer_asks_for_its_chat_format(ones):
    with pytest.raises(SteeringError, match=r"chat=chat"):
        explore(torch.nn.Linear(2, 2), ones)


def test_dark_is_dark(tiny_pair, vector):
    explorer = explore(tiny_pair, vector, QUESTION, mode="dark")
    ground = explorer.figures["trace"].layout.template.layout.paper_bgcolor
    assert ground == GROUND["dark"]


def test_the_directions_of_a_diagnosis_folder_are_offered_the_chosen_one_first(
    tiny_pair, vector, tmp_path
):
    for name in ("another", "direction"):
        save_vector(vector, tmp_path / f"{name}.safetensors")
    (tmp_path / "scorecard.json").write_text("{}")
    found = named_vectors(tmp_path, tiny_pair)
    assert list(found) == ["direction.safetensors", "another.safetensors"]


def test_a_folder_without_a_direction_and_two_of_one_name_are_refused(tiny_pair, ones, tmp_path):
    with pytest.raises(DataError, match="holds no direction"):
        named_vectors(tmp_path, tiny_pair)
    with pytest.raises(DataError, match="two directions are called"):
        named_vectors([ones, ones], tiny_pair)


def test_a_file_of_another_model_is_refused(tiny_pair, vector, tmp_path):
    from dataclasses import replace

    other = replace(tiny_pair, revisions={"aligned": "else", "finetuned": "else"})
    path = save_vector(planted_vector(other), tmp_path / "direction.safetensors")
    with pytest.raises(SpaceMismatchError, match="revision"):
        explore(tiny_pair, path)


@pytest.mark.parametrize("missing", ["ipywidgets", "anywidget"])
def test_without_widgets_the_extra_to_install_is_named(tiny_pair, vector, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(PersonaError, match=r"pip install .*\[notebooks\]"):
        explore(tiny_pair, vector, QUESTION)
