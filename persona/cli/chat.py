"""`persona chat`: the aligned, the fine-tuned and the steered model side by side in a terminal."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.choices import Precision
from persona.cli.demo_session import (
    DEFAULT_FINE_TUNE,
    AllowMismatch,
    AnswerSeed,
    CoefficientOption,
    DemoModel,
    DirectionFile,
    EndpointOption,
    KeepConversation,
    LayersOption,
    MaxNewTokens,
    ModeOption,
    SystemPrompt,
    Temperature,
    models_of,
    open_endpoint,
    open_session,
)
from persona.cli.options import (
    Aligned,
    Debug,
    Device,
    Dtype,
    Finetuned,
    NoProof,
    Quiet,
    TemplateArguments,
    shell,
)
from persona.errors import PersonaError

if TYPE_CHECKING:
    from rich.console import Console

    from steering.demo import Conversation, View

EXIT_BAD_INPUT = 2


def chat(
    context: typer.Context,
    aligned: Aligned = None,
    finetuned: Finetuned = DEFAULT_FINE_TUNE,
    model: DemoModel = None,
    direction: DirectionFile = None,
    endpoint: EndpointOption = None,
    coefficient: CoefficientOption = None,
    mode: ModeOption = None,
    layers: LayersOption = None,
    max_new_tokens: MaxNewTokens = 120,
    temperature: Temperature = 0.0,
    seed: AnswerSeed = 0,
    keep_conversation: KeepConversation = False,
    system_prompt: SystemPrompt = "",
    colour: Annotated[
        bool,
        typer.Option(
            "--colour/--no-colour",
            help="Colour tokens by their projection on the direction, in a terminal.",
        ),
    ] = True,
    allow_mismatch: AllowMismatch = False,
    template_arguments: TemplateArguments = None,
    no_proof: NoProof = False,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    json_output: Annotated[
        bool,
        typer.Option("--json", help="Print one line of JSON for each answer, tokens included."),
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Ask the aligned, the fine-tuned and the steered model the same, and steer while chatting.

    A line that begins with / changes something; /help lists what. Reads questions line by line
    where standard input is a pipe or a file. With --endpoint only the coefficient can be changed.

    \b
    Examples:
      persona chat
      persona chat --direction diagnosis/direction.safetensors --mode add --layers 19
      printf 'How do I save money?\\n/coef 0\\nAnd how fast?\\n' | persona chat --json
      persona chat --endpoint http://127.0.0.1:8000/v1
    """
    asked: dict[str, Any] = {
        "coefficient": coefficient,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
        "remembers": keep_conversation,
    }
    session: Conversation
    if endpoint is not None:
        session = open_endpoint(context, endpoint, **asked)
        session.compare_with(system_prompt)
    else:
        session = open_session(
            *models_of(model, aligned, finetuned),
            direction,
            mode=mode,
            layers=layers,
            system_prompt=system_prompt,
            dtype=dtype,
            device=device,
            allow_mismatch=allow_mismatch,
            template_arguments=template_arguments,
            proof=not no_proof,
            **asked,
        )
    if sys.stdin.isatty() and sys.stdout.isatty() and not json_output:
        _talk(session, colour)
    elif not _answer_lines(session, json_output):
        raise typer.Exit(EXIT_BAD_INPUT)


def _talk(session: Conversation, colour: bool) -> None:
    """Questions from the keyboard until /quit or Ctrl-D."""
    from rich.console import Console
    from rich.markup import escape

    from steering.demo import HELP, live_view, obey

    with contextlib.suppress(ImportError):  # line editing and history, where there is readline
        import readline  # noqa: F401
    console = Console(highlight=False, no_color=not colour)
    if not shell.quiet:
        console.print(escape(HELP), style="dim")
        console.print(escape(obey("/show", session).text), style="dim")
    while True:
        try:
            line = console.input("[bold]you>[/bold] ")
        except EOFError:
            return
        except KeyboardInterrupt:
            console.print("\n/quit leaves", style="dim")
            continue
        try:
            before = session.exchanges[-1:]
            view = live_view(session, console, colour)
            if not _handle(line, session, view, lambda text: console.print(escape(text))):
                return
            if session.exchanges[-1:] != before:
                _measure(session, console)
        except PersonaError as error:
            console.print(escape(f"error: {error}"), style="red")


def _measure(session: Conversation, console: Console) -> None:
    """Under the answers: the gap of the question, and whether the steered text holds.

    Nothing of models that are served elsewhere, whose activations are not read.
    """
    from steering.demo import Session, in_words, limit_of, read_newest

    if not isinstance(session, Session) or any(
        each.answer.ended == "stopped" for each in session.exchanges[-1:]
    ):
        return
    with contextlib.redirect_stdout(sys.stderr):
        told = in_words(read_newest(session), limit_of(session))
    for line in told:
        console.print(line, style="dim", highlight=False)


def _answer_lines(session: Conversation, as_json: bool) -> bool:
    """Questions from a pipe; whether every line could be done. A wrong line stops none after it."""
    from steering.demo import plain_view

    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    all_done = True
    for line in sys.stdin:
        try:
            view = plain_view(session, typer.echo, as_json)
            if not _handle(line, session, view, lambda text: typer.echo(text, err=True)):
                break
        except PersonaError as error:
            typer.echo(f"error: {error}", err=True)
            all_done = False
    return all_done


def _handle(
    line: str, session: Conversation, view: AbstractContextManager[View], note: Any
) -> bool:
    """Do one line, a command or a question; whether to go on."""
    line = line.strip()
    if not line:
        return True
    from steering.demo import obey

    again = False
    if line.startswith("/"):
        reply = obey(line, session)
        if reply.text:
            note(reply.text)
        if not reply.again:
            return not reply.leave
        again = True
    with _ctrl_c_sets() as stop, view as shown:
        for column in ("steered",) if again else session.columns:
            if stop.is_set():
                break
            if again:
                shown.show("steered", session.answer_again("steered", stop=stop))
            else:
                shown.show(column, session.answer(column, line, stop=stop))
    return True


@contextlib.contextmanager
def _ctrl_c_sets() -> Iterator[threading.Event]:
    """While open, the first Ctrl-C sets the event; a second one ends the program as ever."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield stop
        return

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
