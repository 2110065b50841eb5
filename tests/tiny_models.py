"""Fixtures of a tiny seeded chat model: real code paths, no download, milliseconds."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from persona.models.caches import is_cache
from persona.models.precision import Placement

TEMPLATE = (
    "{{ '<s>' }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '</s>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def save_tokenizer(folder: Path, template: str | None = TEMPLATE) -> None:
    """A byte-level tokenizer with a chat template, saved the way a hub folder holds one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(special + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.chat_template = template
    fast.save_pretrained(folder)


def save_tiny_llama(
    folder: Path, *, seed: int = 0, n_layers: int = 4, d_model: int = 32, max_length: int = 512
) -> Path:
    """A random llama of the given size with its tokenizer in a Hugging Face folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=261,
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_length,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tiny_adapter(
    folder: Path,
    base: Path,
    *,
    seed: int = 1,
    rank: int = 2,
    modules: Sequence[str] = ("q_proj", "down_proj"),
) -> Path:
    """A LoRA adapter with random non-zero weights on the tiny llama, in PEFT layout."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(modules)),
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "phi3",
)
MORE_FAMILIES = (
    "mistral",
    "mixtral",
    "qwen3_moe",
    "olmoe",
    "olmo2",
    "gpt_oss",
    "bloom",
    "granite",
    "glm4",
    "cohere",
    "falcon",
    "gptj",
    "phi",
)


def tiny_causal_lm(family: str, *, seed: int = 0, n_layers: int = 3, tied: bool | None = None):
    """A random Hugging Face causal LM of a family, d_model 16, with non-zero biases."""
    import transformers

    tokens = dict(vocab_size=261, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    sizes = dict(
        hidden_size=16,
        num_hidden_layers=n_layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=256,
    )
    grouped = dict(num_key_value_heads=1)
    special = {
        "llama": grouped,
        "qwen2": grouped,
        "qwen3": dict(grouped, head_dim=8),
        "gemma2": dict(grouped, head_dim=8, sliding_window=8),
        "gemma3_text": dict(grouped, head_dim=8, sliding_window=8),
        "gpt_neox": {},
        "phi3": grouped,
        "mistral": grouped,
        "mixtral": dict(grouped, num_local_experts=4, num_experts_per_tok=2),
        "qwen3_moe": dict(
            grouped, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
        ),
        "olmoe": dict(grouped, num_experts=4, num_experts_per_tok=2),
        "olmo2": grouped,
        "gpt_oss": dict(
            grouped, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
        ),
        "bloom": {},
        "granite": dict(grouped, residual_multiplier=0.22),
        "glm4": dict(grouped, head_dim=8),
        "cohere": grouped,
        "falcon": dict(multi_query=True),
        "gptj": dict(rotary_dim=4),
        "phi": {},
    }
    special["gpt2"] = {}
    if family in ("gpt2", "gptj"):
        sizes = dict(n_embd=16, n_layer=n_layers, n_head=2, n_positions=256)
    if family == "bloom":
        sizes = dict(hidden_size=16, n_layer=n_layers, n_head=2)
    config = transformers.AutoConfig.for_model(
        family, **tokens, **sizes, **special[family], initializer_range=0.2
    )
    if tied is not None:
        config.tie_word_embeddings = tied
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.config.architectures = [type(model).__name__]
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
        elif family in MORE_FAMILIES and ("norm" in name or ".ln_" in name):
            parameter.data += 0.3 * torch.randn_like(parameter)  # gains other than 1
    return model.eval().requires_grad_(False)


def with_cache_named(model, name: str):
    """The model, whose `generate` hands its cache on under another keyword.

    Transformers 5.24 did so (`cache` in place of `past_key_values`), and the next may.
    """

    def renamed(kwargs):
        return {name if is_cache(value) else key: value for key, value in kwargs.items()}

    def under_its_own(kwargs):
        return {own if key == name else key: value for key, value in kwargs.items()}

    class Renamed(type(model)):
        def prepare_inputs_for_generation(self, *args, **kwargs):
            return renamed(super().prepare_inputs_for_generation(*args, **kwargs))

        def forward(self, *args, **kwargs):
            return super().forward(*args, **under_its_own(kwargs))

    parameters = inspect.signature(type(model).forward).parameters
    own = "cache" if "cache" in parameters else "past_key_values"
    Renamed.forward.__signature__ = inspect.signature(type(model).forward)
    Renamed.__name__ = type(model).__name__
    model.__class__ = Renamed
    return model


def tiny_bridge(family: str, tokenizer, **options):
    """The same model under a TransformerBridge."""
    from persona.models.load import bridge_over

    return bridge_over(tiny_causal_lm(family, **options), tokenizer, family, torch.float32)


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory):
    """The chat format of every tiny model."""
    from transformers import AutoTokenizer

    from persona.models.chat.chat_format import chat_format

    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return chat_format(AutoTokenizer.from_pretrained(folder))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_adapter(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    return save_tiny_adapter(tmp_path_factory.mktemp("models") / "tiny-adapter", tiny_llama)


@pytest.fixture(scope="session")
def tiny_pair(tiny_llama: Path, tiny_adapter: Path):
    from persona.models import load_pair

    return load_pair(tiny_llama, tiny_adapter, placement=Placement.of("float32", "cpu"))
