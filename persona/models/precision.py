"""Which device and number format a model runs in."""

from __future__ import annotations

import functools
import importlib.util
import logging
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from persona.choices import QUANTISED, SPREAD, Precision
from persona.errors import ModelError
from persona.extras import install_line

DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name) for name in Precision if name not in ("auto", *QUANTISED)
}


PAYS_FROM = 1.3
"""How many times as fast bfloat16 must be for `auto` to take it: its rounding is coarser."""


@dataclass(frozen=True)
class Placement:
    """Where a model's weights lie and how they are held.

    device: where token ids enter; of a spread model the place of its embedding.
    dtype: of activations, and of weights that are not quantised.
    weights: "int8", "nf4", or None where weights are as `dtype` says.
    spread: whether accelerate divides the blocks between all cards (`device_map="auto"`).
    asked: names of the number format and the device that this stands for; decides nothing here.
    """

    device: torch.device
    dtype: torch.dtype
    weights: str | None = None
    spread: bool = False
    asked: tuple[str, str] = field(default=("auto", "auto"), compare=False)

    @classmethod
    def of(cls, dtype: str = "auto", device: str = "auto") -> Placement:
        """What the names mean on this machine.

        dtype: auto, float32, bfloat16 or float16; int8 or nf4 for weights held by bitsandbytes.
        device: auto, cpu, cuda, cuda:1, mps; spread divides the blocks between all CUDA cards.
        Raises: ModelError for a name that is none, a device that does not exist here, a spread
            without a card to spread over, or a quantised format without bitsandbytes.
        """
        dtype, device = str(dtype), str(device)
        spread = device == SPREAD
        if spread and not torch.cuda.is_available():
            raise ModelError("device spread divides a model between CUDA cards; here is none")
        place = torch.device("cuda", 0) if spread else choose_device(device)
        if dtype not in QUANTISED:
            return cls(place, choose_dtype(dtype, place), None, spread, (dtype, device))
        if not has_bitsandbytes():
            raise ModelError(f"dtype {dtype} needs bitsandbytes: {install_line('quantised')}")
        if place.type not in ("cuda", "cpu"):
            raise ModelError(
                f"dtype {dtype} works on CUDA cards and on the CPU, not on {place.type}"
            )
        return cls(place, choose_dtype("auto", place), dtype, spread, (dtype, device))

    def elsewhere(self) -> Placement:
        """The same number format, on the device that was asked for as it is found there."""
        return Placement.of(self.dtype_name, self.asked[1])

    def to_train(self) -> Placement:
        """The same for training: float16 that was nobody's choice becomes float32.

        Raises: ModelError for what cannot be trained.
        """
        if self.weights:
            full = ", ".join(DTYPES)
            raise ModelError(f"{self.weights} holds weights for reading alone; take one of {full}")
        if self.spread:
            raise ModelError("a fine-tune is trained on one device, not on a spread; take cuda")
        if self.dtype != torch.float16:
            return self
        if self.asked[0] == "auto":
            return replace(self, dtype=torch.float32)
        raise ModelError("fine-tuning in float16 loses small gradients; take bfloat16 or float32")

    def __str__(self) -> str:
        return f"{self.dtype_name} on {SPREAD if self.spread else self.device}"

    @property
    def dtype_name(self) -> str:
        """What a person would ask for to get this again: float32, int8, ..."""
        return self.weights or str(self.dtype).removeprefix("torch.")

    def loading(self) -> dict[str, Any]:
        """Arguments of `from_pretrained`."""
        arguments: dict[str, Any] = {"dtype": self.dtype}
        if self.spread:
            arguments["device_map"] = "auto"
        elif self.weights:
            arguments["device_map"] = {"": str(self.device)}
        if self.weights:
            arguments["quantization_config"] = _quantisation(self.weights, self.dtype)
        return arguments

    def put(self, model: Any) -> Any:
        """Move a model to its device, unless loading has placed it already."""
        return model if self.spread or self.weights else model.to(self.device)

    def notes(self) -> list[str]:
        """What a reader of the results must know."""
        if self.weights is None:
            return []
        return [
            f"the weights are held as {self.weights}: both sides carry the same rounding, but "
            "readings are not those of the full weights"
        ]


def has_bitsandbytes() -> bool:
    """Whether the library that holds weights in 8 or 4 bits is installed."""
    return importlib.util.find_spec("bitsandbytes") is not None


def _quantisation(weights: str, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    # It says at every product that activations become float16 within it, which is its method.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if weights == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    _one_way_through_four_bits()
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def _one_way_through_four_bits() -> None:
    """4-bit layers work here as on any processor, where bitsandbytes has another way of its own.

    On a CPU with AVX512-BF16 its layers repack themselves in the first pass without gradients. That
    fails where a width is no multiple of 64, it rounds all activations to bfloat16, and what is
    repacked gives no gradient any more, which attribution asks for.
    """
    import bitsandbytes.nn.modules as layers

    layers.has_avx512bf16 = lambda: False  # type: ignore[attr-defined]


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; "auto" takes CUDA, then MPS, then the CPU.

    Raises: ModelError when the device does not exist here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"device {name!r} is not available here ({reason}); try --device auto"
        ) from error
    return device


def choose_dtype(name: str = "auto", device: torch.device | None = None) -> torch.dtype:
    """Return the number format called `name`; "auto" is bfloat16 where it pays, else float32."""
    if name != "auto":
        if name not in DTYPES:
            if name in QUANTISED:
                full = ", ".join(DTYPES)
                raise ModelError(f"{name} holds weights for reading alone; take one of {full}")
            known = ", ".join(Precision)
            raise ModelError(f"dtype must be one of {known}; got {name!r}")
        return DTYPES[name]
    device = device or choose_device()
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu":
        return torch.bfloat16 if bfloat16_pays() else torch.float32
    return torch.float32


@functools.cache
def bfloat16_pays() -> bool:
    """Whether this CPU multiplies matrices in bfloat16 clearly faster than in float32.

    Emulated bfloat16 is about four times slower than float32, and
    `torch.ops.mkldnn._is_mkldnn_bf16_supported()` is True there too, so the CPU's own capabilities
    are asked. They do not suffice: with avx512_bf16 and no AMX one machine took 1.8 times as long
    as in float32, so where they are there both are timed, for some 50 ms, once in a process.
    """
    capabilities = torch.cpu.get_capabilities()
    if not (capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")):
        return False
    return _seconds_of_product(torch.float32) >= PAYS_FROM * _seconds_of_product(torch.bfloat16)


def _seconds_of_product(dtype: torch.dtype) -> float:
    """The shortest of a few products as a small model's MLP takes of a batch."""
    rows, weight = torch.ones(480, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)
    took = []
    for _ in range(6):
        start = time.perf_counter()
        torch.nn.functional.linear(rows, weight)
        took.append(time.perf_counter() - start)
    return min(took)
