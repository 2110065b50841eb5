"""A certificate that steering took effect on this model, on this machine, where it was meant to.

Each check has a bound and a measurement, in tokens (how many were written wrongly) or in nats
(the largest difference of a log-probability between two ways that must agree). Agreement is
limited by the number format: its bound is 1e-4 nats, one unit of rounding of a typical
log-probability, and 4 times the difference that the unsteered model itself shows between the two
ways; never above 0.5, or twice that difference where this is more, as it is in bfloat16.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from persona.errors import SteeringError
from persona.models.chat.chat_format import ChatFormat, chat_format
from persona.models.hooks import hf_model, n_layers
from steering.certificate.checks import Check, CheckedModel
from steering.edits.edit import Edit


@dataclass(frozen=True)
class Certificate:
    """What was checked on a model, and whether all of it holds."""

    model: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def require(self) -> None:
        """Raise SteeringError that names the first failed check, if there is one."""
        for check in self.checks:
            if not check.passed:
                raise SteeringError(
                    f"steering {self.model} failed its certificate: {check.check}: "
                    f"{check.measured:.3g} {check.unit}, at most {check.bound:.3g} is allowed"
                )

    def table(self) -> str:
        """One line for each check, as text in columns."""
        width = max(len(check.check) for check in self.checks)
        lines = [f"{'check':{width}}  {'measured':>9}  {'bound':>9}  unit    passed"]
        lines += [
            f"{c.check:{width}}  {c.measured:9.2e}  {c.bound:9.2e}  {c.unit:6}  "
            f"{'yes' if c.passed else 'NO'}"
            for c in self.checks
        ]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The same as JSON; a measurement that failed to come about is null."""
        rows = []
        for check in self.checks:
            row = asdict(check) | {"passed": check.passed}
            rows.append(row if math.isfinite(check.measured) else row | {"measured": None})
        result = {"model": self.model, "passed": self.passed, "checks": rows}
        return json.dumps(result, indent=2, allow_nan=False)


def certify(
    model: Any,
    chat: ChatFormat | Any,
    *,
    edits: Sequence[Edit] | None = None,
    layers: Sequence[int] | None = None,
    batch: int = 32,
    check: bool = False,
) -> Certificate:
    """Measure on this model whether edits land where they are meant and nowhere else.

    model: a bridge or a plain Hugging Face causal LM. chat: its chat format, or its tokenizer.
    edits: what to hold to agreement between batches, paddings and caches; default: a random
        direction ablated after every block, and another added after the middle one.
    layers: blocks whose output is checked; default all.
    batch: rows of the batch that is compared with its texts one by one.
    check: raise at the first check that fails.
    Raises: SteeringError with `check`, for a layer the model lacks, and for edits with a
        coefficient for each row, which fit one batch size only.
    """
    chat = chat if isinstance(chat, ChatFormat) else chat_format(chat)
    chosen = list(range(n_layers(model))) if layers is None else list(layers)
    if not chosen or not all(0 <= layer < n_layers(model) for layer in chosen):
        raise SteeringError(
            f"layers {chosen} are out of range: the model has blocks 0 to {n_layers(model) - 1}"
        )
    if edits is not None and any(edit.rows is not None for edit in edits):
        raise SteeringError("edits to certify need one coefficient for all rows")
    checked = CheckedModel(model, chat, chosen, edits, batch)
    certificate = Certificate(_name(model), tuple(checked.checks()))
    if check:
        certificate.require()
    return certificate


def _name(model: Any) -> str:
    config = hf_model(model).config
    return str(getattr(config, "_name_or_path", "") or config.model_type)
