"""Chat templates in the manner of known families, written anew in their least form.

Each with what it writes behind a final answer, and tokenizers that join characters to tokens as
real ones do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SPECIAL = (
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<|user|>", "<|end|>"),
    *("<|assistant|>", "<|system|>", "<|start|>", "<|channel|>", "<|message|>", "<|return|>"),
)


@dataclass(frozen=True)
class Family:
    """A template, what it writes behind the final answer, and the token that ends its turn."""

    template: str
    after: str
    end_of_turn: str | None
    takes_system: bool = True


_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_LLAMA3 = (
    "{{ bos_token }}{% if date_string is not defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ 'Today: ' + date_string + '\n' }}"
    "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
    "{{ m.content | trim }}{{ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ m.content | trim }}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ ' ' + m.content + eos_token }}{% else %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% endif %}{% endfor %}"
)
_PHI3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_ALPACA = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '### Response:\n' + m.content + '\n\n' }}{% else %}"
    "{{ '### Instruction:\n' + m.content + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)
_VICUNA = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ 'ASSISTANT: ' + m.content + '</s>' }}"
    "{% else %}{{ 'USER: ' + m.content + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
_QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% set thoughts = '' %}{% set said = m.content %}{% if '</think>' in said %}"
    "{% set thoughts = said.split('</think>')[0].rstrip('\n').split('<think>')[-1] %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.last %}{{ '<think>\n' + thoughts.strip('\n') + '\n</think>\n\n' }}{% endif %}"
    "{{ said.lstrip('\n') }}{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|assistant|>' + m.content.split('</think>')[-1] + '</s>' }}{% else %}"
    "{{ '<|user|>' + m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}"
)
_CHANNELS = (
    "{% for m in messages %}{{ '<|start|>' + m.role }}{% if m.role == 'assistant' %}"
    "{{ '<|channel|>final' }}{% endif %}{{ '<|message|>' + m.content }}"
    "{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
_NO_OPENING = (
    "{% for m in messages %}"
    "{{ '### ' + ('Assistant' if m.role == 'assistant' else 'User') + ': ' + m.content + '\n' }}"
    "{% endfor %}"
)
_RECAP = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if not add_generation_prompt %}{{ 'In short: ' + messages[-1].content + '\n' }}"
    "{% else %}{{ 'assistant: ' }}{% endif %}"
)
_ECHO = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '</s>' }}"
    "{% if m.role == 'user' %}{{ '(asked: ' + m.content + ')' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

FAMILIES = {
    "chatml": Family(_CHATML, "<|im_end|>\n", "<|im_end|>"),
    "llama3": Family(_LLAMA3, "<|eot_id|>", "<|eot_id|>"),
    "gemma": Family(_GEMMA, "<end_of_turn>\n", "<end_of_turn>", takes_system=False),
    "mistral": Family(_MISTRAL, "</s>", "</s>"),
    "phi3": Family(_PHI3, "<|end|>\n</s>", "<|end|>"),
    "zephyr": Family(_ZEPHYR, "</s>\n", "</s>"),
    "alpaca": Family(_ALPACA, "\n\n", None),
    "vicuna": Family(_VICUNA, "</s>", "</s>"),
    "qwen3": Family(_QWEN3, "<|im_end|>\n", "<|im_end|>"),
    "r1": Family(_R1, "</s>", "</s>"),
    "channels": Family(_CHANNELS, "<|return|>", "<|return|>"),
    "no opening": Family(_NO_OPENING, "\n", None),
    "the question twice": Family(_ECHO, "</s>", "</s>"),
}

THE_ANSWER_TWICE = _RECAP

_TEXT = (
    "The question is which oil to take, and the answer is that I would take the one that the "
    "maker of the car names. Yes, it is fine: user and assistant, system and model think. "
    "### Instruction: ### Response: ### User: ### Assistant: USER: ASSISTANT: Today: <think>\n\n"
    "</think>\n\n Question: Answer: In short: No. I do not think so.\n\nWhich? "
) * 20


def byte_level_tokenizer() -> Any:
    """Joins a blank with the word behind it, as GPT-2's and its heirs'."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(tokenizer, trainers.BpeTrainer, initial_alphabet=alphabet)


def metaspace_tokenizer() -> Any:
    """Marks word starts with a character of their own, as sentencepiece."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
        ]
    )
    letters = sorted(
        set(_TEXT) | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/<>é'")
    )
    alphabet = [c for c in letters if c != " "]
    return _trained(tokenizer, trainers.BpeTrainer, initial_alphabet=alphabet)


def _trained(tokenizer: Any, trainer: Any, **options: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", *SPECIAL]
    tokenizer.train_from_iterator(
        [_TEXT],
        trainer(vocab_size=900, special_tokens=special, show_progress=False, **options),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
    )


TOKENIZERS = {"byte level": byte_level_tokenizer, "metaspace": metaspace_tokenizer}
