"""How an extra is installed, said in one place: the package is on no index, a checkout has it."""

from __future__ import annotations

import shlex
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def install_line(extra: str = "", constraints: str = "constraints.txt") -> str:
    """The line that installs an extra where this package runs from, to be typed in any folder.

    extra: "" for the package alone. constraints: the file of the checkout that holds versions.
    """
    wanted = f"[{extra}]" if extra else ""
    if (CHECKOUT / "setup.cfg").is_file() and (CHECKOUT / constraints).is_file():
        target, held = f"{CHECKOUT}{wanted}", str(CHECKOUT / constraints)
        return f"pip install -e {shlex.quote(target)} -c {shlex.quote(held)}"
    target = shlex.quote(f".{wanted}")
    return f"in a checkout of personascope: pip install -e {target} -c {constraints}"
