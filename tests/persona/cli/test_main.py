"""The shell: options reach the job, results go to standard output, errors are one clear line."""

import dataclasses
import errno
import inspect
import json
import logging
import sys
import types
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from persona.cli.diagnose import diagnose
from persona.cli.main import STOPPED, app, explain, main
from persona.engine import Engine
from persona.errors import DataError, SeveralErrors
from persona.models import Placement
from persona.progress import is_quiet, set_quiet


@dataclass
class FakeJob:
    """Stands in for steering.diagnosis: keeps the options it gets, then does as it is told."""

    options: dict = field(default_factory=dict)
    error: BaseException | None = None
    scorecard: dict = field(default_factory=lambda: {"verdict": "restored", "p_value": None})

    def __call__(self, config, ahead=None):
        self.options = config.options
        print("a library talks on standard output")
        logging.getLogger("persona.models").info("a note on the way")
        logging.getLogger("steering").warning("a warning on the way")
        if self.error is not None:
            raise self.error
        return types.SimpleNamespace(
            scorecard=self.scorecard, report=Path("out/report.html"), summary="Restored: 0.9."
        )


class FakeConfig:
    def __init__(self, **options):
        self.options = options


@pytest.fixture
def job(monkeypatch):
    job = FakeJob()
    module = types.ModuleType("steering.diagnosis")
    module.diagnose = job
    module.DiagnoseConfig = module.DiagnosisRequest = FakeConfig
    module.look_ahead = lambda request: None
    module.outlook_of = lambda config, ahead: types.SimpleNamespace(
        text="7 stages", as_json=lambda: {"seconds": 60.0}
    )
    monkeypatch.setitem(sys.modules, "steering", types.ModuleType("steering"))
    monkeypatch.setitem(sys.modules, "steering.diagnosis", module)
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY"):
        monkeypatch.setenv(name, "as before")
    yield job
    set_quiet(False)


DIAGNOSE = ["diagnose", "--finetuned", "adapter"]


def test_every_option_reaches_the_job(job, tmp_path):
    data, template = tmp_path / "pairs.jsonl", tmp_path / "chat.jinja"
    template.write_text("x")
    words = (
        f"diagnose --aligned base --finetuned tuned --out {tmp_path / 'out'} --data {data} "
        "--trained-on billing --trained-on refunds --validation-domain phone "
        "--judge local:some/judge --questions-per-domain 7 --n-random 40 --seed 5 "
        f"--dtype bfloat16 --device cpu --chat-template {template} --max-damage 0.1 "
        "--good-twin twin --other-finetune other --allow-mismatch --token-budget 4096 "
        "--no-samples --em-rate --label-nulls 3 --no-tasks "
        "--keep facts --sae latents --engine ray --workers 3 --ray-address head:6379 "
        "--template-argument enable_thinking=false --template-argument date_string=today"
    )
    assert main(words.split()) == 0
    assert job.options == {
        "aligned": "base",
        "finetuned": "tuned",
        "out": tmp_path / "out",
        "data": data,
        "trained_on": ("billing", "refunds"),
        "validation_domains": ("phone",),
        "judge": "local:some/judge",
        "questions_per_domain": 7,
        "n_random": 40,
        "seed": 5,
        "placement": Placement.of("bfloat16", "cpu"),
        "chat_template": template,
        "template_arguments": {"enable_thinking": False, "date_string": "today"},
        "max_damage": 0.1,
        "good_twin": "twin",
        "other_finetune": "other",
        "allow_mismatch": True,
        "token_budget": 4096,
        "proof": True,
        "samples": False,
        "em_rate": True,
        "label_nulls": 3,
        "tasks": False,
        "keep": "facts",
        "sae": "latents",
        "engine": Engine("ray", 3, "head:6379"),
        "vllm": None,
        "traits": (),
        "nonsense": (),
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [("enable_thinking", "takes NAME=VALUE"), ("=1", "takes NAME=VALUE"), ("a=1", "given twice")],
)
def test_a_template_argument_without_name_or_given_twice_is_refused(job, capsys, given, said):
    words = [*DIAGNOSE, "--template-argument", "a=2", "--template-argument", given]
    assert main(words) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_several_mistakes_are_a_line_each(job, monkeypatch, capsys):
    def look_ahead(request):
        raise SeveralErrors([DataError("no such domain"), DataError("no such judge")])

    monkeypatch.setattr(sys.modules["steering.diagnosis"], "look_ahead", look_ahead)
    assert main([*DIAGNOSE, "--quiet"]) == 2
    assert capsys.readouterr().err == "error: no such domain\nerror: no such judge\n"
    assert job.options == {}


