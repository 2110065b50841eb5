"""Words and number formats of the report: nothing here looks at a model or draws."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

UNDEFINED = "undefined"
NO_BREAK = "\u00a0"

# Control characters and lone surrogates have no place in HTML; tab and line feed do.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def cleaned(text: object) -> str:
    """Text without control characters (U+FFFD in their place); line ends become line feeds."""
    unified = str(text).replace("\r\n", "\n").replace("\r", "\n")
    return _UNPRINTABLE.sub("\ufffd", unified)


def as_float(value: Any) -> float | None:
    """The number, or None where there is none: null, NaN, infinite or not a number at all."""
    if value is None or isinstance(value, (str, bytes, Mapping)):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def number(value: Any, digits: int = 2, *, signed: bool = False) -> str:
    """A number with a true minus sign, "undefined" where there is none; never "−0.00"."""
    known = as_float(value)
    if known is None:
        return UNDEFINED
    text = f"{known:+.{digits}f}" if signed else f"{known:.{digits}f}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")
    return text.replace("-", "\u2212")


def percent(share: Any) -> str:
    """A share as `77 %`; "undefined" where there is none."""
    known = as_float(share)
    return UNDEFINED if known is None else f"{number(100 * known, 0)}{NO_BREAK}%"


def span(low: Any, high: Any, digits: int = 2, *, signed: bool = False) -> str:
    """`+0.34 to +0.58`, for a sentence."""
    return f"{number(low, digits, signed=signed)} to {number(high, digits, signed=signed)}"


def n_is(count: Any) -> str:
    """`n = 16` on one line."""
    return f"n{NO_BREAK}={NO_BREAK}{int(count)}"


def interval(estimate: Mapping[str, Any] | None, digits: int = 2, *, signed: bool = False) -> str:
    """`[low, high]` on one line, empty where either end is missing."""
    if not estimate or as_float(estimate.get("low")) is None:
        return ""
    if as_float(estimate.get("high")) is None:
        return ""
    low, high = (number(estimate[end], digits, signed=signed) for end in ("low", "high"))
    return f"[{low},{NO_BREAK}{high}]"


def with_interval(
    estimate: Mapping[str, Any] | None, digits: int = 2, *, signed: bool = False
) -> str:
    """`value [low, high]`."""
    if not estimate:
        return UNDEFINED
    value = number(estimate.get("value", estimate.get("mean")), digits, signed=signed)
    return f"{value} {interval(estimate, digits, signed=signed)}".strip()


def blocks(layers: Any) -> str:
    """`block 19`, `blocks 13–28`, or every one named where they have gaps."""
    numbers = sorted(int(layer) for layer in layers or [])
    if not numbers:
        return "no block named"
    if len(numbers) == 1:
        return f"block {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"blocks {numbers[0]}–{numbers[-1]}"
    return "blocks " + ", ".join(map(str, numbers))


def duration(seconds: Any) -> str:
    """`4 min 12 s`."""
    known = as_float(seconds)
    if known is None:
        return UNDEFINED
    whole = round(known)
    if whole < 60:
        return f"{known:.1f} s"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def memory(n_bytes: Any) -> str:
    """`2.31 GiB`."""
    known = as_float(n_bytes)
    return UNDEFINED if known is None else f"{known / 2**30:.2f} GiB"
