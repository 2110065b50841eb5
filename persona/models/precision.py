"""Which device and number format a model runs in."""

from __future__ import annotations

import torch

from persona.errors import ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    """Return the number format called `name`; "auto" is bfloat16 where it is native, else float32.

    Emulated bfloat16 is about four times slower than float32 on a CPU, and
    `torch.ops.mkldnn._is_mkldnn_bf16_supported()` is True there too, so the CPU's own
    capabilities are asked.
    """
    if name != "auto":
        if name not in DTYPES:
            raise ModelError(f"dtype must be one of auto, {', '.join(DTYPES)}; got {name!r}")
        return DTYPES[name]
    device = device or choose_device()
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
        return torch.bfloat16 if native else torch.float32
    return torch.float32
