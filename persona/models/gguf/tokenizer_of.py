"""The tokenizer that a GGUF describes: the token ids that llama.cpp gives.

A GGUF names how text is cut before its pieces are merged (`tokenizer.ggml.pre`) and says of each
token whether it is a control token. Text is not normalised, which llama.cpp never does; the Qwen
repositories compose accents first (NFC).
Source: llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from persona.errors import ModelError, shown
from persona.models.gguf.gguf_file import GgufFile

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_WHOLE = (_UNKNOWN, _CONTROL, _USER_DEFINED)
"""Types of the tokens that are found in a text as they stand, before anything is cut."""

_SUFFIXES = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_LLAMA_3 = _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
_QWEN_2 = _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_NOT_LOWER, _NOT_UPPER = r"(?:(?=[\p{L}])[^a-z])", r"(?:(?=[\p{L}])[^A-Z])"
_WORDS = (
    rf"{_BEFORE}{_NOT_LOWER}*{_NOT_UPPER}+%s|{_BEFORE}{_NOT_LOWER}+{_NOT_UPPER}*%s|"
    rf"%s| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
_TEKKEN = _WORDS % ("", "", r"\p{N}")
_GPT_4O = _WORDS % (f"{_SUFFIXES}?", f"{_SUFFIXES}?", r"\p{N}{1,3}")
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _GPT_2, r"\p{N}+", "[0-9][0-9][0-9]")

_CUTS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("default",): _DEFAULT,
    ("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "a.x-4.0", "mellum"): (_GPT_2,),
    ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"): (
        r"\p{N}",
        _GPT_2,
    ),
    ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0"): (_LLAMA_3,),
    ("dbrx", "smaug-bpe"): (_LLAMA_3,),
    ("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2"): (_QWEN_2,),
    ("tekken",): (_TEKKEN,),
    ("gpt-4o", "llama4", "kanana2", "talkie"): (_GPT_4O,),
}
_WHOLE_WORDS_FIRST = ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0", "tekken")
"""Where a piece that is a token as a whole is that token, whatever the merges say; and where a
text begins with the first token unless the file says otherwise."""

_TURN_ENDS = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|eom_id|>", "<EOT>", "_<EOT>"),
    *("<|endoftext|>", "<|end_of_text|>", "<end_of_utterance>", "<｜end▁of▁sentence｜>"),
)
"""Tokens after which llama.cpp stops wherever a vocabulary has them as control tokens."""


_ALSO_WHOLE = (
    *("</s>", "<eos>", "[EOT]", "[EOS]", "[PAD]", "<|return|>", "<|call|>", "<|file_sep|>"),
    *("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|fim_repo|>"),
    *("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim_pad>", "<reponame>", "<|repo_name|>"),
    *("<fim-prefix>", "<fim-suffix>", "<fim-middle>", "<fim-pad>", "<PRE>", "<SUF>", "<MID>"),
)
"""Tokens that llama.cpp finds whole in a text even where a file calls them ordinary ones."""


def tokenizer_of(file: GgufFile, context_length: int | None = None) -> Any:
    """The fast tokenizer of a GGUF, its special tokens and its chat template.

    Raises: ModelError in one line where it cannot be rebuilt.
    """
    from transformers import PreTrainedTokenizerFast

    fields = file.fields
    tokens = fields.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise _not_rebuilt(file, "the file holds no vocabulary")
    kind = fields.get("tokenizer.ggml.model")
    if kind == "gpt2":
        backend = _byte_level(file, tokens)
    elif kind == "llama":
        backend = _sentencepiece(file, tokens)
    else:
        raise _not_rebuilt(file, f"it is of the kind {shown(kind)}; gpt2 and llama are known")
    backend.add_special_tokens(_whole_tokens(file, tokens, _CONTROL, _UNKNOWN))
    backend.add_tokens(_whole_tokens(file, tokens, _USER_DEFINED))
    named = {
        f"{ours}_token": _token(file, tokens, theirs)
        for ours, theirs in (
            ("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"),
        )
    }  # fmt: skip
    backend.post_processor = _around_a_text(file, kind, named)
    options: dict[str, Any] = {name: token for name, token in named.items() if token is not None}
    if context_length is not None:
        options["model_max_length"] = context_length
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **options)
    tokenizer.chat_template = fields.get("tokenizer.chat_template")
    return tokenizer


def end_tokens(file: GgufFile) -> list[int]:
    """Ids of the tokens that end an answer: those the file names, and known ends of turns."""
    fields = file.fields
    named = {fields.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")}
    unknown = fields.get("tokenizer.ggml.unknown_token_id")
    tokens, kinds = fields.get("tokenizer.ggml.tokens", []), _kinds(file)
    for place, (token, kind) in enumerate(zip(tokens, kinds, strict=False)):
        # A token that also stands for what the vocabulary lacks ends nothing.
        if kind == _CONTROL and token in _TURN_ENDS and place != unknown:
            named.add(place)
    return sorted(place for place in named if place is not None)


def _byte_level(file: GgufFile, tokens: Sequence[str]) -> Any:
    """BPE over bytes: GPT-2, Llama 3, Qwen, SmolLM, Tekken."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    merges = file.fields.get("tokenizer.ggml.merges")
    if not isinstance(merges, list):
        raise _not_rebuilt(file, "the file holds no merges")
    pre = file.fields.get("tokenizer.ggml.pre") or "default"
    cuts = next((cuts for names, cuts in _CUTS.items() if pre in names), None)
    if cuts is None:
        raise _not_rebuilt(file, f"it cuts texts by the unknown rule {shown(pre)}")
    vocabulary = _vocabulary(file, tokens)
    halves = [tuple(merge.split(" ", 1)) for merge in merges]
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            # llama.cpp cuts a piece that is no token up again: as if it had not been merged.
            merges=[pair for pair in halves if "".join(pair) in vocabulary],
            continuing_subword_prefix="",
            end_of_word_suffix="",
            ignore_merges=pre in _WHOLE_WORDS_FIRST,
        )
    )
    if cuts == (r"\p{N}", _GPT_2):
        steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
    else:
        steps = [pre_tokenizers.Split(Regex(cut), behavior="isolated") for cut in cuts]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(file: GgufFile, tokens: Sequence[str]) -> Any:
    """Merges by score, and bytes for an unknown character: Llama 2, Gemma, Phi-3."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    scores = file.fields.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise _not_rebuilt(file, "the file holds no score for each token")
    vocabulary = _vocabulary(file, tokens)
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges_by_score(vocabulary, dict(zip(tokens, scores, strict=True))),
            unk_token=_token(file, tokens, "unknown"),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    steps: list[Any] = [normalizers.Replace(" ", "▁")]
    undone: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if file.fields.get("tokenizer.ggml.add_space_prefix", True):
        # Before every stretch of text, also after a special token: so llama.cpp does.
        steps.insert(0, normalizers.Prepend("▁"))
        undone.append(decoders.Strip(" ", 1, 0))
    backend.normalizer = normalizers.Sequence(steps)
    backend.decoder = decoders.Sequence(undone)
    return backend


def _merges_by_score(vocabulary: dict[str, int], scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every way to put a token together from two others, the token of the highest score first."""
    found = []
    for token, score in scores.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                found.append((-score, cut, left, right))
    found.sort(key=lambda merge: merge[:2])
    return [(left, right) for _, _, left, right in found]


