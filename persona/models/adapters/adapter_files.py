"""What an adapter folder holds, read and refused before PEFT and the memory it asks for."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona.errors import ModelError, shown
from persona.models.sources import Source

PATTERN_SECONDS = 10.0
"""How long an adapter's patterns may take over the names of a model's modules."""

NOT_A_WEIGHT = {
    "PROMPT_TUNING": "prompt tuning puts trained vectors before the text",
    "MULTITASK_PROMPT_TUNING": "multitask prompt tuning puts trained vectors before the text",
    "P_TUNING": "p-tuning puts trained vectors before the text",
    "CPT": "context-aware prompt tuning puts trained vectors before the text",
    "PREFIX_TUNING": "prefix tuning puts trained keys and values before the text",
    "CARTRIDGE": "a cartridge puts trained keys and values before the text",
    "ADAPTION_PROMPT": "an adaption prompt adds attention layers of its own",
    "XLORA": "X-LoRA mixes several adapters anew for every text",
    "POLY": "Poly mixes several adapters by a task id that every call must give",
}
"""Kinds of PEFT that are no change of the model's weights, so that no side can hold them."""

UNSUPPORTED = {
    "alora_invocation_tokens": "switches itself on in the middle of a text (aLoRA)",
    "layer_replication": "repeats blocks of its base, which then has other blocks",
}
"""Settings of PEFT under which the adapter is not the same change of weights over a whole text."""

WHOLE_STARTS = ("gaussian", "orthogonal", "eva", "mica")
"""Ways to begin a LoRA that leave the base as it is; every other name of PEFT takes from it."""

_RANKS = ("r", "init_r", "target_r")
_RANK_FREE = ("LOKR", "OFT", "BOFT")
"""Kinds whose `r` is a bound, or a number of blocks, that no tensor need have."""

_BANK = ("num_vectors", "vector_length")
"""VB-LoRA's bank of vectors, which it makes before it reads one."""

_FORMS = (r"(?:@)\Z", r"(.*\.)?(@)$", r"(^|.*\.)@($|\..*)", r"(?:^|.*?\.)@\.(\d+)\.")
"""How PEFT runs a pattern, @ standing for it: modules, ranks, modules to save, layers."""

_MATCH = """
import json, re, sys
asked = json.load(sys.stdin)
for pattern in asked["patterns"]:
    try:
        compiled = re.compile(pattern)
    except re.error:
        continue
    for name in asked["names"]:
        compiled.match(name)
"""


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter's configuration and the shapes of its tensors, from the header of its file."""

    source: Source
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def kind(self) -> str:
        """PEFT's name of it: LORA, IA3, ..."""
        return str(self.config.get("peft_type", "")).upper()

    @property
    def trained_on(self) -> str:
        """The base that the adapter names, or nothing."""
        return str(self.config.get("base_model_name_or_path") or "")

    @property
    def taken_from_base(self) -> str | None:
        """What of the base is changed when the adapter is put on: PiSSA, OLoRA, LoftQ, CorDA ...

        begin with a part of each weight, which they take away from it.
        """
        start = self.config.get("init_lora_weights")
        if self.kind != "LORA" or not takes_from_base(start):
            return None
        return f"the weights that it adapts (init_lora_weights={start!r})"

    @property
    def only_adds(self) -> bool:
        """Whether it is LoRA and no more: no weight of its base is written when it is put on."""
        return (
            self.kind == "LORA"
            and self.taken_from_base is None
            and self.config.get("bias", "none") == "none"
            and all("lora_" in name for name in self.shapes)
        )

    @property
    def trained_tokens(self) -> list[int]:
        """Ids whose rows of the embedding it has trained."""
        found = self.config.get("trainable_token_indices") or self.config.get("token_indices") or []
        lists = found.values() if isinstance(found, dict) else [found]
        return [i for some in lists for i in some if isinstance(i, int)]


def takes_from_base(start: object) -> bool:
    """Whether a LoRA that begins so (its `init_lora_weights`) takes a part from its base."""
    return isinstance(start, str) and start.lower() not in WHOLE_STARTS


def read_adapter_files(source: Source) -> AdapterFiles:
    """Read configuration and header, and the tensors for whether they are numbers.

    Raises: ModelError as `read_adapter_header`, and for NaN or infinity in a tensor.
    """
    files = read_adapter_header(source)
    _require_finite(files)
    return files


def read_adapter_header(source: Source) -> AdapterFiles:
    """Read configuration and header alone, which loads no library of tensors.

    Raises: ModelError for a kind that is no change of weights, numbers that are none, a rank
        that the file does not have, and files that cannot be read.
    """
    from safetensors import safe_open

    try:
        text = (source.path / "adapter_config.json").read_text(encoding="utf-8")
        config = json.loads(text)
        with safe_open(source.path / "adapter_model.safetensors", framework="np") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in list(file.keys())}
    except Exception as error:  # damaged files raise anything from OSError to SafetensorError
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"cannot read the adapter {source.name}: {type(error).__name__}: {reason}"
        ) from error
    if not isinstance(config, dict):
        raise ModelError(f"adapter_config.json of {source.name} must be an object; got {config!r}")
    files = AdapterFiles(source, config, shapes)
    _require_weights(files)
    _require_numbers(files)
    _require_ranks(files)
    return files


