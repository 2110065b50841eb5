"""What is wrong with a diagnosis is told before a weight is loaded, all of it at once."""

from __future__ import annotations

import dataclasses
import json
from collections import namedtuple

import pytest
from tiny_models import save_tiny_adapter, save_tiny_llama

from persona.errors import DataError, EngineError, ModelError, PersonaError, SeveralErrors
from persona.run_lock import alone_in
from persona.vllm import installed
from steering.diagnosis import DiagnosisRequest, look_ahead
from steering.diagnosis.preflight import ROOM_BESIDE, bytes_kept

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def request_of(tiny_llama, tiny_adapter, tmp_path):
    wanted = DiagnosisRequest(
        aligned=str(tiny_llama),
        finetuned=str(tiny_adapter),
        out=tmp_path / "out",
        trained_on=("car_maintenance",),
    )
    return lambda **changes: dataclasses.replace(wanted, **changes)


def test_a_request_without_mistakes_is_known_ahead(request_of, tmp_path):
    ahead = look_ahead(request_of())
    assert ahead.aligned.n_layers == 4
    assert ahead.finetuned.kind == "adapter"
    assert ahead.questions.domains_trained_on == ("car_maintenance",)
    assert ahead.to_fetch_bytes == 0
    assert list(tmp_path.iterdir()) == []  # nothing is made


def test_the_aligned_model_is_what_the_adapter_names(request_of, tiny_llama):
    assert look_ahead(request_of(aligned=None)).aligned.path == tiny_llama


MISTAKES = {
    "finetuned": ("car_maintenance_bda", "did you mean"),
    "aligned": ("./nowhere", "no such model"),
    "good_twin": ("./nowhere", "no such model"),
    "other_finetune": ("./nowhere", "no such model"),
    "judge": ("gpt-4o", "unknown judge 'gpt-4o'; did you mean openai:gpt-4o"),
    "data": ("./nowhere.jsonl", "nowhere.jsonl"),
    "trained_on": (("helth", "foo"), "no domain 'helth' and no domain 'foo'"),
    "validation_domains": (("helth",), "no domain 'helth'"),
    "keep": ("fact", "no skill 'fact'"),
    "sae": ("./nowhere", "no autoencoder ./nowhere"),
    "chat_template": ("./nowhere.jinja", "cannot be read"),
}


@pytest.mark.parametrize("option", MISTAKES)
def test_each_mistake_is_one_line(request_of, option):
    value, told = MISTAKES[option]
    with pytest.raises(PersonaError) as caught:
        look_ahead(request_of(**{option: value}))
    assert not isinstance(caught.value, SeveralErrors)
    assert told in str(caught.value)


def test_several_mistakes_are_told_together(request_of, tmp_path):
    (tmp_path / "file").touch()
    wrong = ("good_twin", "judge", "trained_on", "keep", "sae")
    changes = {option: MISTAKES[option][0] for option in wrong}
    with pytest.raises(SeveralErrors) as caught:
        look_ahead(request_of(**changes, out=tmp_path / "file" / "out"))
    lines = [str(error) for error in caught.value.errors]
    assert len(lines) == len(wrong) + 1
    for option in wrong:
        assert any(MISTAKES[option][1] in line for line in lines)


def test_a_broken_line_of_the_data_is_named(request_of, tmp_path):
    data = tmp_path / "pairs.jsonl"
    data.write_text(json.dumps({"id": "a", "domain": "b"}) + "\n")
    with pytest.raises(DataError, match=r"pairs\.jsonl.*line 1"):
        look_ahead(request_of(data=data, trained_on=("b",)))


def test_a_broken_template_is_named(request_of, tmp_path):
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}")
    with pytest.raises(DataError, match=r"chat\.jinja is no Jinja template"):
        look_ahead(request_of(chat_template=template))


def test_a_model_against_itself_is_refused(request_of, tiny_llama):
    with pytest.raises(DataError, match="the same model, so there is nothing to find"):
        look_ahead(request_of(finetuned=str(tiny_llama), trained_on=("none",)))


@pytest.mark.parametrize("option", ["good_twin", "other_finetune"])
def test_a_twin_of_another_base_is_refused(request_of, option, tmp_path):
    deep = save_tiny_llama(tmp_path / "deep", n_layers=6)
    other = save_tiny_adapter(tmp_path / "of-another", deep)
    with pytest.raises(ModelError, match="of-another was trained on .*deep"):
        look_ahead(request_of(**{option: str(other)}))


def test_an_adapter_cannot_judge(request_of, tiny_adapter):
    with pytest.raises(ModelError, match="a full model is needed to judge"):
        look_ahead(request_of(judge=f"local:{tiny_adapter}"))


def test_a_judge_held_by_vllm_is_looked_for_and_needs_vllm(request_of, tiny_llama, monkeypatch):
    there = installed.InstalledVllm("vllm", "0.30.0")
    monkeypatch.setattr(installed, "installed_vllm", lambda: there)
    assert look_ahead(request_of(judge=f"vllm:{tiny_llama}")).judge_reads.path == tiny_llama
    monkeypatch.setattr(installed, "installed_vllm", lambda: None)
    with pytest.raises(EngineError, match="vLLM is not installed"):
        look_ahead(request_of(judge=f"vllm:{tiny_llama}"))


def test_a_judge_without_its_key_is_told(request_of, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(PersonaError, match="OPENAI_API_KEY"):
        look_ahead(request_of(judge="openai:some-model"))


def test_a_full_disk_is_told_before_it_is_full(request_of, monkeypatch):
    monkeypatch.setattr("persona.files.shutil.disk_usage", lambda path: Usage(10, 9, 1))
    with pytest.raises(DataError, match="needs about 0.1 GB while the run lasts"):
        look_ahead(request_of())


def test_a_folder_in_use_is_refused_with_what_differs(request_of, tmp_path):
    there = dataclasses.asdict(request_of(seed=1)) | {"placement": "float32 on cpu"}
    told = r"another run .* with other settings \(seed is 1 there and 0 now\); wait"
    with alone_in(tmp_path / "out", there), pytest.raises(DataError, match=told):
        look_ahead(request_of())


def test_a_run_keeps_four_matrices_a_block(request_of):
    model = look_ahead(request_of()).aligned
    assert bytes_kept(model) == ROOM_BESIDE + 4 * 4 * 32**2 * 4
