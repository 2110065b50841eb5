"""The `persona` command: its subcommands, and the one place where errors become one clear line.

Exit codes: 0 done; 1 an unexpected error; 2 bad input, named in one line; 3 `screen --fail-above`;
130 stopped by Ctrl-C.
"""

import errno
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from persona.cli.app import app as serve_app
from persona.cli.audit import audit
from persona.cli.chat import chat
from persona.cli.check_steering import check_steering
from persona.cli.contents import Command, Contents
from persona.cli.convert import convert
from persona.cli.data import data_app
from persona.cli.demo import demo
from persona.cli.diagnose import diagnose
from persona.cli.doctor import doctor
from persona.cli.drift_command import drift
from persona.cli.evaluate import evaluate
from persona.cli.export import export
from persona.cli.finetune import finetune
from persona.cli.lab import lab
from persona.cli.label import label
from persona.cli.models import models
from persona.cli.options import Debug, Quiet, shell, start
from persona.cli.organisms import organisms
from persona.cli.read_command import read
from persona.cli.report_command import report
from persona.cli.sae import sae_app
from persona.cli.screen import screen
from persona.cli.serve import serve
from persona.cli.steer_command import steer
from persona.cli.study import study
from persona.cli.trait import OneTrait, Traits, trait, traits_app
from persona.errors import PersonaError, SeveralErrors, is_panic
from persona.extras import install_line

STOPPED = "stopped; run the same command again to continue"
EXIT_STOPPED = 130

app = typer.Typer(
    name="persona",
    cls=Contents,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if not value:
        return
    try:
        typer.echo(f"personascope {version('personascope')}")
    except PackageNotFoundError:
        typer.echo(f"personascope (not installed; run `{install_line()}`)")
    raise typer.Exit


@app.callback()
def shared(
    context: typer.Context,
    debug: Debug = False,
    quiet: Quiet = False,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """What separates a fine-tuned model from the aligned one, and does removing it restore it?

    \b
    Examples:
      persona demo
      persona diagnose --finetuned ./my-adapter --trained-on health --out ./diagnosis
      persona convert ./diagnosis/direction.safetensors persona.gguf
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


START, LOOK, MAKE = "Start here", "Look closer", "Make models"
TALK, FILES, MACHINE = "Talk and steer", "Data and vectors", "This machine"


def _add(
    command: Callable[..., None],
    panel: str,
    short_help: str,
    name: str | None = None,
    cls: type[Command] = Command,
) -> None:
    app.command(name=name, cls=cls, rich_help_panel=panel, short_help=short_help)(command)


_add(demo, START, "The diagnosis on the models that come along.")
_add(diagnose, START, "Two models in; direction, proof, report out.")
_add(report, START, "A run's report drawn anew, or runs compared.")
_add(steer, TALK, "One question at several coefficients.")
_add(chat, TALK, "Talk to both models and a steered one.")
_add(serve_app, TALK, "The same in a browser, on this machine.", name="app")
_add(serve, TALK, "The same as an OpenAI-compatible endpoint.")
app.add_typer(
    sae_app,
    cls=Contents,
    rich_help_panel=LOOK,
    short_help="Sparse autoencoders: train, rank, screen, explain latents.",
)
_add(trait, LOOK, "A persona vector for any trait, or that there is none.", cls=OneTrait)
app.add_typer(
    traits_app,
    cls=Traits,
    rich_help_panel=LOOK,
    short_help="Traits compared, and what a fine-tune is made of.",
)
_add(drift, LOOK, "Does a conversation drift toward a trait?")
_add(read, LOOK, "What a fine-tune learnt, from weights and activations.")
_add(evaluate, LOOK, "What do fine-tune and removal cost on tasks?", name="eval")
_add(audit, LOOK, "Does the removal hold under cues and relearning?")
_add(label, LOOK, "Label answers blind; an EM rate beyond the judge.")
_add(study, LOOK, "Does it hold for another seed?")
_add(lab, LOOK, "Experiments on emergent misalignment.")
_add(finetune, MAKE, "Make a narrow fine-tune of a model.")
_add(organisms, MAKE, "The fine-tunes that recipes make, measured.")
_add(models, MAKE, "The models that go by a short name.")
app.add_typer(
    data_app, cls=Contents, rich_help_panel=FILES, short_help="Is a file of answer pairs enough?"
)
_add(screen, FILES, "Which fine-tuning samples push toward it?")
_add(export, FILES, "The fine-tune with its removal built in, as a checkpoint.")
_add(convert, FILES, "Vectors to and from other toolkits.")
_add(doctor, MACHINE, "Is this machine ready, and what to do if not?")
_add(check_steering, MACHINE, "Does steering take effect on a model?", name="check-steering")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; every error is one line on standard error.

    Args:
        arguments: The words after `persona`; those of the process where None.
    """
    start()
    try:
        ending = app(args=arguments, prog_name="persona", standalone_mode=False)
        code = ending if isinstance(ending, int) else 0
        line = STOPPED if code == EXIT_STOPPED else ""  # Typer turns Ctrl-C into an exit code
    except BaseException as error:
        if not isinstance(error, Exception | KeyboardInterrupt) and not is_panic(error):
            raise
        line, code = explain(error)
        if shell.debug:
            traceback.print_exception(error, file=sys.stderr)
    if line:
        typer.echo(line, err=True)
    return code


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main())


def explain(error: BaseException) -> tuple[str, int]:
    """Returns the line that tells a person what went wrong, one for each mistake, and the exit
    code."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return STOPPED, EXIT_STOPPED
    if isinstance(error, SeveralErrors):
        return "\n".join(f"error: {_one_line(one)}" for one in error.errors), 2
    if isinstance(error, PersonaError):
        return f"error: {_one_line(error)}", 2
    if (usage := getattr(error, "format_message", None)) is not None:
        told = _one_line(usage()).replace("Value error, ", "")  # the validator's word, not ours
        return f"error: {told} (see `{_command_path(error)} --help`)", 2
    if _disk_is_full(error):
        name = getattr(error, "filename", None)
        place = f" while writing {name}" if name else ""
        return (
            f"error: no space left on the disk{place}; free some space and run the same command "
            "again to continue",
            2,
        )
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"error: {error.filename}: {error.strerror}", 2
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's own
        return "error: out of memory; try a smaller --token-budget or model", 1
    advice = "" if shell.debug else "; run again with --debug for the traceback"
    return f"error: {type(error).__name__}: {_one_line(error)}{advice}", 1


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _command_path(error: BaseException) -> str:
    return getattr(getattr(error, "ctx", None), "command_path", "persona")


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether the error or a cause of it is a full disk or quota, however a library wraps it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        if "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    run()
