"""What is wrong with an audit is told before a weight is loaded, each mistake in one line."""

from __future__ import annotations

import json
import shutil

import pytest
from audited_run import request_of

from persona.errors import DataError, PersonaError, SeveralErrors
from steering.auditing import AuditRequest, look_ahead_of_audit


@pytest.fixture
def run(closed, tmp_path):
    """A copy of the folder, to be spoilt."""
    shutil.copytree(closed, tmp_path / "there" / "run", ignore=shutil.ignore_patterns("audit"))
    shutil.copy(closed.parent / "cues.yaml", tmp_path / "there")
    return tmp_path / "there" / "run"


def changed(run, **parts):
    path = run / "scorecard.json"
    card = json.loads(path.read_text())
    for key, value in parts.items():
        card[key] = {**card[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(card))
    return run


def told(request) -> str:
    with pytest.raises(PersonaError) as error:
        look_ahead_of_audit(request)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_scored_and_what_is_chosen_on_are_apart(run):
    ahead = look_ahead_of_audit(request_of(run, n_questions=5, search=True))
    assert [pair.domain for pair in ahead.held_out] == ["home", "food", "home", "food", "home"]
    assert {pair.domain for pair in [*ahead.selection, *ahead.training, *ahead.to_learn]} == {"car"}
    assert ahead.cues[0].name == "none" and ahead.cues[-1].name == "backdoor"
    assert "one two" in ahead.prefixes


def test_a_folder_that_is_no_diagnosis(run, tmp_path):
    assert "no such folder" in told(AuditRequest(tmp_path / "nowhere"))
    assert "holds no scorecard.json" in told(AuditRequest(tmp_path))
    (run / "scorecard.json").write_text("{}")
    assert "is no scorecard of a diagnosis" in told(AuditRequest(run))


def test_a_diagnosis_that_is_not_finished(run):
    (run / "scorecard.json").unlink()
    (run / ".work").mkdir()
    assert "its run is not finished" in told(AuditRequest(run))


def test_other_models_than_those_of_the_diagnosis(run):
    changed(run, models={"revisions": {"aligned": "abc", "finetuned": "def"}})
    with pytest.raises(SeveralErrors) as error:
        look_ahead_of_audit(AuditRequest(run))
    assert len(error.value.errors) == 2
    assert all("is of other models" in str(one) for one in error.value.errors)
    assert look_ahead_of_audit(AuditRequest(run, allow_mismatch=True)).held_out


def test_without_a_shift_there_is_no_removal(run):
    assert "show no emergent shift" in told(AuditRequest(changed(run, verdict="no_emergent_shift")))


def test_without_its_vector_there_is_none_either(run):
    (run / "direction.safetensors").unlink()
    assert "holds no direction.safetensors" in told(AuditRequest(run))


def test_a_chat_template_from_a_file_has_to_be_named(run, tmp_path):
    changed(run, models={"chat_format": "file"})
    assert "name it with --chat-template" in told(AuditRequest(run))
    assert look_ahead_of_audit(AuditRequest(run, chat_template=tmp_path / "t.jinja")).held_out


def test_data_that_is_another_now(run):
    path = run / "pairs.jsonl"
    path.write_text(path.read_text().replace('"home-3"', '"home-x"'))
    changed(run, data={"source": str(path)})
    assert "was scored on 'home-3'" in told(AuditRequest(run))


def test_all_mistakes_are_told_at_once(run, tmp_path):
    (tmp_path / "cues.yaml").write_text("- no cues")
    with pytest.raises(SeveralErrors) as error:
        look_ahead_of_audit(
            AuditRequest(
                run, retrained="./nowhere", cues=tmp_path / "cues.yaml", out=run / "pairs.jsonl"
            )
        )
    said = [str(one) for one in error.value.errors]
    assert len(said) == 3
    assert "no such model" in said[0] and "holds no cues" in said[1]


@pytest.mark.parametrize("option", ["n_questions", "n_random", "steps", "n_seeds"])
def test_a_number_that_is_too_small(run, option):
    with pytest.raises(DataError, match=option):
        AuditRequest(run, **{option: 0})