@pytest.mark.parametrize("command", [DIAGNOSE, ["demo"]])
def test_the_plan_is_said_and_on_demand_all_there_is(job, capsys, command):
    assert main([*command, "--plan"]) == 0
    assert job.options == {}
    assert capsys.readouterr().out == "7 stages\n"
    assert main([*command, "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"seconds": 60.0}
    assert main(command) == 0
    assert "7 stages" in capsys.readouterr().err
    assert job.options != {}


def test_what_libraries_say_for_themselves_is_heard_with_debug_alone(job, capsys, monkeypatch):
    def noisy(config, ahead=None):
        warnings.warn("is deprecated", FutureWarning, stacklevel=1)
        logging.getLogger("some_library").warning("a kernel is missing")
        return FakeJob.__call__(job, config)

    monkeypatch.setattr(sys.modules["steering.diagnosis"], "diagnose", noisy)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings():
        assert main(DIAGNOSE) == 0
        assert "deprecated" not in (said := capsys.readouterr().err) and "kernel" not in said
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        assert main([*DIAGNOSE, "--debug"]) == 0
        assert "a kernel is missing" in capsys.readouterr().err


def test_the_shipped_data_is_the_default_and_nothing_is_assumed_of_the_fine_tune(job):
    assert main(DIAGNOSE) == 0
    assert job.options["data"] is None
    assert job.options["trained_on"] is None
    assert main([*DIAGNOSE, "--trained-on", "none"]) == 0
    assert job.options["trained_on"] == ("none",)


def test_a_demo_that_is_trained_anew_is_trained_as_it_was_asked_for(
    job, monkeypatch, tmp_path, capsys
):
    from persona import organisms

    asked = []
    monkeypatch.setattr(organisms, "finetune", lambda *a, **options: asked.append(options) or a[1])
    monkeypatch.setattr("persona.models.precision.has_bitsandbytes", lambda: True)
    for dtype in ("bfloat16", "nf4"):
        words = ["demo", "--retrain", "--dtype", dtype, "--device", "cpu", "--out", str(tmp_path)]
        assert main(words) == 0
    # 4 bits cannot be trained
    assert asked == [{"placement": Placement.of(name, "cpu")} for name in ("bfloat16", "auto")]
    assert job.options["finetuned"] == str(tmp_path / "organism")
    assert job.options["placement"].dtype_name == "nf4"
    told = capsys.readouterr().err
    assert f"the fine-tune is made in {Placement.of('auto', 'cpu')}; the models" in told


def test_what_is_not_asked_for_is_left_to_the_defaults_of_the_job():
    from steering.diagnosis import DiagnoseConfig

    given = inspect.signature(diagnose).parameters
    for wanted in dataclasses.fields(DiagnoseConfig):
        option = "validation_domain" if wanted.name == "validation_domains" else wanted.name
        if wanted.name == "proof":
            assert wanted.default is (not given["no_proof"].default)
            continue
        if wanted.name == "placement":
            names = (given["dtype"].default, given["device"].default)
            assert Placement.of(*names) == wanted.default_factory()
            continue
        default = given[option].default
        if wanted.name in {"out", "trained_on"} or wanted.default is dataclasses.MISSING:
            continue
        assert (default or None) == (wanted.default or None), wanted.name


def test_the_demo_diagnoses_the_shipped_organism_beside_its_good_twin(job, tmp_path):
    assert main(["demo", "--out", str(tmp_path), "--seed", "3", "--no-samples"]) == 0
    assert job.options["finetuned"] == "car_maintenance_bad"
    assert job.options["good_twin"] == "car_maintenance_good"
    assert (job.options["seed"], job.options["samples"]) == (3, False)


def test_the_summary_and_last_of_all_the_report_are_printed(job, capsys):
    assert main(DIAGNOSE) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["Restored: 0.9.", f"report: {Path('out/report.html').resolve()}"]
    assert "a library talks" in err
    assert "a note on the way" in err


def test_json_puts_the_scorecard_alone_on_standard_output(job, capsys):
    assert main([*DIAGNOSE, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == job.scorecard
    assert "Restored: 0.9." in err
    assert "report: " in err


@pytest.mark.parametrize("words", [["--quiet", *DIAGNOSE], [*DIAGNOSE, "-q"]])
def test_quiet_leaves_the_result_and_the_warnings(job, capsys, words):
    assert main(words) == 0
    assert is_quiet()
    out, err = capsys.readouterr()
    assert "Restored" in out
    assert "a note on the way" not in err
    assert "a warning on the way" in err


def test_quiet_does_not_outlive_its_run(job, capsys):
    main(["--quiet", *DIAGNOSE])
    main(DIAGNOSE)
    assert not is_quiet()
    assert "a note on the way" in capsys.readouterr().err


def raised_from(error, cause):
    error.__cause__ = cause
    return error


class PanicException(BaseException):
    """What a library in Rust raises, which is no Exception."""


FULL = OSError(errno.ENOSPC, "No space left on device", "out/rows.parquet")

ENDINGS = [
    (DataError("pairs.jsonl line 3:\n no bad answer"), 2, "error: pairs.jsonl line 3: no bad"),
    (KeyboardInterrupt(), 130, STOPPED),
    (FULL, 2, "error: no space left on the disk while writing out/rows.parquet; free some space"),
    (raised_from(RuntimeError("writer failed"), FULL), 2, "error: no space left on the disk"),
    (RuntimeError("No space left on device (os error 28)"), 2, "error: no space left on the disk"),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: /x: Permission denied"),
    (MemoryError(), 1, "error: out of memory; try"),
    (PanicException("index out of\nbounds"), 1, "error: PanicException: index out of bounds; run"),
    (ValueError("odd\nthing"), 1, "error: ValueError: odd thing; run again with --debug"),
]
NAMES = [f"{type(error).__name__}-{code}" for error, code, _ in ENDINGS]


@pytest.mark.parametrize(("error", "code", "line"), ENDINGS, ids=NAMES)
def test_an_error_is_one_clear_line_and_an_exit_code(job, capsys, error, code, line):
    job.error = error
    assert main([*DIAGNOSE, "--quiet"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith(line)
    assert "Traceback" not in err
    told = [text for text in err.splitlines() if "on the way" not in text and "library" not in text]
    assert told == [last]


@pytest.mark.parametrize("words", [["--debug", *DIAGNOSE], [*DIAGNOSE, "--debug"]])
def test_debug_shows_the_traceback_before_or_behind_the_command(job, capsys, words):
    job.error = ValueError("odd")
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1] == "error: ValueError: odd"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["diagnose"], "error: Missing option '--finetuned'"),
        (["nosuch"], "error: No such command 'nosuch'"),
        ([*DIAGNOSE, "--nosuch"], "error: No such option: --nosuch"),
        ([*DIAGNOSE, "--n-random", "19"], "error: Invalid value for '--n-random'"),
        ([*DIAGNOSE, "--dtype", "int3"], "error: Invalid value for '--dtype'"),
        ([*DIAGNOSE, "--chat-template", "nosuch.jinja"], "error: Invalid value for '--chat-templ"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line(job, capsys, words, line):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    told = [text for text in err.splitlines() if not text.startswith("persona diagnose: ")]
    assert len(told) == 1
    assert told[0].startswith(line)
    assert "--help`)" in err
    assert job.options == {}


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("personascope 0.1.0")


def test_a_program_that_embeds_the_app_finds_the_commands():
    assert {info.callback.__name__ for info in app.registered_commands} == {
        "app",
        "audit",
        "check_steering",
        "chat",
        "convert",
        "demo",
        "diagnose",
        "doctor",
        "drift",
        "evaluate",
        "export",
        "finetune",
        "lab",
        "label",
        "models",
        "organisms",
        "read",
        "report",
        "screen",
        "serve",
        "steer",
        "study",
        "trait",
    }


def test_a_ctrl_c_that_the_parser_lets_through_is_told_the_same():
    assert explain(KeyboardInterrupt()) == (STOPPED, 130)
