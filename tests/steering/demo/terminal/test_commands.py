"""A line that begins with / does what it says, or changes nothing and says why in one line."""

from __future__ import annotations

import pytest
from demo_cases import planted_vector

from persona.directions.storage import save_vector
from persona.errors import PersonaError, SteeringError
from steering.demo import Sampling, Session, from_persona_vector, obey
from steering.demo.session.starting import parse_layers


@pytest.fixture
def session(tiny_pair):
    vector = from_persona_vector(planted_vector(tiny_pair))
    return Session(tiny_pair, vector, vector.default_setting, Sampling(8, 0.0))


def test_commands_change_the_session(session, tmp_path):
    for line in ("/coef -2", "/mode add", "/layers 1-1", "/on aligned", "/seed 9", "/tokens 5"):
        obey(line, session)
    obey("/temperature 0.5", session)
    assert session.setting.words == "add, coefficient -2, block 1, aligned model"
    assert session.sampling == Sampling(5, 0.5, 9)
    assert obey("/layers all", session).text.startswith("steered: add, coefficient -2, all blocks")
    assert "piles up" in obey("/show", session).text
    assert not session.remembers
    assert obey("/keep on", session).text == "each question comes after those before it"
    assert session.remembers
    obey("/keep off", session)
    assert not session.remembers
    assert obey("/quit", session).leave


@pytest.mark.parametrize(
    "line",
    [
        *("/coef", "/coef nan", "/mode praise", "/layers 9", "/layers x", "/layers 2-1", "/on top"),
        *("/seed -1", "/keep", "/temperature cold", "/tokens 0", "/load", "/load none.safetensors"),
        *("/save", "/again", "/", "/coef1"),
    ],
)
def test_a_command_that_is_not_possible_changes_nothing(session, line):
    before = (session.setting, session.sampling, session.vector)
    with pytest.raises(PersonaError) as caught:
        obey(line, session)
    assert "\n" not in str(caught.value)
    assert (session.setting, session.sampling, session.vector) == before


def test_saving_writes_the_conversation_and_never_over_a_file(session, tmp_path):
    path = tmp_path / "talk.jsonl"
    with pytest.raises(PersonaError, match="nothing to save"):
        obey(f"/save {path}", session)
    list(session.answer("aligned", "Hi"))
    assert obey(f"/save {path}", session).text == f"1 answers in {path}"
    with pytest.raises(PersonaError, match="is there already; name another file"):
        obey(f"/save {path}", session)
    with pytest.raises(PersonaError, match="cannot write"):
        obey(f"/save {path}/below.jsonl", session)


def test_another_direction_can_be_loaded_while_chatting(session, tmp_path):
    other = planted_vector(session.pair, layers=(0,), seed=8, coefficient=0.5)
    path = save_vector(other, tmp_path / "other.safetensors")
    assert "other.safetensors, block 0" in obey(f"/load {path}", session).text
    assert (session.vector.layers, session.setting.coefficient) == ([0], 0.5)


@pytest.mark.parametrize(("text", "blocks"), [("12", (12, 12)), (" 1 - 3 ", (1, 3)), ("ALL", None)])
def test_blocks_are_named_in_three_ways(text, blocks):
    assert parse_layers(text) == blocks


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1-2-3", "12345", "٣"])
def test_other_names_of_blocks_are_refused(text):
    with pytest.raises(SteeringError, match="as 12, as 10-20 or as all"):
        parse_layers(text)


def test_another_direction_steers_beside_the_first_at_its_coefficient(session, tmp_path):
    other = save_vector(
        planted_vector(session.pair, (0, 3), seed=7), tmp_path / "other one.safetensors"
    )
    told = obey(f"/also {other} 0.5", session).text
    assert "beside it other one.safetensors: restore, coefficient 0.5, all blocks" in told
    _, both = session.steering("steered")
    obey("/drop", session)
    _, alone = session.steering("steered")
    assert len(both) == len(alone) + 2 and session.further == ()
    with pytest.raises(SteeringError, match="beside the first there are 0 directions"):
        obey("/drop", session)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("/also", "takes a file and a coefficient"),
        ("/also other.gguf", "takes a file and a coefficient"),
        ("/also other.gguf much", "takes a number"),
        ("/also nowhere.gguf 0.5", "nowhere.gguf"),
    ],
)
def test_a_direction_that_cannot_be_added_leaves_the_session_as_it_was(session, line, why):
    with pytest.raises(PersonaError, match=why):
        obey(line, session)
    assert session.further == ()


def test_two_directions_that_undo_each_other_are_refused(session, tmp_path):
    same = save_vector(planted_vector(session.pair), tmp_path / "same.safetensors")
    with pytest.raises(SteeringError, match="both set coordinates"):
        obey(f"/also {same} 0.5", session)
    assert session.further == ()


def test_a_column_under_a_system_prompt_comes_and_goes(session):
    assert "told: Be careful" in obey("/system Be careful", session).text
    assert session.columns[-1] == "prompted"
    obey("/system off", session)
    assert "prompted" not in session.columns
    with pytest.raises(SteeringError, match="has 2,001 characters"):
        obey(f"/system {'a' * 2001}", session)


def test_examples_say_how_they_were_chosen(session):
    *questions, how = obey("/examples", session).text.splitlines()
    assert len(questions) == 6 and "not chosen by what happens to it" in how
