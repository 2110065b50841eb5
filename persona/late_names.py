"""Names that a package offers and imports only when they are first used.

Reading `--help`, and finding a mistake in a command line, then costs no import of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def named_late(package: str, home: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names are imported when they are first used.

    home: name -> the module that defines it. No name may be that of a module of the package:
        importing that module would put it in the name's place.
    """

    def look_up(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(home[name]), name)

    return look_up
