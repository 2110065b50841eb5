"""A pair of models that are in memory already: causal LMs, a PeftModel, or bridges over them."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from persona.errors import ModelError
from persona.models.adapters.adapter_files import UNSUPPORTED, takes_from_base
from persona.models.chat.chat_format import ChatFormat, chat_format
from persona.models.hooks import hf_model, is_bridge, model_device, model_width, n_layers
from persona.models.load import bridge_over
from persona.models.pair import ModelPair, OpenSide, Side
from persona.models.proof import (
    PlainOutputs,
    adapted_modules,
    fault_of,
    proof_tokens,
    reference,
)
from persona.models.sides import adapter_sides, one_at_a_time, two_sides

logger = logging.getLogger("persona")

NAMES: dict[Side, str] = {"aligned": "aligned (in memory)", "finetuned": "fine-tuned (in memory)"}

_OF_A_MACHINE = ("_name_or_path", "transformers_version", "architectures", "dtype", "use_cache")
"""What a config says of its past, not of what the model computes."""


def pair_of(
    aligned: Any,
    finetuned: Any,
    tokenizer: Any,
    *,
    chat_template: str | Path | None = None,
    names: Mapping[Side, str] | None = None,
    wrap: bool = True,
    proof: bool = True,
) -> ModelPair:
    """A pair of models that are in memory already, for everything that takes one of `load_pair`.

    aligned, finetuned: Hugging Face causal LMs, PeftModels or TransformerBridges, where they are
        and in the number format they have. `aligned=None` with a PeftModel: its aligned side is
        the same model with the adapter off, and so it is where `aligned` is the very model that
        the adapter was put on, since PEFT changes that in place. One model twice is one side.
    tokenizer: a fast one; it is copied, and given a padding token where it has none.
    chat_template: a file, or the template itself, instead of the tokenizer's own.
    names: what results call each side. Results are told apart by the weights, not by this.
    wrap: put a bridge over each plain model, which most of the toolkit asks for. The models are
        wrapped where they stand, not copied: reach them through the pair from then on. With
        False, `active` gives them as they are; reading, steering and scoring, steered or not, work
        on those too.
    proof: compare each bridge with what the plain model computed, as `load_pair` does.

    The models are put into evaluation mode without gradients. Revisions are hashes over all
    weights and the config: a model trained further is another one. The pair cannot travel to
    another process.
    Raises: ModelError for what is no causal LM, for two that do not fit together, for an adapter
        that cannot be switched off, for a tokenizer without character offsets, for weights that
        are not in memory, and for a bridge that computes something else than its model.

    Examples:
        >>> from persona.models import pair_of
        >>> from persona.models.load import load_causal_lm
        >>> import torch
        >>> model, tokenizer = load_causal_lm("default", torch.float32)
        >>> pair = pair_of(model, model, tokenizer, names={"aligned": "mine", "finetuned": "mine"})
        >>> pair.n_layers, pair.d_model, pair.one_copy_of_weights
        (30, 576, True)
    """
    base, tuned = _as_sides(aligned, finetuned)
    for model in (base, tuned):
        _require_causal_lm(model)
    _require_same_shapes(base, tuned)
    known: dict[Side, str] = {**NAMES, **(names or {})}
    tokenizer, chat = _chat(tokenizer, chat_template, base)
    revisions: dict[Side, str] = {
        "aligned": fingerprint(base, adapted=not _switched(base, tuned)),
        "finetuned": fingerprint(tuned),
    }
    opened, shown = _opened(base, tuned, tokenizer, known, wrap, proof)
    notes = []
    if chat.source == "plain":
        notes.append(
            f"{known['aligned']} has no chat template: a plain question/answer format is used"
        )
    for note in notes:
        logger.warning(note)
    return ModelPair(
        open_side=opened,
        n_layers=n_layers(shown),
        d_model=model_width(shown),
        one_copy_of_weights=base is tuned or _switched(base, tuned),
        chat=chat,
        names=known,
        revisions=revisions,
        dtype=_dtype(tuned),
        device=model_device(shown),
        weights=_quantised(base) or _quantised(tuned),
        notes=notes,
    )


def _as_sides(aligned: Any, finetuned: Any) -> tuple[Any, Any]:
    """The models of both sides; of a PeftModel alone, the model under it is the aligned side."""
    if aligned is None:
        if not _is_peft(finetuned):
            raise ModelError(
                "without an aligned model the fine-tuned one has to be a PeftModel, whose adapter "
                f"can be switched off; got a {type(finetuned).__name__}"
            )
        return _without_adapter(finetuned), finetuned
    if _is_peft(finetuned) and aligned is finetuned:
        return _without_adapter(finetuned), finetuned
    if aligned is finetuned:  # one model, an adapter in it or not
        return aligned, finetuned
    if _is_peft(aligned) and _is_peft(finetuned):
        if _without_adapter(aligned) is _without_adapter(finetuned):
            raise ModelError(
                "both sides are adapters that PEFT put into one and the same model, which then "
                "computes with both; load the base twice, an adapter on each"
            )
        return aligned, finetuned
    if not _is_peft(aligned) and not _is_peft(finetuned) and _has_adapter(hf_model(aligned)):
        raise ModelError(
            f"the aligned {type(hf_model(aligned)).__name__} carries an adapter that PEFT put into "
            "it; pass the PeftModel as the fine-tuned side with aligned=None"
        )
    return aligned, finetuned


def _is_peft(model: Any) -> bool:
    from peft import PeftModel

    return isinstance(model, PeftModel)


def _without_adapter(model: Any) -> Any:
    """The model that a PeftModel was put on, which it has changed in place."""
    return model.get_base_model()


def _switched(base: Any, tuned: Any) -> bool:
    """Whether the aligned side is the fine-tuned model with its adapter off."""
    return _is_peft(tuned) and _without_adapter(tuned) is base


def _has_adapter(model: Any) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return any(isinstance(module, BaseTunerLayer) for module in model.modules())


def _require_causal_lm(model: Any) -> None:
    plain = hf_model(model)
    if not isinstance(plain, nn.Module) or not hasattr(plain, "config"):
        raise ModelError(
            f"a pair is made of Hugging Face causal LMs, PeftModels or bridges; got a "
            f"{type(model).__name__}"
        )
    adapter: Any = plain.active_peft_config if _is_peft(plain) else None
    if adapter is not None and adapter.is_prompt_learning:
        raise ModelError(
            f"an adapter of the kind {adapter.peft_type.value} puts tokens before "
            "the text, which cannot be read at the text's own positions"
        )
    for key, what in UNSUPPORTED.items():
        if getattr(adapter, key, None):
            raise ModelError(f"the adapter {what}: {key} is not supported")
    if getattr(plain, "get_output_embeddings", lambda: None)() is None:
        raise ModelError(f"{type(plain).__name__} has no LM head: it is no causal language model")
    if any(p.device.type == "meta" for p in plain.parameters()):
        raise ModelError(f"weights of the {type(plain).__name__} are not in memory (meta device)")


def _require_same_shapes(base: Any, tuned: Any) -> None:
    if model_device(base) != model_device(tuned):
        raise ModelError(
            f"the aligned model is on {model_device(base)}, the fine-tuned one on "
            f"{model_device(tuned)}; move them to one device"
        )
    mine, theirs = (hf_model(model).config.get_text_config() for model in (base, tuned))
    for key in ("hidden_size", "num_hidden_layers", "vocab_size"):
        here, there = getattr(mine, key, None), getattr(theirs, key, None)
        if here != there:
            raise ModelError(
                f"the fine-tuned model is no fine-tune of the aligned one: {key} is {there} "
                f"against {here}"
            )


def _chat(tokenizer: Any, chat_template: str | Path | None, model: Any) -> tuple[Any, ChatFormat]:
    """A copy of the tokenizer that can pad, and the chat format."""
    if not hasattr(tokenizer, "encode"):
        raise ModelError(
            f"the third argument is the models' tokenizer; got a {type(tokenizer).__name__}"
        )
    tokenizer = copy.deepcopy(tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if isinstance(chat_template, str) and "{" in chat_template:
        tokenizer.chat_template, chat_template = chat_template, None
    text = hf_model(model).config.get_text_config()
    length = getattr(text, "max_position_embeddings", None)
    return tokenizer, chat_format(tokenizer, chat_template, length)


def _opened(
    base: Any, tuned: Any, tokenizer: Any, names: Mapping[Side, str], wrap: bool, proof: bool
) -> tuple[OpenSide, Any]:
    """How a side is opened, and a model that has the shapes of both."""
    for model in (base, tuned):
        hf_model(model).eval().requires_grad_(False)
    proof = proof and wrap and not is_bridge(base) and not is_bridge(tuned)
    switched = _switched(base, tuned)
    if switched:
        _require_switchable(tuned)
    expected = _expected(base, tuned, tokenizer, names, switched) if proof else {}
    if switched:
        shown = _wrapped(base, tokenizer, names["finetuned"]) if wrap else tuned
        open_side = one_at_a_time(adapter_sides(tuned, shown))
    else:
        first = _side(base, tokenizer, names["aligned"], wrap)
        second = first if tuned is base else _side(tuned, tokenizer, names["finetuned"], wrap)
        shown, open_side = first, two_sides(first, second)
    for side, reference_of_side in expected.items():
        with open_side(side) as bridge:
            if fault := fault_of(bridge, reference_of_side, _dtype(tuned)):
                raise ModelError(
                    f"the {side} side ({names[side]}) is not what the plain model computes: "
                    f"{fault}. With wrap=False it can be read and steered as it is"
                )
    return open_side, shown


def _side(model: Any, tokenizer: Any, name: str, wrap: bool) -> Any:
    if not wrap:
        return model
    return _wrapped(_without_adapter(model) if _is_peft(model) else model, tokenizer, name)


def _expected(
    base: Any, tuned: Any, tokenizer: Any, names: Mapping[Side, str], switched: bool
) -> dict[Side, PlainOutputs]:
    """What the plain models compute, before a bridge is put over them."""
    ids = proof_tokens(tokenizer, tuned.config)
    with tuned.disable_adapter() if switched else contextlib.nullcontext():
        aligned = reference(base, ids, names["aligned"])
    adapted = adapted_modules(tuned) if _is_peft(tuned) else {}
    return {"aligned": aligned, "finetuned": reference(tuned, ids, names["finetuned"], adapted)}


def _require_switchable(tuned: Any) -> None:
    """Raises: ModelError for an adapter that leaves changes behind when it is switched off.

    One that is not active now counts too: it has changed the model when it was put on.
    """
    left = None
    for config in tuned.peft_config.values():
        start = getattr(config, "init_lora_weights", None)
        if getattr(config, "bias", "none") not in (None, "none"):
            left = f"the biases of the model itself (bias={config.bias!r})"
        elif takes_from_base(start):
            left = f"the weights that it starts from (init_lora_weights={start!r})"
    if left is not None:
        raise ModelError(
            f"the adapter also changes {left}, which switching it off does not give back; pass "
            "the untouched model as the aligned side"
        )


def _wrapped(model: Any, tokenizer: Any, name: str) -> Any:
    """A bridge over a plain model; a bridge as it is."""
    if is_bridge(model):
        return model
    model.config.architectures = [type(model).__name__]
    weights = _weights(model)
    try:
        bridge = bridge_over(model, tokenizer, name, _dtype(model))
        bridge.requires_grad_(False)  # it makes parameters anew of what it splits
        _PLAIN[model] = _Plain(weights, _hash_of_split(model, weights))
        return bridge
    except ModelError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"no bridge can be put over a {type(model).__name__} ({type(error).__name__}: "
            f"{reason}); with wrap=False it can be read and steered as it is"
        ) from error


def _dtype(model: Any) -> torch.dtype:
    """The format of the activations: that of the first weight in a floating format."""
    for parameter in hf_model(model).parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    raise ModelError(f"{type(hf_model(model)).__name__} has no weights in a floating format")


def _quantised(model: Any) -> str | None:
    plain = hf_model(model)
    if getattr(plain, "is_loaded_in_8bit", False):
        return "int8"
    if getattr(plain, "is_loaded_in_4bit", False):
        return "nf4"
    method = getattr(getattr(plain, "hf_quantizer", None), "quantization_config", None)
    return None if method is None else str(getattr(method, "quant_method", "quantised"))


def fingerprint(model: Any, *, adapted: bool = True) -> str:
    """A short hash of all that a model computes with: every weight, whole, and the config.

    Where the weights lie does not matter. A model, the same under PEFT with `adapted=False` and
    the same under a bridge that `pair_of` put over it have one hash; a bridge that was made
    elsewhere, which names and splits weights otherwise, has its own.

    adapted: whether adapters count.
    """
    plain = hf_model(model)
    with ThreadPoolExecutor() as pool:
        parts = dict(pool.map(_hash_of_entry, _entries(plain, adapted)))
    digest = hashlib.sha256(repr(sorted(parts.items())).encode())
    settings = plain.config.to_dict()
    for key in _OF_A_MACHINE:
        settings.pop(key, None)
    digest.update(repr(sorted(settings.items())).encode())
    if adapted and _is_peft(plain):
        digest.update(repr(sorted(plain.active_adapters)).encode())
        for name in sorted(plain.active_adapters):
            adapter = plain.peft_config[name].to_dict()
            adapter.pop("base_model_name_or_path", None)
            digest.update(repr(sorted((k, str(v)) for k, v in adapter.items())).encode())
    return digest.hexdigest()[:12]


def _entries(model: Any, adapted: bool) -> Iterator[tuple[str, Tensor]]:
    """Weights and buffers by the names that they have without PEFT and without a bridge."""
    base = _without_adapter(model) if _is_peft(model) else model
    weights = _weights(base)
    for name, tensor in weights.items():
        plain = _plain_name(name)
        if plain is None and not adapted:
            continue
        yield plain or name, tensor
    if base in _PLAIN and (split := _hash_of_split(base, weights)) != _PLAIN[base].split:
        yield f"what the bridge split, now {split}", torch.zeros(0)


@dataclass(frozen=True)
class _Plain:
    """A model before a bridge was put into it.

    weights: name -> the very tensors. split: hash of those that the bridge made of them.
    """

    weights: dict[str, Tensor]
    split: str


_PLAIN: WeakKeyDictionary[Any, _Plain] = WeakKeyDictionary()
"""A bridge renames the weights of the model that it wraps, and adds those that it splits."""


def _weights(model: Any) -> dict[str, Tensor]:
    """Name -> tensor, by the names before a bridge where all of those tensors are still there."""
    now: dict[str, Tensor] = model.state_dict(keep_vars=True)
    before = _PLAIN[model].weights if model in _PLAIN else now
    there = {id(tensor) for tensor in now.values()}
    return before if all(id(tensor) in there for tensor in before.values()) else now


def _hash_of_split(model: Any, weights: Mapping[str, Tensor]) -> str:
    """Of the tensors that lie in other memory than `weights`."""
    known = {tensor.data_ptr() for tensor in weights.values()}
    now = model.state_dict(keep_vars=True).items()
    own = [(name, tensor) for name, tensor in now if tensor.data_ptr() not in known]
    contents = sorted(digest for _, digest in map(_hash_of_entry, own))
    return hashlib.sha256(repr(contents).encode()).hexdigest()[:12]


def _plain_name(name: str) -> str | None:
    """The name of a weight in the model itself, None for a weight that an adapter brought."""
    name = name.removeprefix("base_model.model.")
    for wrapper in (".base_layer", ".original_module"):
        name = name.replace(wrapper, "")
    brought = ("lora_", ".modules_to_save.", "token_adapter", ".ia3_", ".hada_", ".lokr_", ".oft_")
    return None if any(part in name for part in brought) else name


def _hash_of_entry(entry: tuple[str, Tensor]) -> tuple[str, str]:
    name, tensor = entry
    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{tuple(plain.shape)} {plain.dtype}".encode())
    with contextlib.suppress(TypeError):  # formats without a view as bytes
        plain = plain.flatten().view(torch.uint8)  # a scalar has no bytes of its own
    digest.update(plain.flatten().numpy().data)
    return name, digest.hexdigest()
