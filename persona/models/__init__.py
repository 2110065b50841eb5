"""Loading an aligned model and its fine-tune, and reading and writing at their hooks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from persona.late_names import named_late

if TYPE_CHECKING:
    from persona.models.chat.chat_format import ChatFormat, TokenizedDialogue, chat_format
    from persona.models.chat.turn_end import end_tokens
    from persona.models.hooks import hf_model, hooked, model_device, resid_post
    from persona.models.in_memory import pair_of
    from persona.models.load import load_pair
    from persona.models.pair import ModelPair
    from persona.models.precision import Placement

__all__ = [
    "ChatFormat",
    "ModelPair",
    "Placement",
    "TokenizedDialogue",
    "chat_format",
    "end_tokens",
    "hf_model",
    "hooked",
    "load_pair",
    "model_device",
    "pair_of",
    "resid_post",
]

__getattr__ = named_late(
    __name__,
    {
        "ChatFormat": "persona.models.chat.chat_format",
        "ModelPair": "persona.models.pair",
        "Placement": "persona.models.precision",
        "TokenizedDialogue": "persona.models.chat.chat_format",
        "chat_format": "persona.models.chat.chat_format",
        "end_tokens": "persona.models.chat.turn_end",
        "hf_model": "persona.models.hooks",
        "hooked": "persona.models.hooks",
        "load_pair": "persona.models.load",
        "model_device": "persona.models.hooks",
        "pair_of": "persona.models.in_memory",
        "resid_post": "persona.models.hooks",
    },
)

# Said at every load by a library that Transformers and PEFT import, where a faster 4-bit kernel
# for the processor is not installed; nothing here needs it.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward" not in str(record.msg)
)
