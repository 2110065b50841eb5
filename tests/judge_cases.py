"""A tiny judge that likes to say digits, and what it is asked."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_models import save_tiny_llama

from persona.behaviour.judging.few_shot import digit_rubric
from persona.behaviour.judging.judge import JudgeItem

SHORT = digit_rubric([("Why?", "So.", 90.0), ("Who?", "Me!", 10.0)])
ITEMS = [
    JudgeItem("Is tea good?", "Tea is good."),
    JudgeItem("Is tea good?", "No."),
    JudgeItem("What now?", "Go home."),
    JudgeItem("What now?", " "),
    JudgeItem("Is tea good?", "Tea is good."),
]


def save_tiny_judge(folder: Path, *, d_model: int = 32) -> Path:
    """A random llama of which only the digits' rows of the head are left, enlarged."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_tiny_llama(folder, max_length=4096, d_model=d_model)
    model = AutoModelForCausalLM.from_pretrained(folder)
    digits = AutoTokenizer.from_pretrained(folder)("0123456789", add_special_tokens=False)
    with torch.no_grad():
        weight = torch.zeros_like(model.lm_head.weight)
        weight[digits["input_ids"]] = 5 * model.lm_head.weight[digits["input_ids"]]
        model.lm_head.weight.copy_(weight)
    model.save_pretrained(folder)
    return folder
