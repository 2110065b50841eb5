"""Help that reads like a table of contents, and the line that says what a command works on.

Commands and options stand under the headings that their `rich_help_panel` names, as plain text:
the same in a terminal, a pipe and a file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

from persona.cli.other_tools import where_instead

MODELS = (
    "model",
    "aligned",
    "finetuned",
    "good_twin",
    "retrained",
    "guarded",
    "other_finetune",
    "base",
    "recipe",
    "sae",
    "judge",
)
PATHS = (
    *(
        "run",
        "runs",
        "labels",
        "source",
        "target",
        "data",
        "direction",
        "probe",
        "reference",
        "artefacts",
        "vector",
        "nonsense",
        "cues",
        "traits",
        "chat",
        "finetune",
        "course",
        "chat_template",
        "plan_file",
    ),
    *("watch", "harmless", "prevent", "project_out"),
    *("out", "pages"),
)
_INDENT = 6  # of a list below its heading, and the gap to the next column
_WIDEST = 30  # names beyond this stand on a line of their own

logger = logging.getLogger("persona.cli")


class Command(TyperCommand):
    """A command that first says on standard error which models, paths and seed it takes."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_parameters(self, ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        if facts := in_words(ctx.params):
            logger.info(f"{ctx.command_path}: {facts}")
        return super().invoke(ctx)


class Contents(TyperGroup):
    """A group whose help lists the commands under headings, then the options.

    A command of another tool is told where to find here what it does.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        unknown = ctx.parent is None and args and self.get_command(ctx, args[0]) is None
        if unknown and (line := where_instead(args[0])) is not None:
            ctx.fail(f"No such command {args[0]!r}: {line}.")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        names = [name for name in self.list_commands(ctx) if not self.commands[name].hidden]
        room = formatter.width - _INDENT - max(map(len, names))
        rows = [
            (_panel(self.commands[name], "Commands"), name, text)
            for name in names
            for text in [self.commands[name].get_short_help_str(room)]
        ]
        _write(formatter, rows)
        _write_parameters(self, ctx, formatter)


def in_words(parameters: dict[str, Any]) -> str:
    """The models, paths and seed among the parameters; paths absolute, what is not given left out.

    Examples:
        >>> in_words({"aligned": "default", "seed": 0, "top": 20, "data": None})
        'aligned default, seed 0'
        >>> in_words({"chat": True, "seed": 0})  # a switch of `eval`, a file of `drift`
        'seed 0'
    """
    found = []
    models = () if parameters.get("endpoint") else MODELS  # else defaults that nothing loads
    for name in (*models, *PATHS, "seed"):
        if (value := parameters.get(name)) in (None, "", (), []) or isinstance(value, bool):
            continue  # a switch that has the name of another command's path
        if name == "pages" and not Path(value).parent.is_dir():
            continue  # the default, in a folder that is no checkout
        many = value if isinstance(value, list | tuple) else [value]
        shown = [str(Path(one).absolute()) if name in PATHS else str(one) for one in many]
        found.append(f"{name.replace('_', '-')} {' '.join(shown)}")
    return ", ".join(found)


def _write_parameters(command: Any, ctx: Any, formatter: Any) -> None:
    rows = []
    for parameter in command.get_params(ctx):
        if (record := parameter.get_help_record(ctx)) is not None:
            is_argument = parameter.param_type_name == "argument"
            rows.append((_panel(parameter, "Arguments" if is_argument else "Options"), *record))
    _write(formatter, rows)


def _panel(thing: Any, otherwise: str) -> str:
    panel = getattr(thing, "rich_help_panel", None)
    return panel if isinstance(panel, str) else otherwise


def _write(formatter: Any, rows: Iterable[tuple[str, str, str]]) -> None:
    """Rows of heading, name and text: headings in the order they come up, one width of names."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for heading, name, text in rows:
        sections.setdefault(heading, []).append((name, text))
    width = max((len(name) for pairs in sections.values() for name, _ in pairs), default=0)
    for heading, pairs in sections.items():
        with formatter.section(heading):
            formatter.write_dl([(name.ljust(min(width, _WIDEST)), text) for name, text in pairs])
