"""Loading an aligned model and its fine-tune, and reading and writing at their hooks."""

import logging

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

# Said at every load by a library that Transformers and PEFT import, where a faster 4-bit kernel
# for the processor is not installed; nothing here needs it.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward" not in str(record.msg)
)
