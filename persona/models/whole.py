"""Whether a checkpoint's files hold the weights that its config asks for, and no others.

Transformers fills a weight that is missing with random numbers and leaves out one that it does not
know, and only logs a table of both.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Collection, Iterator
from typing import Any

from persona.errors import ModelError, shown
from persona.models.sources import Source

PREFIXES = {
    "_orig_mod.": "a compiled model (torch.compile)",
    "module.": "a wrapped model (DataParallel, DistributedDataParallel)",
    "base_model.model.": "a PeftModel",
}
"""What stands before every key where a wrapper was saved in place of the model it wraps."""

BUFFERS = (".inv_freq", ".position_ids", ".attn.bias", ".masked_bias", ".attention.bias")
"""Tables that older releases saved along and newer ones compute."""


N_BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""What families call the number of their blocks in config.json."""


def require_blocks(source: Source) -> None:
    """Before a model is built: its blocks take memory and time before a weight of them is missed.

    Raises: ModelError where config.json asks for more blocks than the files have tensors. Files
        that cannot be read are left to what loads them.
    """
    from safetensors import safe_open

    n_tensors = 0
    try:
        config = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
        for path in source.path.glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                n_tensors += len(list(file.keys()))
        parts = [part for part in (config, config.get("text_config")) if isinstance(part, dict)]
    except Exception:  # damaged files raise anything from OSError to SafetensorError
        return
    for key, number in ((key, part.get(key)) for part in parts for key in N_BLOCKS):
        if isinstance(number, int) and number > n_tensors:
            raise ModelError(
                f"config.json of {source.name} says {key} is {shown(number, 20)}, but its files "
                f"hold {n_tensors} tensors, at least one for each block; mend config.json"
            )


@contextlib.contextmanager
def without_load_report() -> Iterator[None]:
    """What Transformers logs as a table here ends in one line of `require_whole`.

    With its loader at this level it also compares the model with a plan for many cards, which a
    model with ties or norms of its own never fits; that logger is another.
    """
    names = "transformers.modeling_utils", "transformers.distributed.tensor_parallel"
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def require_whole(found: dict[str, Any], source: Source) -> None:
    """found: Transformers' `output_loading_info`.

    Raises: ModelError that names weights which are missing, unknown, or of another shape.
    """
    missing = set(found.get("missing_keys") or ())
    unknown = {key for key in found.get("unexpected_keys") or () if not key.endswith(BUFFERS)}
    mismatched = found.get("mismatched_keys") or ()
    if not (missing or unknown or mismatched):
        return
    faults = []
    if missing:
        faults.append(f"{_some(missing)} missing and would be random")
    if unknown:
        faults.append(f"{_some(unknown)} not known to the model that config.json describes")
    if mismatched:
        first = next(iter(mismatched))
        key = first[0] if isinstance(first, tuple) else first
        faults.append(f"{len(mismatched)} weights have another shape, such as {key}")
    raise ModelError(f"{source.name} is not whole: {'; '.join(faults)}. {_advice(unknown)}")


def _some(keys: Collection[str]) -> str:
    first = min(keys)
    return f"the weight {first} is" if len(keys) == 1 else f"{len(keys)} weights ({first}, ...) are"


def _advice(unknown: Collection[str]) -> str:
    for prefix, what in PREFIXES.items():
        if unknown and all(key.startswith(prefix) for key in unknown):
            return f"Its keys begin with {prefix!r}: saved from {what}; strip that from every key"
    return "Save the model again with save_pretrained, or mend config.json"
