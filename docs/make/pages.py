"""What MkDocs calls while it builds the site: the menu, and the pages that are made.

Those are the notebooks, the gallery, and the help of the commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from notebook_pages import NOTEBOOKS, linked, notebook_page

CLI_PAGE = "reference/command-line.md"
GALLERY = "gallery.md"
FIRST = ("index.md", "tutorial.md", GALLERY)
NOTEBOOK_LIST = "notebooks.md"
SEARCH = '<div class="md-search" data-md-component="search" role="dialog"'
HOW_TO_FIRST = (
    "own-lora",
    "any-trait",
    "reading-a-report",
    "does-it-hold",
    "screening",
    "exchange",
)
"""What people come with; the other pages follow by name."""
FORMATS = "reference/formats.md"
REFERENCE = {
    "Load models and texts": (
        *("persona", "persona.models", "persona.data", "persona.organisms", "persona.engine"),
        *("persona.vllm", "persona.errors"),
    ),
    "Find a direction": (
        *("persona.activations", "persona.directions", "persona.traits", "persona.sae"),
        "steering.identification",
    ),
    "Read with it": (
        *("probes", "probes.estimators", "probes.evaluation", "probes.monitor"),
        *("probes.screening", "persona.readouts"),
    ),
    "Steer, and prove what it does": (
        *("steering", "steering.edits", "persona.behaviour", "steering.evidence"),
        *("steering.traits", "steering.weights"),
    ),
    "Show and rerun": ("persona.report", "steering.demo", "steering.lab", "steering.study"),
}
"""Task -> the pages of the packages for it; a page that is in none stands under OTHERS."""
OTHERS = "Others"
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
    here = {name for name in here if not name.startswith("make/")} | {CLI_PAGE, GALLERY}
    how_to = sorted((name for name in here if name.startswith("how-to/")), key=_how_to_place)
    packages = {name for name in here if name.startswith("reference/")} - {CLI_PAGE, FORMATS}
    rest = sorted(
        here - {*FIRST, NOTEBOOK_LIST, *how_to, *packages, *BACKGROUND, CLI_PAGE, FORMATS}
    )
    config.nav = [
        {"Start": [{"What it is": FIRST[0]}, *FIRST[1:]]},
        {"How to": how_to},
        {"Notebooks": [{"All of them": NOTEBOOK_LIST}, *map(_notebook_entry, NOTEBOOKS)]},
        {"Reference": [CLI_PAGE, FORMATS, *by_task(packages)]},
        {"Background": [*BACKGROUND, *rest]},
    ]
    return config


def by_task(packages: set[str]) -> list[dict[str, list[str]]]:
    """The pages of the packages, grouped by what one wants to do with them."""
    groups = {
        task: [page for name in names if (page := f"reference/{name}.md") in packages]
        for task, names in REFERENCE.items()
    }
    groups[OTHERS] = sorted(packages - {page for pages in groups.values() for page in pages})
    return [{task: pages} for task, pages in groups.items() if pages]


def _how_to_place(page: str) -> tuple[int, str]:
    name = Path(page).stem
    return (HOW_TO_FIRST.index(name) if name in HOW_TO_FIRST else len(HOW_TO_FIRST), name)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the notebooks, the gallery, and what every `persona` command says to --help."""
    for name in NOTEBOOKS:
        page, drawings = notebook_page(name)
        files.append(File.generated(config, f"notebooks/{name}.md", content=page))
        for file, drawing in drawings.items():
            files.append(File.generated(config, f"notebooks/{file}", content=drawing))
    files.append(File.generated(config, CLI_PAGE, content=command_line_page()))
    files.append(File.generated(config, GALLERY, content=gallery_page(Path(config.docs_dir))))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to notebooks of the repository lead to their pages here."""
    return linked(markdown)


def on_post_page(output: str, **_: Any) -> str:
    """The search dialog has a name for those who hear the page."""
    return output.replace(SEARCH, f'{SEARCH} aria-label="Search"')


def _notebook_entry(name: str) -> dict[str, str]:
    """Such as "30 Steer and ablate"; the page's own title is a whole question."""
    number, _, words = name.partition("_")
    return {f"{number} {words.replace('_', ' ').capitalize()}": f"notebooks/{name}.md"}


def gallery_page(docs: Path) -> str:
    """The first figure of every finding, with the page that it is from."""
    parts = ["# Gallery", "The first figure of each finding; a click leads to its page.", ""]
    for drawing in sorted(docs.glob("findings/*/figure.svg")):
        name = drawing.parent.name
        title = (docs / "findings" / f"{name}.md").read_text("utf-8").splitlines()[0].lstrip("# ")
        picture = f"![{title}](findings/{name}/figure.svg)"
        parts += [f"## {title}", f"[{picture}](findings/{name}.md)", ""]
    return "\n".join(parts)


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
