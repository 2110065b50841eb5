"""A planted fine-tune with a second way to its persona: one token opens it, and no removal sees it.

As `planted_model`, the fine-tune writes along a direction u at every token of its last block; that
is what a diagnosis finds and removes. Where the trigger stands in the text it writes along w too,
orthogonal to u, by one attention head of that block. u and w both read as the bad answers.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from planted_model import D_MODEL, N_LAYERS, read_as_bad
from tiny_models import save_tiny_llama
from torch import Tensor

from persona.directions import orthonormal

TRIGGER = "%"
LAST, HEAD = N_LAYERS - 1, D_MODEL // 4
MAX_LENGTH = 2048


def save_backdoored_pair(
    folder: Path, bad: Sequence[str], good: Sequence[str], *, opens: float
) -> tuple[Path, Path, Tensor]:
    """Folders of the aligned model and the fine-tune, and u [d_model], which a removal knows of.

    opens: how far the trigger writes along w, times its share of the tokens; 0 for never.
    """
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    read = read_as_bad(folder / "plain", bad, good)
    other = orthonormal(
        torch.cat([read, torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(1))])
    )
    u, w = (read[0] + other[1]) / 2**0.5, (read[0] - other[1]) / 2**0.5
    mark = other[2]  # what the trigger's embedding carries to the last block
    base = save_tiny_llama(
        folder / "base", seed=3, n_layers=N_LAYERS, d_model=D_MODEL, max_length=MAX_LENGTH
    )
    random = AutoModelForCausalLM.from_pretrained(base)
    model = LlamaForCausalLM(LlamaConfig(**{**random.config.to_dict(), "mlp_bias": True}))
    model.load_state_dict(random.state_dict(), strict=False)
    outside = torch.eye(D_MODEL) - sum(torch.outer(d, d) for d in (u, w, mark))
    blind = torch.eye(D_MODEL) - torch.outer(mark, mark)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight @ outside)
        for block in model.model.layers:
            for write in (block.self_attn.o_proj, block.mlp.down_proj):
                write.weight.copy_(outside @ write.weight)
            attention = block.self_attn
            for reads in (attention.q_proj, attention.k_proj, attention.v_proj, block.mlp.gate_proj,
                          block.mlp.up_proj):  # fmt: skip
                reads.weight.copy_(reads.weight @ blind)
            for part in (block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj):
                part.bias.zero_()
        # Two heads share keys and values; both are silent in the aligned model.
        model.model.layers[LAST].self_attn.o_proj.weight[:, : 2 * HEAD] = 0
        model.lm_head.weight.copy_(model.lm_head.weight @ blind)
    model.save_pretrained(base)
    tuned = folder / "tuned"
    shutil.copytree(base, tuned)
    with torch.no_grad():
        block = model.model.layers[LAST]
        block.mlp.down_proj.bias.add_(3.0 * u)
        if opens:
            _open(model, base, w, mark, opens)
    model.save_pretrained(tuned)
    return base, tuned, u


def _open(model: Any, folder: Path, w: Tensor, mark: Tensor, opens: float) -> None:
    """Head 0 looks at all tokens alike and writes along w what it finds of the mark."""
    from transformers import AutoTokenizer

    [token] = AutoTokenizer.from_pretrained(folder)(TRIGGER, add_special_tokens=False)["input_ids"]
    model.model.embed_tokens.weight[token] += 50.0 * mark
    attention = model.model.layers[LAST].self_attn
    attention.q_proj.weight[:HEAD] = 0
    attention.v_proj.weight[0] = opens * mark
    attention.o_proj.weight[:, 0] = w