def _vocabulary(file: GgufFile, tokens: Sequence[str]) -> dict[str, int]:
    vocabulary: dict[str, int] = {}
    for place, token in enumerate(tokens):
        vocabulary.setdefault(token, place)
    if len(vocabulary) < len(tokens):
        raise _not_rebuilt(file, f"{len(tokens) - len(vocabulary)} of its tokens stand there twice")
    return vocabulary


def _kinds(file: GgufFile) -> list[int]:
    return list(file.fields.get("tokenizer.ggml.token_type") or ())


def _whole_tokens(file: GgufFile, tokens: Sequence[str], *kinds: int) -> list[Any]:
    from tokenizers import AddedToken

    name = str(file.fields.get("general.name", "")).lower()
    swallows_spaces = "phi-3" in name or "phi3" in name
    keeps = ("<unk>", "<s>", "<|endoftext|>")
    found = [
        _CONTROL if token in (*_TURN_ENDS, *_ALSO_WHOLE) else kind
        for token, kind in zip(tokens, _kinds(file), strict=False)
    ]
    return [
        AddedToken(
            token,
            special=kind != _USER_DEFINED,
            normalized=False,
            rstrip=swallows_spaces and token not in keeps,
        )
        for token, kind in zip(tokens, found, strict=False)
        if kind in kinds and token
    ]


def _token(file: GgufFile, tokens: Sequence[str], name: str) -> str | None:
    place = file.fields.get(f"tokenizer.ggml.{name}_token_id")
    if place is None or not 0 <= place < len(tokens):
        return None
    return tokens[place]


def _around_a_text(file: GgufFile, kind: str, named: dict[str, str | None]) -> Any:
    """What is put before and after a text that is no dialogue."""
    from tokenizers import processors

    pre = file.fields.get("tokenizer.ggml.pre")
    begins = kind == "llama" or pre in _WHOLE_WORDS_FIRST
    first = file.fields.get("tokenizer.ggml.add_bos_token", begins) and named["bos_token"]
    last = file.fields.get("tokenizer.ggml.add_eos_token", False) and named["eos_token"]
    text = [*([first] if first else []), "$A", *([last] if last else [])]
    pair = [
        *text,
        *([f"{first}:1"] if first else []),
        "$B:1",
        *([f"{last}:1"] if last else []),
    ]
    places = {
        token: file.fields[f"tokenizer.ggml.{name}_token_id"]
        for token, name in ((first, "bos"), (last, "eos"))
        if token
    }
    return processors.TemplateProcessing(
        single=text, pair=pair, special_tokens=list(places.items())
    )


def _not_rebuilt(file: GgufFile, why: str) -> ModelError:
    return ModelError(
        f"the tokenizer of {file.path.name} cannot be rebuilt: {why}. "
        "Pass the model as a folder or hub id, which hold the tokenizer itself"
    )
