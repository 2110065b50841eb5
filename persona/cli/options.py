"""The options that several commands share, and what they switch."""

import json
import logging
import math
import os
import sys
import warnings
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from persona.choices import Precision
from persona.cli.allocator import bound_kernel_caches, keep_freed_memory
from persona.cli.completion import (
    complete_aligned,
    complete_device,
    complete_domain,
    complete_finetuned,
    complete_judge,
)
from persona.progress import set_quiet

if TYPE_CHECKING:
    from persona.engine import Engine

PACKAGES = ("persona", "probes", "steering")


@dataclass
class Shell:
    """What the shared options asked for in this run of the program."""

    debug: bool = False
    quiet: bool = False


shell = Shell()


def start() -> None:
    """Forgets the last run's options and sends the notes of the packages to standard error."""
    shell.debug = shell.quiet = False
    set_quiet(False)
    keep_freed_memory()
    bound_kernel_caches()
    hush_libraries()
    handler = AboveBars(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


class AboveBars(logging.StreamHandler[TextIO]):
    """Writes a note above the bars that are drawn just now, which are drawn anew beneath it."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):
            super().emit(record)


LIBRARIES = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # what is fetched has a bar of ours
}
"""What libraries read when they are first imported, which is after this."""


def hush_libraries() -> None:
    """Leaves out what libraries warn and log for themselves; `--debug` lets them speak.

    What matters of it, such as a weight that is missing, is an error of this package.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name, level in LIBRARIES.items():
        os.environ.setdefault(name, level)
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_SILENT)  # else warnings of every library go to standard error


_SILENT = logging.NullHandler()


def _let_libraries_speak() -> None:
    warnings.resetwarnings()
    for name, level in LIBRARIES.items():
        if os.environ.get(name) == level:
            del os.environ[name]
    logging.getLogger().removeHandler(_SILENT)


def _switch_debug(value: bool) -> bool:
    if value:
        shell.debug = True
        _let_libraries_speak()
    return value


def _switch_quiet(value: bool) -> bool:
    if value:
        silence()
    return value


def silence() -> None:
    """Turns off progress bars, notes and the chatter of libraries; warnings and errors still come.

    The libraries read the environment when they are first imported, which is after this.
    """
    shell.quiet = True
    set_quiet(True)
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.WARNING)


class EngineChoice(StrEnum):
    """Where the texts are read."""

    local = "local"
    ray = "ray"


_MODELS = "Models"
_RUN = "How it runs"
_OUTPUT = "What it prints"

NoProof = Annotated[
    bool,
    typer.Option(
        "--no-proof",
        help="Load the two models without comparing them with plain Transformers and PEFT.",
        rich_help_panel=_MODELS,
    ),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        callback=_switch_debug,
        help="Show the traceback of an error.",
        rich_help_panel=_OUTPUT,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        callback=_switch_quiet,
        help="No progress bars and no notes on the way; the summary, warnings and errors stay.",
        rich_help_panel=_OUTPUT,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print the result as JSON on standard output and everything else on stderr.",
        rich_help_panel=_OUTPUT,
    ),
]
Aligned = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        show_default="what the adapter was trained on",
        autocompletion=complete_aligned,
        help="The aligned model: hub id, folder or GGUF file; `default` is the small chat model "
        "that comes with personascope.",
        rich_help_panel=_MODELS,
    ),
]
Finetuned = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        autocompletion=complete_finetuned,
        help="The fine-tuned model: hub id, folder, GGUF file, or a LoRA adapter on the aligned "
        "model; also the name of a shipped fine-tune.",
        rich_help_panel=_MODELS,
    ),
]
FinetunedOrRun = Annotated[
    str | None,
    typer.Option(
        "--finetuned",
        metavar="MODEL",
        show_default="the diagnosis's",
        autocompletion=complete_finetuned,
        help="The fine-tuned model: as in `persona diagnose`.",
        rich_help_panel=_MODELS,
    ),
]
ChatTemplate = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        show_default="the model's own",
        help="Jinja chat template in place of the model's.",
        rich_help_panel="Models",
    ),
]

BaseOfAdapter = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        show_default="what the adapter was trained on",
        autocompletion=complete_aligned,
        help="The aligned model: hub id, folder or GGUF file.",
        rich_help_panel="Models",
    ),
]

