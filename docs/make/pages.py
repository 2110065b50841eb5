"""What MkDocs calls while it builds the site: the menu, and the page of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

CLI_PAGE = "reference/command-line.md"
FIRST = ("index.md", "tutorial.md", "notebooks.md")
FORMATS = "reference/formats.md"
BACKGROUND = (
    "glossary.md",
    "numerics.md",
    "findings.md",
    "comparison.md",
    "conformance.md",
    "limits.md",
    "security.md",
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The menu: named pages first, then whatever else lies in docs/, by folder."""
    docs = Path(config.docs_dir)
    here = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    here = {name for name in here if not name.startswith("make/")} | {CLI_PAGE}
    how_to = sorted(name for name in here if name.startswith("how-to/"))
    packages = sorted(name for name in here if name.startswith("reference/"))
    packages = [name for name in packages if name not in {CLI_PAGE, FORMATS}]
    rest = sorted(here - {*FIRST, *how_to, *packages, *BACKGROUND, CLI_PAGE, FORMATS})
    config.nav = [
        {"Start": [{"What it is": FIRST[0]}, *FIRST[1:]]},
        {"How to": how_to},
        {"Reference": [CLI_PAGE, FORMATS, *packages]},
        {"Background": [*BACKGROUND, *rest]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the page that shows what every `persona` command says to --help."""
    files.append(File.generated(config, CLI_PAGE, content=command_line_page()))
    return files


def command_line_page() -> str:
    """The help of every command, as it is printed, in the order of `persona --help`."""
    from persona.cli.main import app

    group: Any = typer.main.get_command(app)
    context = group.make_context("persona", [], resilient_parsing=True)
    parts = ["# Command line", "What `persona --help` and the help of each command say.", ""]
    parts += [_help(group, "persona", None)]
    for name in group.list_commands(context):
        parts += [_help(group.get_command(context, name), name, context)]
    return "\n".join(parts)


def _help(command: Any, name: str, parent: Any) -> str:
    context = command.context_class(
        command, info_name=name, parent=parent, max_content_width=100, terminal_width=100
    )
    title = f"persona {name}" if parent is not None else name
    return f"## {title}\n\n```text\n{command.get_help(context).strip()}\n```\n"
