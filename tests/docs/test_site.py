"""The site builds without a warning, asks nobody for anything, and shows what the code says."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("mkdocs", reason="needs the extra docs")
pytest.importorskip("mkdocstrings", reason="needs the extra docs")

REQUEST = re.compile(
    r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>"""
    r"""|url\(["']?(?:https?:)?//[^)]*\)|@import\s+["'](?:https?:)?//[^;]*;"""
)


def made(root, name):
    """A module of docs/make."""
    path = root / "docs" / "make" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"docs_make_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(folder, cwd, *words):
    environment = {**os.environ, "PYTHONPATH": str(cwd), "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder), *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(folder, root)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_page_is_in_the_menu(site, root):
    menu = (site / "index.html").read_text(encoding="utf-8")
    pages = [path.relative_to(root / "docs") for path in (root / "docs").rglob("*.md")]
    assert len(pages) > 15
    assert [str(page) for page in pages if f'href="{page.with_suffix(".html")}"' not in menu] == []


def test_every_notebook_is_a_page_with_its_figures_and_its_tokens_in_colour(site, root):
    notebooks = sorted(path.stem for path in (root / "notebooks").glob("*.ipynb"))
    listed = (site / "notebooks.html").read_text(encoding="utf-8")
    for name in notebooks:
        kept = (root / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
        page = (site / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
        drawn = re.findall(r'src="([\w-]+\.svg)#only-(?:light|dark)"', page)
        assert len(drawn) == 2 * kept.count("application/vnd.plotly.v1+json") > 0
        assert [file for file in drawn if not (site / "notebooks" / file).is_file()] == []
        assert f'href="notebooks/{name}.html"' in listed
    tour = (site / "notebooks" / f"{notebooks[0]}.html").read_text(encoding="utf-8")
    assert len(set(re.findall(r"background-color:rgba\([^)]+\)", tour))) > 20


def test_the_search_dialog_has_a_name(site):
    assert 'role="dialog" aria-label="Search"' in (site / "index.html").read_text(encoding="utf-8")


def test_no_page_asks_another_machine_for_anything(site):
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    found = {p.name: REQUEST.findall(p.read_text(encoding="utf-8")) for p in pages}
    assert {name: hits for name, hits in found.items() if hits} == {}


@pytest.mark.parametrize(
    "line",
    [
        '<script src="https://unpkg.com/iframe-worker/shim"></script>',
        "<link rel=stylesheet href=//fonts.example/css?family=Roboto>",
        "@font-face{src:url(https://fonts.example/x.woff2)}",
    ],
)
def test_a_planted_request_is_found(line):
    assert REQUEST.search(line)
    assert not REQUEST.search('<a href="https://example.org">a link is not a request</a>')


def test_the_reference_shows_hints_errors_and_examples(site):
    page = re.sub(r"<[^>]+>", "", (site / "reference/probes.html").read_text(encoding="utf-8"))
    assert "penalty: float = DEFAULT_PENALTY" in page
    assert "Raises: DataError for labels of one class" in page
    assert "&gt;&gt;&gt; probe = LogisticProbe().fit(" in page


@pytest.mark.parametrize("package", ["persona", "probes", "steering"])
def test_the_reference_has_every_name_of_a_face(site, root, package):
    """Also where a module has the name of its function, as `steering.edits.steer` has."""
    pages = list((root / "docs" / "reference").glob(f"{package}*.md"))
    faces = [page.stem for page in pages if page.stem not in ("persona.errors", "persona.rows")]
    assert package in faces
    for name in faces:
        face = importlib.import_module(name)
        told = {n for n in face.__all__ if inspect.getdoc(getattr(face, n))}
        functions = {n for n in told if inspect.isroutine(inspect.unwrap(getattr(face, n)))}
        page = (site / "reference" / f"{name}.html").read_text(encoding="utf-8")
        assert [n for n in sorted(functions) if f'id="{name}.{n}"' not in page] == []


def test_the_page_of_the_command_line_has_the_help_of_every_command(root, site):
    from persona.cli.main import app

    page = (site / "reference/command-line.html").read_text(encoding="utf-8")
    for info in app.registered_commands:
        name = info.name or info.callback.__name__
        assert f"persona {name} [OPTIONS]" in page
    assert "--questions-per-domain" in page


def test_a_broken_link_fails_the_build(root, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[gone](nosuch.md)")
    settings = (root / "mkdocs.yml").read_text(encoding="utf-8")
    validation = settings[settings.index("validation:") :]
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\nplugins: []\n{validation}")
    done = build(tmp_path / "site", tmp_path)
    assert done.returncode == 1
    assert "nosuch.md" in done.stderr


def test_a_docstring_in_the_style_of_the_house_becomes_markdown(root):
    text = made(root, "docstrings").as_markdown(
        "First line.\n\n    a = b\n\nrows: [n d_model],\n    as read. kind: x.\n"
        'mode: "one"   the first\n      "two"   the other\n'
        "other: not an argument.\nRaises: DataError for\nno rows.\nSource: Someone 2025.\n",
        {"rows", "mode"},
    )
    assert text.splitlines() == [
        "First line.",
        "",
        "```text",
        "    a = b",
        "```",
        "",
        "- **`rows`**: [n d_model],",
        "    as read. kind: x.",
        "",
        "- **`mode`**: ",
        "",
        "    ```text",
        '    "one"   the first',
        '    "two"   the other',
        "    ```",
        "",
        "other: not an argument.",
        "",
        "**Raises:** DataError for",
        "no rows.",
        "",
        "**Source:** Someone 2025.",
    ]