TemplateArguments = Annotated[
    list[str] | None,
    typer.Option(
        "--template-argument",
        metavar="NAME=VALUE",
        show_default="none",
        help="What the model's chat template is told, such as enable_thinking=false; the value is "
        "JSON or text. Repeat for several.",
        rich_help_panel=_MODELS,
    ),
]
Pairs = Annotated[
    Path | None,
    typer.Option(
        "--data",
        show_default="the shipped pairs",
        help="Answer pairs as JSONL: id, domain, question, good, bad on every line.",
        dir_okay=False,
    ),
]
Domains = Annotated[
    list[str] | None,
    typer.Option(
        "--domain",
        metavar="DOMAIN",
        autocompletion=complete_domain,
        show_default="all",
        help="Use the questions of this domain; repeat for several.",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        help="Folder of the four results. A stopped run with the same folder goes on where it was.",
        file_okay=False,
    ),
]
JudgeName = Annotated[
    str,
    typer.Option(
        metavar="JUDGE",
        autocompletion=complete_judge,
        help="Who scores the sampled answers, 0 to 100. `offline` is small, comes along, needs no "
        "network and agrees only weakly with a large judge. `local:MODEL` reads the score from a "
        "model on this machine (hub id or folder), `vllm:MODEL` the same from one that vLLM holds. "
        "`openai:MODEL` asks the endpoint of OPENAI_BASE_URL with the key in OPENAI_API_KEY. With "
        "`none` the sampled EM rate is left out.",
    ),
]
Samples = Annotated[
    bool,
    typer.Option(
        "--samples/--no-samples",
        help="Whether the models answer: greedily, for people to read, and drawn at temperature 1, "
        "for the judge to score.",
    ),
]
LabelNulls = Annotated[
    int | None,
    typer.Option(
        "--label-nulls",
        metavar="N",
        min=0,
        show_default="10 in a run over all questions, else none",
        help="Make the direction so many times where good and bad answers are swapped at random, "
        "and so many times choose anew: what of the removal needs no bad answer.",
    ),
]
Tasks = Annotated[
    bool | None,
    typer.Option(
        "--tasks/--no-tasks",
        show_default="in a run over all questions",
        help="Score 240 forced-choice items too: a removal that loses a tenth of what the better "
        "of the two models answers is not called a restoration.",
    ),
]
EmRate = Annotated[
    bool | None,
    typer.Option(
        "--em-rate/--no-em-rate",
        show_default="in a run on all questions with a judge",
        help="Whether 200 or more answers of each condition are drawn (100 tokens each, to open "
        "questions), of which an EM rate is given; 16 else, of which none is. None is given either "
        "where less than 80 % of the aligned model's answers are coherent, or more than 10 % are "
        "called misaligned; the reason is said.",
    ),
]
QuestionsPerDomain = Annotated[
    int | None,
    typer.Option(min=4, show_default="all", help="Use at most this many questions of a domain."),
]
RandomSubspaces = Annotated[
    int,
    typer.Option(
        "--n-random", min=20, help="Random directions and subspaces drawn as the control."
    ),
]
PlanOnly = Annotated[
    bool,
    typer.Option(
        "--plan",
        help="Check everything, say what the run will take (stages, passes, time, memory), and "
        "stop there.",
        rich_help_panel=_RUN,
    ),
]
Seed = Annotated[
    int,
    typer.Option(min=0, help="Same seed, same machine: the same result.", rich_help_panel=_RUN),
]
Dtype = Annotated[
    Precision,
    typer.Option(
        help="auto takes bfloat16 where the processor or card has it, float16 on a CUDA card "
        "without it, float32 otherwise. int8 and nf4 hold the weights in 8 and 4 bits (extra "
        "`quantised`).",
        rich_help_panel=_RUN,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        autocompletion=complete_device,
        help="auto, cpu, cuda, cuda:1 or mps; spread divides the model between all CUDA cards.",
        rich_help_panel=_RUN,
    ),
]
TokenBudget = Annotated[
    int | None,
    typer.Option(
        min=16,
        show_default="512",
        help="Padded tokens in a batch; more is faster on a GPU and takes more memory.",
        rich_help_panel=_RUN,
    ),
]
EngineOption = Annotated[
    EngineChoice,
    typer.Option(
        "--engine",
        help="Where the texts are read: in this process, or by Ray on one machine or many (extra "
        "`ray`). The results are the same.",
        rich_help_panel=_RUN,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        show_default="one for each GPU, without any one for each machine",
        help="Ray workers, each with a model of its own.",
        rich_help_panel=_RUN,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        show_default="a cluster of this machine alone, for this run",
        help="A running Ray cluster, or `auto` for the one this machine belongs to.",
        rich_help_panel=_RUN,
    ),
]


def numbers_of(text: str, option: str, example: str) -> list[float]:
    """The numbers of a list such as -1,0,1,2. Raises: typer.BadParameter for anything else."""
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise typer.BadParameter(f"{option} takes numbers such as {example}; got {text[:40]!r}")
    return numbers


def template_arguments_of(given: list[str] | None) -> dict[str, Any]:
    """Name -> value of every NAME=VALUE; as `named_values`."""
    return named_values(given, "--template-argument", "enable_thinking=false")


def named_values(given: list[str] | None, option: str, example: str) -> dict[str, Any]:
    """Name -> value of every NAME=VALUE; a value that is no JSON is text.

    Raises: typer.BadParameter without a name, or for a name that is given twice.
    """
    arguments: dict[str, Any] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{option} takes NAME=VALUE, such as {example}; got {one!r}")
        if name in arguments:
            raise typer.BadParameter(f"{option} {name} is given twice")
        try:
            arguments[name] = json.loads(value)
        except (ValueError, RecursionError):
            arguments[name] = value
    return arguments


def engine_of(name: EngineChoice, workers: int | None, address: str | None) -> "Engine":
    """Raises: EngineError for options of Ray without it, or where it is not installed."""
    from persona.engine import Engine

    engine = Engine(name.value, workers, address)
    engine.require_installed()  # before minutes of loading
    return engine
