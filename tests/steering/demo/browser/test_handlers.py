"""What a press of a button does: every tab its own conversation, errors in one line."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from demo_cases import hook_count, planted_vector

from persona.behaviour.gap import score_neutral
from persona.behaviour.scoring import UNEDITED
from persona.data import load_neutral
from persona.directions.storage import load_vector, save_vector
from persona.errors import PersonaError
from steering.demo import Sampling, Session, Setting, edits_of, from_persona_vector
from steering.demo.browser import conversation_handlers
from steering.demo.browser import handlers as handlers_module
from steering.demo.browser.dose_table import damage_doses, dose_rows, doses
from steering.demo.browser.handlers import Handlers
from steering.demo.browser.page_controls import Controls
from steering.demo.session.evidence import Dose
from steering.demo.session.example_questions import shipped_questions
from steering.edits.steer import edited

CONTROLS = Controls(1.0, "restore", 1, 2, "finetuned", 0.0, 6, 0)


@pytest.fixture
def handlers(tiny_pair):
    vector = from_persona_vector(planted_vector(tiny_pair))
    return Handlers(Session(tiny_pair, vector, vector.default_setting, Sampling(6, 0.0)))


def test_a_question_is_answered_in_every_column_of_its_own_tab(handlers):
    *_, page = handlers.ask("one", "Hi", CONTROLS)
    assert len(page) == 6
    assert all("Hi</p>" in column for column in page[:3])
    assert not any("Hi</p>" in column for column in handlers.page("two")[:3])


def test_a_question_goes_on_from_the_last_where_the_box_is_ticked(handlers):
    list(handlers.ask("one", "Hi", CONTROLS))
    list(handlers.ask("one", "And?", replace(CONTROLS, remembers=True)))
    list(handlers.ask("one", "Then?", CONTROLS))
    asked = handlers.tab("one").session.of("aligned")
    assert [exchange.alone for exchange in asked] == [True, False, True]


def test_again_after_the_slider_moved_changes_the_steered_column_alone(handlers):
    *_, first = handlers.ask("one", "Hi", CONTROLS)
    *_, second = handlers.ask_again("one", replace(CONTROLS, coefficient=-3.0))
    assert first[:2] == second[:2]
    assert first[2] != second[2]
    assert second[2].count('class="asked"') == 1


def test_again_before_any_question_shows_the_new_setting_and_asks_nothing(handlers):
    [page] = handlers.ask_again("one", replace(CONTROLS, coefficient=2.0))
    assert "coefficient 2, blocks 1-2" in page[2]
    assert handlers.tab("one").session.exchanges == []


def test_stop_ends_the_answer_and_leaves_the_other_columns_unasked(handlers):
    before = hook_count(handlers.first.pair)
    frames = handlers.ask("one", "Hi", replace(CONTROLS, max_new_tokens=400))
    next(frames)
    next(frames)
    handlers.stop("one")
    list(frames)
    [exchange] = handlers.tab("one").session.exchanges
    assert (exchange.column, exchange.answer.ended) == ("finetuned", "stopped")
    assert hook_count(handlers.first.pair) == before


def test_frames_that_nobody_takes_any_more_leave_no_hook(handlers):
    before = hook_count(handlers.first.pair)
    frames = handlers.ask("one", "Hi", replace(CONTROLS, max_new_tokens=400))
    next(frames)
    next(frames)
    frames.close()
    assert hook_count(handlers.first.pair) == before


def test_controls_that_mean_nothing_are_refused_before_the_model_runs(handlers):
    with pytest.raises(PersonaError, match="from the first to the last; got 2-1"):
        list(handlers.ask("one", "Hi", replace(CONTROLS, first=2, last=1)))
    with pytest.raises(PersonaError, match="the question is empty"):
        list(handlers.ask("one", " ", CONTROLS))
    assert handlers.tab("one").session.exchanges == []


def test_an_uploaded_file_goes_through_the_refusing_readers(handlers, tmp_path):
    path = tmp_path / "<b>bad.safetensors"
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(PersonaError) as caught:
        handlers.load("one", str(path))
    assert str(caught.value).startswith("cannot read <b>bad.safetensors")
    assert "&lt;b&gt;bad" in conversation_handlers.told(caught.value)
    assert handlers.tab("one").session.vector is handlers.first.vector


def test_a_direction_is_loaded_into_one_tab_and_saved_as_it_is_set(handlers, tiny_pair, tmp_path):
    other = save_vector(planted_vector(tiny_pair, (0, 3), seed=4), tmp_path / "d.safetensors")
    assert handlers.load("one", str(other)) == []
    assert handlers.tab("one").session.vector.layers == [0, 3]
    assert handlers.tab("two").session.vector.layers == [1, 2]
    saved = handlers.save("one", replace(CONTROLS, coefficient=0.5, first=3, last=3))
    loaded = load_vector(saved, tiny_pair)
    assert (loaded.layers, loaded.coefficient) == ([3], 0.5)


def test_a_tab_that_is_closed_is_forgotten_and_too_many_push_out_the_oldest(handlers):
    tab = handlers.tab("one")
    handlers.close("one")
    assert tab.stop.is_set()
    for key in range(conversation_handlers.MOST_TABS + 1):
        handlers.tab(str(key))
    assert len(handlers.tabs) == conversation_handlers.MOST_TABS
    assert "0" not in handlers.tabs


def test_a_page_without_a_key_gets_one_of_its_own_and_shares_nothing(handlers):
    with pytest.raises(PersonaError, match="no conversation of its own; load it again"):
        list(handlers.ask("", "secret of one", CONTROLS))
    first, second = handlers.own(""), handlers.own("")
    assert first != second and len(first) == 32
    list(handlers.ask(first, "secret of one", CONTROLS))
    assert handlers.own(first) == first
    assert not any("secret of one" in column for column in handlers.page(second))


def test_a_tab_in_use_is_not_the_one_that_is_pushed_out(handlers):
    first = handlers.tab("first")
    for key in range(conversation_handlers.MOST_TABS + 5):
        handlers.tab(str(key))
        assert handlers.tab("first") is first
    assert "0" not in handlers.tabs


def test_two_requests_of_a_page_at_once_meet_in_one_tab(handlers):
    with ThreadPoolExecutor(16) as pool:
        tabs = list(pool.map(handlers.tab, ["one"] * 200))
    assert len({id(tab) for tab in tabs}) == 1


def test_an_answer_that_is_under_way_does_not_come_into_the_conversation_begun_anew(handlers):
    frames = handlers.ask("one", "Hi", replace(CONTROLS, max_new_tokens=400))
    next(frames)
    next(frames)
    handlers.reset("one")
    *_, last = frames
    assert last == handlers.page("one")
    assert not any("Hi</p>" in column for column in last)
    assert handlers.tab("one").session.exchanges == []


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("a" * 20_001, "has 20,001 characters; at most 20,000 are read"),
        ("half \ud83d a face", "half of a character"),
        (None, "a question is text; got NoneType"),
    ],
)
def test_a_question_that_no_text_field_sends_is_refused_before_it_is_tokenised(
    handlers, monkeypatch, unchecked_hints, question, why
):
    monkeypatch.setattr(Session, "answer", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(PersonaError, match=why) as caught:
        list(handlers.ask("one", question, CONTROLS))
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("seed", None, "seed: a number is needed; got 'None'"),
        ("seed", 1.5, "seed: a whole number is needed; got 1.5"),
        ("seed", float("inf"), "seed: a whole number is needed; got inf"),
        ("seed", -1, "the seed is a whole number from 0"),
        ("seed", 10**30, "the seed is a whole number from 0"),
        ("max_new_tokens", -3, "at least 1 token"),
        ("temperature", float("nan"), "the temperature is 0 or above; got nan"),
        ("coefficient", float("nan"), "must be a finite number; got nan"),
        ("coefficient", "much", "coefficient: a number is needed; got 'much'"),
        ("first", float("nan"), "first block: a whole number is needed; got nan"),
        ("mode", "evil", "the mode must be"),
        ("side", None, "the steered model must be"),
    ],
)
def test_settings_that_no_widget_sends_are_one_line(handlers, unchecked_hints, field, value, why):
    with pytest.raises(PersonaError, match=why):
        list(handlers.ask("one", "Hi", replace(CONTROLS, **{field: value})))


def test_the_lowest_temperatures_take_the_likeliest_token(handlers):
    *_, cold = handlers.ask("one", "Hi", CONTROLS)
    *_, nearly = handlers.ask("two", "Hi", replace(CONTROLS, temperature=1e-320))
    assert nearly == cold


def test_doses_stand_around_the_present_one_with_no_edit_among_them():
    assert doses(Setting(0.75, "restore")) == [0.0, 0.5, 0.75, 1.0, 1.5]
    assert doses(Setting(-0.5, "add")) == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert 0.0 in doses(Setting(0.0, "add"))


@pytest.mark.parametrize("mode", ["restore", "add"])
def test_the_dose_curve_begins_at_the_unsteered_model(tiny_pair, mode):
    vector = from_persona_vector(planted_vector(tiny_pair))
    questions = [replace(q, good=q.good[:30], bad=q.bad[:29]) for q in shipped_questions(2)]
    assert len({q.domain for q in questions}) == 2
    rows = dose_rows(tiny_pair, vector, Setting(1.0, mode), questions, n_random=2)
    gap = rows.groupby(["stage", "condition", "coefficient", "seed"], dropna=False)["value"].mean()
    unsteered = gap["score", "finetuned"].item()
    assert gap["dose", "direction", 0.0].item() == pytest.approx(unsteered, abs=1e-6)
    # At 0 every random draw is the unsteered model, and one stands for all.
    assert gap["dose", "random", 0.0].to_numpy() == pytest.approx([unsteered], abs=1e-6)
    at_one = [gap["dose", "direction", 1.0].item(), *gap["dose", "random", 1.0]]
    assert len({round(value, 5) for value in [*at_one, unsteered]}) == 4


def test_answers_are_measured_when_all_are_there_and_not_where_one_was_stopped(handlers):
    *_, page = handlers.ask("one", shipped_questions(1)[0].question, CONTROLS)
    assert all("<footer>" in column and "gap" in column for column in page[:3])
    assert 'class="light' in page[2] and 'class="light' not in page[1]
    *_, again = handlers.ask_again("one", replace(CONTROLS, coefficient=-3.0))
    assert again[:2] == page[:2] and again[2] != page[2] and "<footer>" in again[2]
    frames = handlers.ask("one", "Hi", replace(CONTROLS, max_new_tokens=400))
    next(frames)
    handlers.stop("one")
    *_, stopped = frames
    assert not any("<footer>" in column for column in stopped)


def test_the_prompted_column_is_the_fine_tuned_model_under_the_prompt(handlers):
    *_, page = handlers.ask("one", "Hi", replace(CONTROLS, system_prompt="Be careful."))
    session = handlers.tab("one").session
    [prompted], [plain] = session.of("prompted"), session.of("finetuned")
    assert prompted.system_prompt == "Be careful." and "told: Be careful." in page[3]
    assert prompted.answer.text != plain.answer.text
    *_, without = handlers.ask("one", "Hi", CONTROLS)
    assert without[3] == ""


def test_a_direction_beside_the_first_at_0_changes_no_word(handlers, tiny_pair, tmp_path):
    list(handlers.ask("one", "Hi", CONTROLS))
    other = save_vector(planted_vector(tiny_pair, (0, 3), seed=7), tmp_path / "other.safetensors")
    assert handlers.load("one", str(other), beside=True) == []
    of = lambda at: handlers.tab("one").session.of("steered")[at].answer.text  # noqa: E731
    before = of(-1)
    list(handlers.ask_again("one", replace(CONTROLS, further=((0.0, "restore"),) * 3)))
    assert of(-1) == before
    list(handlers.ask_again("one", replace(CONTROLS, further=((2.0, "restore"),) * 3)))
    assert of(-1) != before
    handlers.drop("one", 0)
    list(handlers.ask_again("one", CONTROLS))
    assert of(-1) == before


def test_the_conversation_is_kept_as_one_page_without_scripts_or_addresses(handlers):
    with pytest.raises(PersonaError, match="nothing to save yet"):
        handlers.transcript("one")
    list(handlers.ask("one", "<script>alert(1)</script> https://elsewhere.example", CONTROLS))
    page = Path(handlers.transcript("one")).read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=|url\(|@import", page)


def test_measuring_the_doses_of_a_setting_draws_them_under_the_slider(handlers, monkeypatch):
    found = (Dose(0.0, 0.0), Dose(1.0, 0.03), Dose(1.5, 0.07))
    monkeypatch.setattr(handlers_module, "dose_rows", lambda *_: None)
    monkeypatch.setattr(handlers_module, "dose_figure", lambda *_: "figure")
    monkeypatch.setattr(handlers_module, "damage_doses", lambda *_: found)
    assert "was not measured at this setting" in handlers.page("one")[-1]
    assert handlers.dose("one", CONTROLS) == "figure"
    assert "From 1.2 on neutral text loses more than 0.05 nats" in handlers.page("one")[-1]
    list(handlers.ask_again("one", replace(CONTROLS, first=2)))  # other blocks: another curve
    assert "was not measured at this setting" in handlers.page("one")[-1]


def test_damage_is_read_above_the_unsteered_model(tiny_pair):
    vector = from_persona_vector(planted_vector(tiny_pair))
    found = damage_doses(tiny_pair, vector, Setting(1.0, "restore"))
    assert [dose.coefficient for dose in found] == [0.0, 0.5, 1.0, 1.5]
    rows = score_neutral(
        tiny_pair,
        load_neutral()[:10],
        [UNEDITED[1], edited("s", "finetuned", edits_of(vector, Setting(1.5, "restore")))],
    )
    ce = rows[rows["measure"] == "neutral_ce_nats"].groupby("condition")["value"].mean()
    assert found[-1].damage == pytest.approx(ce["s"] - ce["finetuned"], abs=1e-5)
