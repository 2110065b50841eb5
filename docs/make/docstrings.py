"""Docstrings as the code has them, turned into the Markdown that the reference pages show.

In the code a docstring is plain text: `name: what it is` for an argument or field, `Raises:` and
`Source:` at the start of a line, formulas and tables indented or in columns. Here these become
lists, paragraphs and code blocks; the sections Args, Returns, Raises and Examples with an indented
body stay, for Griffe to read.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import griffe

_SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Examples):\s*$")
_LABEL = re.compile(r"^(Raises|Source|differs): (.*)$")
_OPENING = re.compile(r"^[A-Z][\w` ]{0,30}: ")
_ITEM = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*)*): (.+)$")
_COLUMNS = re.compile(r"\S {2,}\S")


class HouseStyle(griffe.Extension):
    """Rewrites every docstring of a package when it has been read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for found in _objects(pkg):
            if found.docstring is not None:
                found.docstring.value = as_markdown(found.docstring.value, _names_of(found))
        _show_what_faces_import(pkg)


def _show_what_faces_import(package: griffe.Module) -> None:
    """`from steering.edits.steer import steer` in a face: there `steer` is the function, as it is
    in Python, where Griffe shows the module of that name."""
    modules = [found for found in _objects(package) if isinstance(found, griffe.Module)]
    meant = {
        module.path: module.members[module.name]
        for module in modules
        if isinstance(module.parent, griffe.Module)
        and module.parent.imports.get(module.name) == f"{module.path}.{module.name}"
    }
    for module in modules:
        for name, member in list(module.members.items()):
            if not isinstance(member, griffe.Alias):
                continue
            if member.target_path in meant:
                module.members[name] = griffe.Alias(name, meant[member.target_path], parent=module)
            else:  # now, while the way to what it names still leads through those modules
                with contextlib.suppress(griffe.AliasResolutionError, griffe.CyclicAliasError):
                    member.resolve_target()
    for path, found in meant.items():
        parent = package[path.removeprefix(f"{package.path}.").rpartition(".")[0]]
        parent.members[found.name] = griffe.Alias(found.name, found, parent=parent)


def as_markdown(docstring: str, names: set[str]) -> str:
    """names: the arguments and fields whose `name: ...` lines are a list."""
    made: list[str] = []
    for block in _blocks(docstring.splitlines(), names):
        made += ["", *block] if made and made[-1] else block
    return "\n".join(made)


def _blocks(lines: list[str], names: set[str]) -> Iterator[list[str]]:
    place = 0
    while place < len(lines):
        line = lines[place]
        end = place + 1
        if not line.strip():
            place += 1
            continue
        if _SECTION.match(line):
            while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" ")):
                end += 1
            yield lines[place:end]
        elif _is_item(line, names):
            while end < len(lines) and lines[end].startswith(" "):
                end += 1
            yield _item(lines[place:end])
        elif line.startswith(" ") or _COLUMNS.search(line):
            while end < len(lines) and (lines[end].startswith(" ") or _COLUMNS.search(lines[end])):
                end += 1
            yield ["```text", *lines[place:end], "```"]
        else:
            while end < len(lines) and not _starts_block(lines[end], names):
                end += 1
            label = _LABEL.match(line)
            first = f"**{label[1].capitalize()}:** {label[2]}" if label else line
            yield [first, *lines[place + 1 : end]]
        place = end


def _starts_block(line: str, names: set[str]) -> bool:
    return (
        not line.strip()
        or line.startswith(" ")
        or bool(_SECTION.match(line) or _LABEL.match(line) or _OPENING.match(line))
        or bool(_COLUMNS.search(line))
        or _is_item(line, names)
    )


def _is_item(line: str, names: set[str]) -> bool:
    found = _ITEM.match(line)
    return found is not None and set(found[1].split(", ")) <= names


def _item(lines: list[str]) -> list[str]:
    found = _ITEM.match(lines[0])
    assert found is not None
    head = f"- **`{found[1]}`**: "
    if any(_COLUMNS.search(line.strip()) for line in lines):
        shift = len(lines[0]) - len(found[2])
        rest = [line[shift:] if not line[:shift].strip() else line.strip() for line in lines[1:]]
        return [head, "", *(f"    {line}" for line in ("```text", found[2], *rest, "```"))]
    return [head + found[2], *lines[1:]]


def _objects(found: griffe.Object) -> Iterator[griffe.Object]:
    yield found
    for member in found.members.values():
        if isinstance(member, griffe.Object):
            yield from _objects(member)


def _names_of(found: griffe.Object) -> set[str]:
    names = {"options"}
    if isinstance(found, griffe.Function):
        names |= {parameter.name.lstrip("*") for parameter in found.parameters}
    if isinstance(found, griffe.Class):
        names |= {name for name, member in found.members.items() if member.is_attribute}
        if isinstance(made := found.members.get("__init__"), griffe.Function):
            names |= _names_of(made)
    return names
