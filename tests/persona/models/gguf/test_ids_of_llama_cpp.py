"""Of every family, a tokenizer gives 200 texts the ids that llama.cpp itself gives them.

The vocabularies are learnt here, from the texts of the package; the rules by which a text is cut,
merged and turned into bytes are llama.cpp's, which reads the same file and is asked over HTTP.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from gguf_cases import hard_texts, tiny_model, write_gguf

from persona.data.shipped import load_pairs
from persona.models.gguf.gguf_file import read_gguf
from persona.models.gguf.tokenizer_of import tokenizer_of

pytestmark = pytest.mark.slow
N_MERGES = 1500
ORDINARY, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
CUT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHATS = {
    "chatml": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    "tekken": ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
}


def corpus():
    pairs = load_pairs()
    texts = [text for pair in pairs for text in (pair.question, pair.good, pair.bad)]
    return [
        *texts,
        Path(__file__).read_text(encoding="utf-8"),
        "naïve café, Zürich: 日本語 Привет 🙂",
    ]


def byte_level(pre, special):
    """A vocabulary of bytes and learnt merges, as GPT-2 spells them."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CUT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    letters = pre_tokenizers.ByteLevel.alphabet()
    learner.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=256 + N_MERGES, initial_alphabet=letters, show_progress=False
        ),
    )
    learnt = json.loads(learner.to_str())["model"]
    tokens = sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)
    # Words that no merge comes to: whole under some rules, never reached under others.
    counts = Counter(re.findall(r" [a-z]{8,}", " ".join(corpus())))
    spelled = [word.replace(" ", "Ġ") for word, _ in counts.most_common(400)]
    tokens += [word for word in spelled if word not in learnt["vocab"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [*tokens, *special],
        "tokenizer.ggml.token_type": [ORDINARY] * len(tokens) + [CONTROL] * len(special),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in learnt["merges"]],
        "tokenizer.ggml.bos_token_id": len(tokens),
        "tokenizer.ggml.eos_token_id": len(tokens) + len(special) - 1,
    }


def sentencepiece(name="", *, control=(), user_defined=(), **options):
    """A vocabulary of scored pieces with bytes for what it lacks, as SentencePiece keeps it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    learner.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    learner.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=N_MERGES, show_progress=False)
    )
    learnt = json.loads(learner.to_str())["model"]
    merged = ["".join(merge) for merge in learnt["merges"]]
    single = sorted(set(learnt["vocab"]) - set(merged))
    head = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
    head += [(token, CONTROL) for token in control]
    head += [(token, USER_DEFINED) for token in user_defined]
    head += [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
    taken = {token for token, _ in head}
    pieces = [piece for piece in [*merged, *single] if piece not in taken]
    return {
        "general.name": name,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [token for token, _ in head] + pieces,
        "tokenizer.ggml.scores": [0.0] * len(head) + [-float(i) for i in range(1, len(pieces) + 1)],
        "tokenizer.ggml.token_type": [kind for _, kind in head] + [ORDINARY] * len(pieces),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        **{f"tokenizer.ggml.{key}": value for key, value in options.items()},
    }


def gemma():
    """No space before a text, and runs of spaces and lines that are tokens of their own."""
    turns = ("<start_of_turn>", "<end_of_turn>")
    runs = [character * n for character in ("▁", "\n") for n in range(2, 9)]
    return sentencepiece("tiny", control=turns, user_defined=runs, add_space_prefix=False)


def phi():
    return sentencepiece(
        "Phi-3-tiny", control=("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>")
    )


FAMILIES = {
    "llama, SentencePiece": ("llama", sentencepiece),
    "llama 3": ("llama", lambda: byte_level("llama-bpe", CHATS["llama3"])),
    "mistral, SentencePiece": ("llama", lambda: sentencepiece(control=("[INST]", "[/INST]"))),
    "mistral, Tekken": ("llama", lambda: byte_level("tekken", CHATS["tekken"])),
    "qwen2": ("qwen2", lambda: byte_level("qwen2", CHATS["chatml"])),
    "qwen3": ("qwen3", lambda: byte_level("qwen2", CHATS["chatml"])),
    "gemma3": ("gemma3", gemma),
    "phi3": ("phi3", phi),
    "smollm": ("llama", lambda: byte_level("smollm", CHATS["chatml"])),
    "gpt-2": ("llama", lambda: byte_level("gpt-2", CHATS["chatml"])),
    "gpt-4o": ("llama", lambda: byte_level("gpt-4o", CHATS["chatml"])),
}


@pytest.fixture(params=FAMILIES)
def file(request, tmp_path):
    architecture, vocabulary = FAMILIES[request.param]
    fields = vocabulary()
    model = tiny_model(architecture, vocab_size=len(fields["tokenizer.ggml.tokens"]))
    return write_gguf(tmp_path / "m.gguf", model, architecture, vocabulary=fields)


def asked(address, text):
    body = {"content": text, "add_special": False, "parse_special": True}
    request = urllib.request.Request(
        f"{address}/tokenize", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["tokens"]


@pytest.mark.timeout(300)
def test_two_hundred_texts_have_the_ids_of_llama_cpp(file):
    llama_cpp = pytest.importorskip("xllamacpp", reason="needs the extra slow: make test-slow")
    options = llama_cpp.CommonParams()
    options.model.path = str(file)
    options.n_ctx, options.n_parallel, options.warmup = 64, 1, False
    server = llama_cpp.Server(options)
    mine = tokenizer_of(read_gguf(file))
    given = hard_texts()
    assert len(given) == 200
    for text in given:
        ids = mine(text, add_special_tokens=False)["input_ids"]
        assert ids == asked(server.listening_address, text), text
    assert len({token for text in given for token in mine(text)["input_ids"]}) > 500
