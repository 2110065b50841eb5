"""Loading an aligned model and its fine-tune, and reading and writing at their hooks."""

from persona.models.chat import ChatFormat, TokenizedDialogue, chat_format
from persona.models.hooks import hooked, resid_post
from persona.models.load import load_pair
from persona.models.pair import ModelPair

__all__ = [
    "ChatFormat",
    "ModelPair",
    "TokenizedDialogue",
    "chat_format",
    "hooked",
    "load_pair",
    "resid_post",
]
