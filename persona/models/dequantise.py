"""Turning a llama GGUF into an ordinary Hugging Face folder."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def save_dequantised(gguf: Path, folder: Path, name: str) -> None:
    """Loads a llama GGUF through transformers and saves it as a float32 Hugging Face folder.

    Args:
        name: What the saved config calls the model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _silent_transformers():
        options: dict[str, Any] = {"gguf_file": gguf.name}
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **options)
        _complete_tokenizer(tokenizer, gguf, model.config.max_position_embeddings)
        # A model read from GGUF calls itself quantised and will not be saved until told otherwise.
        model.hf_quantizer = None
        model.is_quantized = False
        model.config.__dict__.pop("quantization_config", None)
        model.config.architectures = [type(model).__name__]
        model.config._name_or_path = name
        model.config.__dict__.pop("_model_name_or_path", None)  # the GGUF's own title
        model.save_pretrained(folder)
        for circumstance in ("is_local", "local_files_only"):  # how it was loaded here
            tokenizer.init_kwargs.pop(circumstance, None)
        tokenizer.save_pretrained(folder)


def _complete_tokenizer(tokenizer: Any, gguf: Path, context_length: int) -> None:
    """Restores what the GGUF loader leaves out of a `smollm` tokenizer.

    Digits are split off one by one before the GPT-2 pattern (without this "\\n\\n1." and two spaces
    before a number get other ids), and the control tokens become special tokens.
    Source: llama.cpp, src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM.
    """
    from gguf import GGUFReader
    from tokenizers import AddedToken, pre_tokenizers

    fields = GGUFReader(gguf).fields
    if str(fields["tokenizer.ggml.pre"].contents()) == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    tokens, kinds = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type"))
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in control],
        special_tokens=True,
    )
    tokenizer.model_max_length = context_length


@contextlib.contextmanager
def _silent_transformers() -> Iterator[None]:
    """While open, transformers shows neither progress bars nor warnings.

    Its bar for GGUF tensors heeds no setting, so standard error is set aside as well.
    """
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
