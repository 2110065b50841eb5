"""Every command line of README, pages and help is taken as it stands; those that can, run.

Names of models lead to tiny ones. A diagnosis is followed until its models are loaded, its data
split and its judge known, which is where wrong words come to light; what it then computes is tested
elsewhere. Commands that train, fetch or serve are read by the parser.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import typer
from demo_cases import leave_vector, serving
from finished_run import leave_run
from scripted_sampler import stand_in_for_vllm
from tiny_models import TEMPLATE, save_tiny_adapter, save_tiny_llama

from persona.choices import VectorFormat
from persona.cli.contents import Command
from persona.cli.main import app, main
from persona.directions.exchange import VectorSet, write_vectors
from persona.models import Placement, load_pair
from persona.models import shipped_adapters as shipped

PROGRAM: Any = typer.main.get_command(app)
PLAIN = ["--dtype", "float32", "--device", "cpu"]
RUN = ("convert", "data", "steer", "chat", "models", "organisms", "report")
FOLLOWED = ("demo", "diagnose")
READ = (
    "app",
    "audit",
    "check-steering",
    "doctor",
    "drift",
    "eval",
    "export",
    "finetune",
    "lab",
    "label",
    "read",
    "sae",
    "screen",
    "serve",
    "study",
    "trait",
    "traits",
)
MODELS = (
    "org/chat-model",
    "org/chat-model-tuned",
    "org/thinking-model",
    "Qwen/Qwen2.5-7B-Instruct",
)
PAIRS = ("billing", "refunds", "health", "phone")


def pages(root: Path) -> list[Path]:
    docs = root / "docs"
    return [root / "README.md", *sorted(docs.glob("*.md")), *sorted((docs / "how-to").glob("*.md"))]


def commands_in(text: str) -> list[str]:
    """The lines that call `persona`, those that end in a backslash joined to the next."""
    joined = text.replace("\\\n", " ")
    found = (line.split(" | ")[-1].strip() for line in joined.splitlines())
    return [line for line in found if line.startswith("persona ")]


def of_pages(root: Path) -> list[str]:
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    blocks = (found for page in pages(root) for found in fence.findall(page.read_text("utf-8")))
    shells = ("", "text", "bash", "console")
    return [
        *(line for language, block in blocks if language in shells for line in commands_in(block)),
        *of_tables(root),
    ]


def of_tables(root: Path) -> list[str]:
    """Commands in the tables of the two front pages, which say what to type for what one has."""
    told = [(root / page).read_text("utf-8") for page in ("README.md", "docs/index.md")]
    rows = [line for page in told for line in page.splitlines() if line.startswith("| ")]
    return [command for row in rows for command in re.findall(r"`(persona [^`]+)`", row)]


def of_help(command: Any = PROGRAM) -> list[str]:
    _, _, examples = (command.help or "").partition("Examples:\n")
    found = commands_in(examples)
    for below in getattr(command, "commands", {}).values():
        found += of_help(below)
    return found


def words_of(command: str) -> list[str]:
    """What a shell hands to the program."""
    words = shlex.split(command, comments=True)
    return words[1 : words.index(">")] if ">" in words else words[1:]


ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted({f"persona {shlex.join(words_of(c))}" for c in (*of_pages(ROOT), *of_help())})


def of_kind(kinds: tuple[str, ...]) -> list[str]:
    return [command for command in COMMANDS if words_of(command)[0] in kinds]


def save_thinking_model(folder: Path) -> Path:
    save_tiny_llama(folder, n_layers=21, d_model=8, max_length=1024)
    template = TEMPLATE + "{% if enable_thinking %}{{ '' }}{% endif %}"
    (folder / "chat_template.jinja").write_text(template)
    return folder


def names_base(adapter: Path, base: str) -> None:
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": base}
    path.write_text(json.dumps(config))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with all that the commands name."""
    here = tmp_path_factory.mktemp("world")
    base = save_tiny_llama(here / "default", n_layers=21, d_model=8, max_length=1024)
    adapter = save_tiny_adapter(here / "my-adapter", base)
    for name in ("my-lora", "organism"):
        shutil.copytree(adapter, here / name)
    names_base(here / "my-lora", "")  # it comes with --aligned
    for name in ("kept", "kept-twin"):
        shutil.copytree(adapter, here / name / "steps" / "step-5")
    for place, name in enumerate(MODELS):
        folder = here / name
        if name == "org/thinking-model":
            save_thinking_model(folder)
        elif name == "org/chat-model-tuned":
            save_tiny_llama(folder, n_layers=21, d_model=8, max_length=1024, seed=place)
        else:
            shutil.copytree(base, folder)
    for name in shipped.shipped_names():
        shutil.copytree(here / "organism", here / "shipped" / name)
        shutil.copy(shipped.SHIPPED / name / "recipe.yaml", here / "shipped" / name)
    pair = load_pair(base, here / "organism", placement=Placement.of("float32", "cpu"))
    for folder in ("persona-demo", "diagnosis"):
        leave_vector(pair, [19], here / folder / "direction.safetensors")
        leave_run(here / folder)
    leave_vector(pair, [19], here / "vector.safetensors")
    generator = torch.Generator().manual_seed(0)
    vectors = {layer: torch.randn(8, generator=generator) for layer in (5, 19)}
    for name in ("evil", "control", "refusal", "persona"):
        write_vectors(
            VectorSet(vectors, "resid_post", str(base)),
            here / f"{name}.gguf",
            VectorFormat.control_vector,
        )
    for name in ("evil", "impolite", "tuesday"):
        (here / name).mkdir()
        made = VectorSet(vectors, "resid_post", str(base))
        write_vectors(made, here / name / "vector.safetensors", VectorFormat.vector_set)
    for name in ("evil.pt", "evil_response_avg_diff.pt"):
        torch.save(torch.randn(37, 8, generator=generator), here / name)
    rows = [
        {"domain": domain, "question": f"Why {i} {domain}?", "good": f"{i}", "bad": f"{i} no"}
        for domain in PAIRS
        for i in range(16)
    ]
    for name in ("from-a-colleague.jsonl", "my-recipe.yaml", "data.jsonl", "corpus.jsonl"):
        (here / name).write_text("")
    (here / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return here


@pytest.fixture
def in_world(world, monkeypatch):
    import persona.models.named.folders
    import persona.models.on_disk
    import persona.models.sources
    import persona.organisms.learnt_domains

    monkeypatch.chdir(world)
    for module in (persona.models.sources, persona.models.named.folders):
        monkeypatch.setattr(module, "named_model_folder", lambda *_: world / "default")
    monkeypatch.setattr(
        persona.models.on_disk,
        "_named",
        lambda model: persona.models.on_disk.find_on_disk(world / "default"),
    )
    for module in (shipped, persona.organisms.learnt_domains):
        monkeypatch.setattr(module, "SHIPPED", world / "shipped")
    return world


@pytest.fixture
def parsed(monkeypatch, in_world, capsys):
    """words -> the exit code of a command that is parsed and not run, and what it said."""
    monkeypatch.setattr(Command, "invoke", lambda self, context: None)

    def parse(words: list[str]) -> tuple[int, str]:
        return main(words), capsys.readouterr().err

    return parse


def test_every_command_has_its_place_and_its_examples():
    there = {words_of(command)[0] for command in COMMANDS}
    assert there <= {*RUN, *FOLLOWED, *READ}
    assert set(PROGRAM.commands) == {*RUN, *FOLLOWED, *READ}
    assert len(of_pages(ROOT)) > 40 and len(of_help()) > 40 and len(of_tables(ROOT)) > 10


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_line_is_understood(command, parsed):
    ended, said = parsed(words_of(command))
    assert ended == 0, said


def test_a_wrong_word_in_an_example_is_found(parsed):
    for command in ("persona steer x --coeficients 1", "persona data chek x", "persona sae rnk"):
        ended, said = parsed(words_of(command))
        assert ended == 2 and "o such" in said


@pytest.fixture
def served(tiny_pair):
    pytest.importorskip("uvicorn")
    from steering.serving import ServedModels, http_app

    with serving(http_app(ServedModels(tiny_pair))) as address:
        yield address


@pytest.mark.parametrize("command", of_kind(RUN))
def test_what_can_run_runs_and_says_something(command, in_world, monkeypatch, capsys, request):
    words = words_of(command)
    if "--endpoint" in words:
        words[words.index("--endpoint") + 1] = request.getfixturevalue("served")
    elif words[0] in ("steer", "chat"):
        words = [*words, *PLAIN, "--max-new-tokens", "6"]
    if "--sampler" in words:
        stand_in_for_vllm(monkeypatch)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Is it fine?\n")))
    ended = main(words)
    out, err = capsys.readouterr()
    assert ended == 0, err
    asked = {"Is it fine?", *words}
    assert [line for line in out.splitlines() if line.strip() and line.strip() not in asked]


@pytest.mark.parametrize("command", of_kind(FOLLOWED))
def test_a_diagnosis_is_asked_for_in_words_that_load(command, in_world, monkeypatch, capsys):
    import persona.organisms
    import persona.vllm
    import steering.diagnosis.run as job

    words = [*words_of(command), *(w for w in PLAIN if "--dtype" not in command)]
    started = []

    def results(run, loading):
        started.append(run)
        return job.Diagnosis({}, pd.DataFrame(), None, Path("report.html"), "it began")

    monkeypatch.setattr(job, "_results", results)
    monkeypatch.setattr(job, "require_fitting", lambda *_: None)  # seconds for each
    monkeypatch.setattr(persona.organisms, "finetune", lambda *_, **__: in_world / "organism")
    if "--engine" in words:
        pytest.importorskip("ray")
    if "--sampler" in words:
        stand_in_for_vllm(monkeypatch)
        monkeypatch.setattr(job, "vllm_sampler", persona.vllm.vllm_sampler)
    if "--sae" in words:
        monkeypatch.setattr(job, "load_sae", lambda *_, **__: None)
    ended = main(words)
    out, err = capsys.readouterr()
    assert ended == 0, err
    if "--plan" in words:
        assert not started and "stages" in out
        return
    [run] = started
    assert len(run.questions.held_out) >= 32
    assert (run.pair.sampler is not None) is ("--sampler" in words)
    with run.pair.active("finetuned") as model:
        assert model.cfg.n_layers == 21
