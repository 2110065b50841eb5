"""A GGUF's tokenizer gives the ids that llama.cpp gives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gguf_cases import hard_texts, tiny_model, write_gguf

from persona.errors import ModelError
from persona.models.gguf.gguf_file import GgufFile, read_gguf
from persona.models.gguf.tokenizer_of import end_tokens, tokenizer_of
from persona.models.load import load_causal_lm

VOCABULARIES = "LLAMA_CPP_VOCABULARIES"
"""Variable that names a folder of GGUF files, such as `models` in the sources of llama.cpp."""


def file_with(**fields):
    return GgufFile(Path("m.gguf"), {f"tokenizer.ggml.{k}": v for k, v in fields.items()}, {})


def byte_level(**fields):
    """A vocabulary of a few bytes and words, as GPT-2 spells them."""
    letters = [chr(c) for c in range(33, 127)] + [
        "Ġ",
        "Ċ",
        "ab",
        "ĠĠ",
        "12",
        "123",
        "</s>",
        "Ì",
        "ģ",
    ]
    merges = ["a b", "Ġ Ġ", "1 2", "12 3"]
    kinds = [1] * len(letters)
    return file_with(model="gpt2", tokens=letters, token_type=kinds, merges=merges, **fields)


def sentencepiece(**fields):
    tokens = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA4>", "▁", "a", "b", "▁a", "ab", "▁ab", "<t>"]
    kinds = [2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 4]
    scores = [0.0, 0, 0, 0, 0, -9, -9, -9, -2, -1, -3, 0]
    options = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0} | fields
    return file_with(
        model="llama", tokens=tokens, token_type=kinds, scores=[float(s) for s in scores], **options
    )


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("gpt-2", ["123", "4"]),
        ("smollm", ["1", "2", "3", "4"]),
        ("qwen2", ["1", "2", "3", "4"]),
        ("llama-bpe", ["123", "4"]),
        ("default", ["123", "4"]),
    ],
)
def test_digits_are_cut_as_the_file_says(pre, expected):
    assert tokenizer_of(byte_level(pre=pre)).tokenize("1234") == expected


def test_accents_are_not_composed_and_closing_tags_are_whole():
    tokenizer = tokenizer_of(byte_level(pre="qwen2"))
    assert tokenizer.tokenize("e\u0301") == ["e", "Ì", "ģ"]
    assert tokenizer.tokenize("a</s>b") == ["a", "</s>", "b"]


def test_a_sentencepiece_text_gets_its_space_and_unknown_characters_their_bytes():
    tokenizer = tokenizer_of(sentencepiece())
    assert tokenizer.tokenize("ab") == ["▁ab"]
    assert tokenizer.tokenize("aä") == ["▁a", "<0xC3>", "<0xA4>"]
    assert tokenizer.tokenize("</s>a<t>b") == ["</s>", "▁a", "<t>", "▁", "b"]
    assert tokenizer("a")["input_ids"] == [1, 8]
    without = tokenizer_of(sentencepiece(add_space_prefix=False, add_bos_token=False))
    assert without("a b")["input_ids"] == [6, 5, 7]


def test_ends_of_turns_are_those_named_and_those_known_but_not_the_unknown_token():
    tokens = ["<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "x"]
    fields = dict(tokens=tokens, token_type=[3, 3, 3, 1, 1], eos_token_id=1, unknown_token_id=0)
    assert end_tokens(file_with(**fields)) == [1, 2]
    assert end_tokens(file_with(**fields, eot_token_id=4)) == [1, 2, 4]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (file_with(), "holds no vocabulary"),
        (file_with(tokens=["a"], model="bert"), "of the kind 'bert'; gpt2 and llama are known"),
        (file_with(tokens=["a"], model="gpt2"), "holds no merges"),
        (file_with(tokens=["a"], model="gpt2", merges=[], pre="kimi"), "the unknown rule 'kimi'"),
        (file_with(tokens=["a", "a"], model="llama", scores=[0.0, 0.0]), "stand there twice"),
        (file_with(tokens=["a"], model="llama"), "holds no score for each token"),
    ],
)
def test_a_tokenizer_that_cannot_be_rebuilt_says_why(file, says):
    with pytest.raises(ModelError, match="tokenizer of m.gguf cannot be rebuilt") as error:
        tokenizer_of(file)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_loaded_qwen_keeps_the_files_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path / "cache"))
    path = write_gguf(tmp_path / "m.gguf", tiny_model("qwen2"), "qwen2")
    _, tokenizer = load_causal_lm(path, tiny_model("qwen2").dtype)
    expected = tokenizer_of(read_gguf(path))
    assert (
        tokenizer("e\u0301 cafe\u0301")["input_ids"] == expected("e\u0301 cafe\u0301")["input_ids"]
    )


@pytest.mark.slow
def test_two_hundred_texts_have_the_ids_of_llama_cpp_in_every_vocabulary_at_hand():
    llama_cpp = pytest.importorskip("llama_cpp")
    folder = Path(os.environ.get(VOCABULARIES, ""))
    names = ("llama-bpe", "llama-spm", "phi-3", "qwen2", "gpt-2")
    files = [folder / f"ggml-vocab-{name}.gguf" for name in names]
    if not all(file.is_file() for file in files):
        pytest.skip(f"{VOCABULARIES} names no folder with the vocabularies of llama.cpp")
    for file in files:
        theirs = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
        mine = tokenizer_of(read_gguf(file))
        for text in hard_texts():
            ids = theirs.tokenize(text.encode(), add_bos=False, special=True)
            assert mine(text, add_special_tokens=False)["input_ids"] == ids, (file.name, text)