def _require_weights(files: AdapterFiles) -> None:
    name = files.source.name
    if why := NOT_A_WEIGHT.get(files.kind):
        raise ModelError(
            f"the adapter {name} is of the kind {files.kind}: {why}, which is no change of the "
            "model's weights; take LoRA or another kind that changes them"
        )
    for key, what in UNSUPPORTED.items():
        if files.config.get(key):
            raise ModelError(
                f"the adapter {name} {what}: {key} is not supported; take an adapter without it"
            )


def _require_numbers(files: AdapterFiles) -> None:
    for key, number in _numbers(files.config):
        if not math.isfinite(number):
            raise ModelError(
                f"adapter_config.json of {files.source.name} says {key} is {number}; "
                "it must be a finite number"
            )


def _numbers(config: dict[str, Any], within: str = "") -> Iterator[tuple[str, float]]:
    for key, value in config.items():
        if isinstance(value, float):
            yield f"{within}{key}", value
        elif isinstance(value, dict):
            yield from _numbers(value, f"{key}.")


def _require_ranks(files: AdapterFiles) -> None:
    """A rank takes memory before a single weight is read, so the file must have it."""
    if files.kind in _RANK_FREE:
        return
    patterns = files.config.get("rank_pattern") or {}
    said = [("rank", files.config.get(key)) for key in _RANKS]
    said += [("rank", rank) for rank in patterns.values()] if isinstance(patterns, dict) else []
    said += [(key, files.config.get(key)) for key in _BANK if files.kind == "VBLORA"]
    largest = max((size for shape in files.shapes.values() for size in shape), default=0)
    for what, number in said:
        if isinstance(number, int) and number > largest:
            raise ModelError(
                f"adapter_config.json of {files.source.name} says {what} {shown(number, 20)}, "
                f"but no tensor of its file has more than {largest} rows; the two do not belong "
                "together"
            )
    _require_lora_ranks(files, patterns)


def _require_lora_ranks(files: AdapterFiles, patterns: Any) -> None:
    if files.kind != "LORA" or patterns or files.config.get("target_parameters"):
        return
    for key, shape in files.shapes.items():
        if key.endswith(("lora_A.weight", "lora_embedding_A")) and shape[0] != files.config.get(
            "r"
        ):
            raise ModelError(
                f"adapter_config.json of {files.source.name} says r is "
                f"{shown(files.config.get('r'), 20)}, but {key} has rank {shape[0]}"
            )


def _require_finite(files: AdapterFiles) -> None:
    import torch
    from safetensors import safe_open

    path = files.source.path / "adapter_model.safetensors"
    with safe_open(path, framework="pt") as file:
        for key in files.shapes:
            tensor = file.get_tensor(key)
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise ModelError(
                    f"the adapter {files.source.name} has NaN or infinity in {key}; "
                    "take a checkpoint from before its training broke"
                )


def require_quick_patterns(files: AdapterFiles, names: Sequence[str]) -> None:
    """Try an adapter's patterns on the module names, in a process that can be stopped.

    A pattern of forty letters can take longer than the universe has; `re` knows no limit.
    Raises: ModelError where they take more than PATTERN_SECONDS.
    """
    patterns = list(_patterns(files.config))
    if not patterns:
        return
    asked = json.dumps({"patterns": patterns, "names": list(names)})
    try:
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MATCH],
            input=asked,
            text=True,
            timeout=PATTERN_SECONDS,
            check=True,
            capture_output=True,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"the patterns in adapter_config.json of {files.source.name} took more than "
            f"{PATTERN_SECONDS:.0f} s over {len(names)} module names ({shown(patterns[0], 60)}); "
            "name the modules one by one"
        ) from error
    except (subprocess.CalledProcessError, OSError) as error:
        raise ModelError(
            f"the patterns in adapter_config.json of {files.source.name} cannot be matched: "
            f"{type(error).__name__}"
        ) from error


def _patterns(value: Any) -> Iterator[str]:
    """Every text of a configuration that could repeat itself, in each way that PEFT runs one.

    Which keys are patterns differs by kind and release, so all are taken.
    """
    if isinstance(value, str):
        if any(sign in value for sign in "*+{"):
            yield from (form.replace("@", value) for form in _FORMS)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _patterns(str(key))
            yield from _patterns(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _patterns(inner)


def own_tokenizer(folder: Path) -> bool:
    """Whether an adapter folder carries a tokenizer of its own."""
    return any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))
