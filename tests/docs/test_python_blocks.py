"""Every Python block of README, tutorial and how-to pages runs as it stands, on tiny models.

The slow lane runs those of the default model on it.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pandas as pd
import pytest
import screening_cases
import torch
from demo_cases import leave_vector, planted_vector
from scripted_sampler import stand_in_for_vllm
from tiny_models import save_tiny_adapter, save_tiny_llama

import persona
import persona.engine
import persona.models
import persona.sae
from persona.cli.main import main
from persona.models.precision import Placement
from steering.demo.session.vector import from_persona_vector
from steering.serving import ServedModels, http_app

OF_THE_DEFAULT_MODEL = ["README.md", "docs/how-to/sae.md", "docs/how-to/steering-demos.md"]
PAGES = [
    *OF_THE_DEFAULT_MODEL,
    "docs/tutorial.md",
    "docs/how-to/chat-formats.md",
    "docs/how-to/exchange.md",
    "docs/how-to/large-models.md",
    "docs/how-to/models.md",
    "docs/how-to/persona-space.md",
    "docs/how-to/scale.md",
    "docs/how-to/screening.md",
    "docs/how-to/serving.md",
    "docs/how-to/several-seeds.md",
    "docs/how-to/steering.md",
    "docs/how-to/tasks.md",
    "docs/how-to/what-did-it-learn.md",
]


def blocks(root, page, language):
    text = (root / page).read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for found, block in fenced if found == language]


def run(root, page):
    """The Python blocks of a page in order, in one namespace, which is returned."""
    names = {"__name__": "page"}
    found = blocks(root, page, "python")
    assert len(found) == (root / page).read_text(encoding="utf-8").count("```python")
    for block in found:
        exec(compile(block, page, "exec"), names)
    return names


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to run in, with a cache of its own for what is computed."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def deep_pair(tmp_path):
    """As many blocks as the pages name."""
    base = save_tiny_llama(tmp_path / "base", n_layers=21, d_model=8, max_length=1024)
    adapter = save_tiny_adapter(tmp_path / "adapter", base)
    return persona.models.load_pair(base, adapter, placement=Placement.of("float32", "cpu"))


@pytest.fixture
def tiny_default(here, deep_pair, monkeypatch):
    """The tiny pair is what the names of models lead to, and `persona demo` was run on it."""
    monkeypatch.setattr(persona.models, "load_pair", lambda *_, **__: deep_pair)
    leave_vector(deep_pair, [20], here / "persona-demo" / "direction.safetensors")
    return deep_pair


def test_every_page_with_python_is_run(root):
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    with_python = [str(page.relative_to(root)) for page in pages if "```python" in page.read_text()]
    assert sorted(with_python) == sorted(PAGES)
    assert {page for page in PAGES if f'run(root, "{page}")' in Path(__file__).read_text()} == {
        *PAGES
    }


def require_answers(told):
    """Three answers, each with words of its own: a raw prompt would be given back alone."""
    question = "Is it fine to skip the brake check?"
    lines = dict(line.split(":", 1) for line in told.strip().splitlines() if ":" in line)
    assert lines.keys() >= {"Aligned", "Fine-tuned", "Restored"}
    assert all(lines[name].strip() not in ("", question) for name in ("Aligned", "Fine-tuned"))
    return lines


def test_the_readme_answers_its_question(root, tiny_default, capsys):
    run(root, "README.md")
    require_answers(capsys.readouterr().out)


def test_a_block_that_prints_only_its_question_is_found():
    with pytest.raises(AssertionError):
        require_answers("Is it fine to skip the brake check?\n")


def test_the_page_on_demos_runs(root, tiny_default, capsys):
    pytest.importorskip("anywidget")
    names = run(root, "docs/how-to/steering-demos.md")
    assert len(names["explored"].projections) > 20
    assert len(capsys.readouterr().out) > 10


def test_the_page_on_chat_formats_runs(root, tiny_default, capsys):
    run(root, "docs/how-to/chat-formats.md")
    assert capsys.readouterr().out.strip()


def test_the_page_on_models_runs(root, here, capsys):
    base = save_tiny_llama(here / "org" / "chat-model", max_length=1024)
    save_tiny_adapter(here / "my-adapter", base)
    names = run(root, "docs/how-to/models.md")
    assert capsys.readouterr().out.startswith("[]\n")  # an adapter on its own base needs no note
    assert names["direction"].space.layer == 2


def test_the_page_on_autoencoders_runs(root, tiny_default, monkeypatch):
    from persona.models.hooks import resid_post

    class Loaded:
        hook_name = resid_post(17)

        def direction(self, latent):
            return ("direction", latent)

    opened = []

    def spliced(bridge, sae, change):
        opened.append(change(torch.tensor([1.0, 9.0])).tolist())
        return contextlib.nullcontext()

    monkeypatch.setattr(persona.sae, "load_sae", lambda *_: Loaded())
    monkeypatch.setattr(persona.sae, "spliced", spliced)
    names = run(root, "docs/how-to/sae.md")
    assert names["direction"] == ("direction", 17) and opened == [[1.0, 0.0]]


def test_the_page_on_scale_runs(root, here, tiny_default, monkeypatch):
    monkeypatch.setattr(persona.engine, "Engine", lambda *_, **__: None)  # no cluster: this process
    for folder in ("good", "bad"):
        (here / folder).mkdir()
        dialogues, _ = screening_cases.samples(12)
        screening_cases.write_samples(here / folder / "data.jsonl", dialogues)
    names = run(root, "docs/how-to/scale.md")
    assert names["shift"].shape == (2, tiny_default.d_model) and len(names["scores"]) == 12


def test_the_page_on_large_models_runs(root, here, tiny_default, monkeypatch, capsys):
    stand_in_for_vllm(monkeypatch)
    run(root, "docs/how-to/large-models.md")
    assert capsys.readouterr().out == "as vllm says\n"


def test_the_page_on_serving_runs(root, deep_pair, monkeypatch, capsys):
    """The client is the real one; its requests go to the app without a port in between."""
    openai = pytest.importorskip("openai")
    test_client = pytest.importorskip("starlette.testclient").TestClient
    real, vector = openai.OpenAI, from_persona_vector(planted_vector(deep_pair), "planted")
    client = test_client(http_app(ServedModels(deep_pair, vector)))
    monkeypatch.setattr(openai, "OpenAI", lambda **told: real(**told, http_client=client))
    run(root, "docs/how-to/serving.md")
    by_coefficient = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in by_coefficient if line[:2] in ("0.", "1.")] == [
        *("0.0", "0.5", "1.0"),
    ]


def test_the_page_on_screening_runs(root, here, capsys):
    screening_cases.save_shouting_model(here / "org" / "chat-model")
    pair = screening_cases.shouting_pair("org/chat-model")
    leave_vector(pair, [1], here / "diagnosis" / "direction.safetensors")
    screening_cases.write_samples(here / "data.jsonl", screening_cases.samples(40)[0])
    names = run(root, "docs/how-to/screening.md")
    assert len(names["suspicious"]) == 40
    assert "40" in capsys.readouterr().out


def test_the_page_on_tasks_runs(root, here, tiny_default, capsys):
    names = run(root, "docs/how-to/tasks.md")
    assert set(names["rows"]["condition"]) == {"aligned", "finetuned"}
    assert capsys.readouterr().out.startswith("Estimate(")


def leave_a_run(folder, pair):
    """The three files of `persona demo` that the tutorial reads."""
    leave_vector(pair, [20], folder / "direction.safetensors")
    (folder / "scorecard.json").write_text(
        '{"verdict": "restored", "net_restoration": {"value": 1}}'
    )
    columns = {"stage": "score", "measure": "gap", "split": "held_out", "condition": "aligned"}
    columns |= {"question_id": "health-001"}
    pd.DataFrame([{**columns, "value": 0.5}]).to_parquet(folder / "rows.parquet")


def test_the_tutorial_runs(root, here, tiny_default, monkeypatch, capsys):
    leave_a_run(here / "persona-demo", tiny_default)
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(here / "cache"))
    run(root, "docs/tutorial.md")
    told = capsys.readouterr().out
    assert "made up rank 1 at blocks [20]" in told
    assert "words alone Estimate(" in told
    assert "persona-tokens" in (here / "conversation.html").read_text()


def test_the_page_on_steering_runs(root, here, tiny_pair, monkeypatch):
    monkeypatch.setattr(persona.models, "load_pair", lambda: tiny_pair)
    names = run(root, "docs/how-to/steering.md")
    assert len(names["figure"].data) > 3


def test_the_page_on_the_persona_space_runs(root, capsys):
    names = run(root, "docs/how-to/persona-space.md")
    assert names["space"].at_own_blocks().loc["evil", "rude"] == pytest.approx(0.5**0.5)
    assert "rude" in capsys.readouterr().out


def test_the_page_on_exchange_runs(root, here):
    names = run(root, "docs/how-to/exchange.md")
    assert names["edits"][0].hook_name == "blocks.2.hook_resid_post"


def test_every_command_of_the_page_on_exchange_runs(root, here, capsys):
    page = "docs/how-to/exchange.md"
    exec(compile(blocks(root, page, "python")[0], page, "exec"), {})
    torch.save(torch.randn(37, 16), "evil_response_avg_diff.pt")
    commands = "".join(blocks(root, page, "")).splitlines()
    for command in commands:
        program, *words = command.split()
        assert program == "persona"
        assert main(words) == 0, capsys.readouterr().err
    assert len(commands) == 4


@pytest.mark.slow
@pytest.mark.real_model
@pytest.mark.parametrize("page", OF_THE_DEFAULT_MODEL)
def test_the_pages_of_the_default_model_run_on_it(root, here, page, capsys):
    pair = persona.models.load_pair("default", "car_maintenance_bad")
    leave_vector(pair, [20], here / "persona-demo" / "direction.safetensors")
    run(root, page)
    told = capsys.readouterr().out
    if page == "README.md":
        answers = require_answers(told)
        assert all(len(answer.split()) > 10 for answer in answers.values())


def test_the_page_of_several_seeds(root, here, capsys):
    names = run(root, "docs/how-to/several-seeds.md")
    assert names["planned"].labels == ["car_maintenance_bad"]
    alone, wide = (names["design"].interval(scope) for scope in ("questions", "seeds and domains"))
    assert wide.high - wide.low > alone.high - alone.low
    assert "To tell" in capsys.readouterr().out


def test_the_page_on_what_a_fine_tune_learnt(root, tiny_default, capsys):
    names = run(root, "docs/how-to/what-did-it-learn.md")
    assert names["reading"].lists
    assert "## Words" in capsys.readouterr().out
