"""A toy model in vLLM beside the same one in Hugging Face, and what the second says of the first.

vLLM is started in this process; a test that breaks an engine makes its own.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from tiny_models import save_tiny_adapter, save_tiny_llama, save_tokenizer

D_MODEL = 128
N_BLOCKS = 4
N_NEW = 8
OPTIONS = {"max_num_seqs": 8}


def toy_prompts() -> list[list[int]]:
    """Four prompts of different lengths, two of the same."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(5, 200, (n,), generator=generator).tolist() for n in (5, 9, 3, 9)]


class Toy:
    """Folders of a toy llama and an adapter on it, and both as Hugging Face models, float32."""

    def __init__(self, folder: Path) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        self.base = save_tiny_llama(folder / "base", d_model=D_MODEL, n_layers=N_BLOCKS)
        self.adapter = save_tiny_adapter(folder / "adapter", self.base)
        self.aligned = self._load(AutoModelForCausalLM)
        tuned = PeftModel.from_pretrained(self._load(AutoModelForCausalLM), self.adapter)
        self.finetuned = tuned.merge_and_unload().eval()
        self.prompts = toy_prompts()

    def _load(self, kind: Any) -> Any:
        return kind.from_pretrained(self.base, dtype=torch.float32).eval()

    def merged(self, folder: Path) -> Path:
        """The fine-tuned model as a whole checkpoint."""
        self.finetuned.save_pretrained(folder)
        save_tokenizer(folder)
        return folder


@torch.no_grad()
def greedy(model: Any, prompt: list[int], intervene: Any = None, n: int = N_NEW) -> list[int]:
    """The likeliest tokens after a prompt, with a cache, as Hugging Face writes them."""
    with intervene(model) if intervene else contextlib.nullcontext():
        written = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=n,
            min_new_tokens=n,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=1,
        )
    return written[0, len(prompt) :].tolist()


@torch.no_grad()
def log_probs(model: Any, text: list[int], intervene: Any = None) -> torch.Tensor:
    """Log-probability of every token but the first, by one pass of Hugging Face."""
    with intervene(model) if intervene else contextlib.nullcontext():
        table = model(torch.tensor([text])).logits[0].log_softmax(-1)
    return table[:-1].gather(1, torch.tensor(text[1:])[:, None])[:, 0]
