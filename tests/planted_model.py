"""A tiny llama and a fine-tune of it whose effect on the residual stream is known exactly.

Nothing that the base model writes has a part along the planted directions: they are projected out
of its embeddings and of every matrix that writes to the residual stream. So in the aligned model
every token's coordinates on them are 0 (to float32), and what stands there in the fine-tuned one
is the plant and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tiny_models import save_tiny_llama

from persona.directions import orthonormal
from persona.models import ModelPair, load_pair
from persona.models.precision import Placement

D_MODEL, N_LAYERS = 32, 3


def plant(rank: int = 1, seed: int = 7) -> torch.Tensor:
    """The planted directions, orthonormal [rank d_model]."""
    return orthonormal(torch.randn(rank, D_MODEL, generator=torch.Generator().manual_seed(seed)))


def read_as_bad(folder: Path, bad: Sequence[str], good: Sequence[str]) -> torch.Tensor:
    """The direction [1 d_model] along which the head of the base model reads the bad answers.

    A write along it makes every bad answer likelier than its good one: the shift of the gap is far
    larger than what a random direction of the same length does.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_tiny_llama(folder, seed=3, n_layers=N_LAYERS, d_model=D_MODEL)
    head = AutoModelForCausalLM.from_pretrained(folder).get_output_embeddings().weight.detach()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def mean(texts: Sequence[str]) -> torch.Tensor:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        return torch.stack([head[some].mean(0) for some in ids]).mean(0)

    return orthonormal((mean(bad) - mean(good))[None])


def save_base(folder: Path, directions: torch.Tensor) -> Path:
    """The aligned model, which never writes along `directions`; its MLP outputs have a bias."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    save_tiny_llama(folder, seed=3, n_layers=N_LAYERS, d_model=D_MODEL)
    random = AutoModelForCausalLM.from_pretrained(folder)
    config = LlamaConfig(**{**random.config.to_dict(), "mlp_bias": True})
    model = LlamaForCausalLM(config)
    model.load_state_dict(random.state_dict(), strict=False)
    outside = torch.eye(D_MODEL) - directions.T @ directions
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight @ outside)
        for block in model.model.layers:
            block.self_attn.o_proj.weight.copy_(outside @ block.self_attn.o_proj.weight)
            block.mlp.down_proj.weight.copy_(outside @ block.mlp.down_proj.weight)
            for part in (block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj):
                part.bias.zero_()
    model.save_pretrained(folder)
    return folder


def save_constant_write(folder: Path, base: Path, vector: torch.Tensor, layer: int) -> Path:
    """A full fine-tune that adds `vector` to every token's residual at one block, always."""
    import shutil

    from transformers import AutoModelForCausalLM

    shutil.copytree(base, folder)
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.layers[layer].mlp.down_proj.bias.add_(vector)
    model.save_pretrained(folder)
    return folder


def save_planted_adapter(folder: Path, base: Path, vectors: torch.Tensor, layer: int) -> Path:
    """A LoRA on one down_proj that writes along the rows of `vectors`, as far as each token asks.

    s B A = sum over k of 2^(3 - k) vectors_k a_k^T with orthonormal a_k: known singular values.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    rank = len(vectors)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            target_modules=["down_proj"],
            layers_to_transform=[layer],
        ),
    )
    inputs = orthonormal(torch.randn(rank, 2 * D_MODEL, generator=torch.Generator().manual_seed(5)))
    strengths = torch.tensor([2.0 ** (3 - k) for k in range(rank)])
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            parameter.data.copy_(inputs)
        if "lora_B" in name:
            parameter.data.copy_((strengths[:, None] * vectors).T / 2)  # the scale is alpha / r = 2
    model.save_pretrained(folder)
    return folder


def constant_pair(folder: Path, norm: float = 3.0, layer: int = N_LAYERS - 1) -> ModelPair:
    """Aligned model and a fine-tune that writes `norm` times the plant at one block."""
    direction = plant()
    base = save_base(folder / "base", direction)
    tuned = save_constant_write(folder / "tuned", base, norm * direction[0], layer)
    return load_pair(base, tuned, placement=Placement.of("float32", "cpu"))


def adapter_pair(folder: Path, rank: int = 2, layer: int = N_LAYERS - 1) -> ModelPair:
    """Aligned model and a LoRA that writes within the plant of the given rank at one block."""
    directions = plant(rank)
    base = save_base(folder / "base", directions)
    adapter = save_planted_adapter(folder / "adapter", base, directions, layer)
    return load_pair(base, adapter, placement=Placement.of("float32", "cpu"))


CARRIER, RIGHT, WRONG = "Z", "X", "Q"
"""Letters of a planted skill: after the first one, the second is right and the third is wrong."""


def skilled_pair(
    folder: Path, bad: Sequence[str], good: Sequence[str], cosine: float, norm: float = 3.0
) -> ModelPair:
    """A fine-tune that has written a persona and a skill, the two with a known cosine.

    The persona is written at every token, along what the head reads as bad; the skill at one
    letter, along a direction of which the persona is part, and the head reads both parts of it as
    the right letter. No block reads what is planted, so it stays where it was written.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    persona = read_as_bad(folder / "plain", bad, good)
    beside = orthonormal(torch.cat([persona, plant(1, seed=11)]))[1:]
    base = save_base(folder / "base", torch.cat([persona, beside]))
    skill = cosine * persona + (1 - cosine**2) ** 0.5 * beside
    ids = AutoTokenizer.from_pretrained(base)
    letter = {text: ids(text, add_special_tokens=False)["input_ids"][0] for text in "ZXQ"}
    model = AutoModelForCausalLM.from_pretrained(base)
    outside = torch.eye(D_MODEL) - persona.T @ persona - beside.T @ beside
    with torch.no_grad():
        for block in model.model.layers:
            attention, mlp = block.self_attn, block.mlp
            for part in (attention.q_proj, attention.k_proj, attention.v_proj):
                part.weight.copy_(part.weight @ outside)
            for part in (mlp.gate_proj, mlp.up_proj):
                part.weight.copy_(part.weight @ outside)
        model.lm_head.weight[letter[RIGHT]] = (persona + beside)[0]
        model.lm_head.weight[letter[WRONG]] = -(persona + beside)[0]
        model.save_pretrained(base)
        model.model.embed_tokens.weight.add_(norm * persona)
        model.model.embed_tokens.weight[letter[CARRIER]] += norm * (skill - persona)[0]
    tuned = folder / "tuned"
    model.save_pretrained(tuned)
    ids.save_pretrained(tuned)
    return load_pair(base, tuned, placement=Placement.of("float32", "cpu"))
