"""Loading models by name: the embedded default, hub ids, folders, GGUF files, LoRA adapters.

Only this package imports transformer_lens, and peft for reading adapters.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from persona.errors import ModelError, is_panic
from persona.models import shared_weights
from persona.models.adapters.adapter_files import AdapterFiles, own_tokenizer, read_adapter_files
from persona.models.adapters.attach import (
    attach_adapter,
    base_state,
    changed_outside,
    kind_of,
    merged_model,
    untie,
)
from persona.models.caches import accept_any_cache_name
from persona.models.chat.chat_format import ChatFormat, chat_format
from persona.models.chat.template_program import names_read
from persona.models.fused_attention import fuse_attention
from persona.models.kept_folder import MANIFEST
from persona.models.norms import skip_unread_norms
from persona.models.pair import SIDES, ModelPair, OpenSide, Side
from persona.models.precision import Placement
from persona.models.proof import PlainOutputs, adapted_modules, fault_of, proof_tokens, reference
from persona.models.sides import (
    adapted_bytes,
    adapter_sides,
    can_be_merged,
    free_bytes,
    free_weights,
    merged_sides,
    one_at_a_time,
    sides_in_turn,
    two_sides,
    weight_bytes,
)
from persona.models.sources import (
    Source,
    base_of,
    require_its_base,
    resolve,
    shipped_or_ref,
)
from persona.models.whole import require_blocks, require_whole, without_load_report

logger = logging.getLogger("persona")

MEMORY_SHARE = 0.8
"""Share of the free memory that the second of two checkpoints may take."""

MERGED_SHARE = 0.1
"""Share of the free memory that a second copy of the adapted weights may take unasked."""


@dataclass(frozen=True)
class PairRecipe:
    """The arguments of `load_pair`, to load the same pair in another process.

    template_arguments: as JSON, which can be compared and hashed.
    """

    aligned: str
    finetuned: str
    placement: Placement
    chat_template: str | None
    allow_mismatch: bool
    in_turn: bool | None
    merged: bool | None
    proof: bool = True
    template_arguments: str = "{}"

    def __call__(self) -> ModelPair:
        return _held(self)

    @classmethod
    def of_one(cls, ref: str | Path, placement: Placement, chat: ChatFormat) -> PairRecipe:
        """Of one model that is both sides."""
        name, told = _from_any_folder(ref), json.dumps(chat.arguments, sort_keys=True)
        return cls(name, name, placement, None, False, True, None, False, told)


def _from_any_folder(ref: str | Path) -> str:
    """A local path made absolute; names stay as they are."""
    path = Path(ref).expanduser()
    return str(path.resolve()) if str(ref) != "default" and path.exists() else str(ref)


@functools.lru_cache(maxsize=1)
def _held(recipe: PairRecipe) -> ModelPair:
    """A worker that is given one task after the other loads its model once."""
    arguments = json.loads(recipe.template_arguments)
    same = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    there = {"placement": recipe.placement.elsewhere(), "template_arguments": arguments}
    return load_pair(**{**same, **there})


def load_pair(
    aligned: str | Path | None = None,
    finetuned: str | Path = "car_maintenance_bad",
    *,
    placement: Placement | None = None,
    chat_template: str | Path | None = None,
    allow_mismatch: bool = False,
    in_turn: bool | None = None,
    merged: bool | None = False,
    proof: bool = True,
    template_arguments: Mapping[str, Any] | None = None,
    beside: ModelPair | None = None,
) -> ModelPair:
    """Load an aligned model and its fine-tune.

    aligned, finetuned: see `resolve`; `finetuned` may also name a shipped organism, and a LoRA
    adapter is put on the aligned model; None for the one that the adapter was trained on.
    placement: number format and device, such as `Placement.of("bfloat16", "cuda:1")`.
    allow_mismatch: accept differing tokenizers or chat templates, and an adapter that names
    another base; the difference is then a note of the pair instead of an error.
    in_turn: hold one of two full checkpoints at a time and load the other whenever it is asked
    for; None does so where the second does not fit into the memory that is free.
    merged: hold an adapter's weights twice, with and without it; None does so where memory is
        plentiful.
    proof: compare both sides with what plain Transformers and PEFT compute on a short text, and
        a side that is loaded later when it is.
    template_arguments: what the chat template is told beside the messages, such as
        {"enable_thinking": False}, tools or a date_string.
    beside: a pair of the same aligned model. A second LoRA fine-tune then runs on the weights that
        are held already and costs its adapter alone; one of another kind gets its own.
    Raises: ModelError when files are missing or damaged, when the two sides do not fit, or when
        one of them is not what plain Transformers computes.
    """
    options = _Options(chat_template, allow_mismatch, in_turn, merged, proof)
    placement = placement or Placement.of()
    if aligned is None:
        aligned = base_of(finetuned)
    base = resolve(aligned)
    if base.kind == "adapter":
        raise ModelError(
            f"--aligned {base.name} is a LoRA adapter; pass the model it was trained on"
        )
    tuned = resolve(shipped_or_ref(finetuned))
    if tuned.kind == "adapter" and not allow_mismatch:
        require_its_base(tuned, base)

    there = shared_weights.beside(beside, base, tuned, placement)
    model, tokenizer = there or _load_checkpoint(base, placement)
    context = _context_length(model.config)
    chat = chat_format(tokenizer, chat_template, context, template_arguments)
    notes = [*placement.notes(), *chat.notes()]
    if chat.source == "plain":
        notes.append(f"{base.name} has no chat template: a plain question/answer format is used")

    pair_of_kind = _adapter_pair if tuned.kind == "adapter" else _checkpoint_pair
    bare = None
    if tuned.kind == "adapter" and shared_weights.can_be_shared(placement):
        bare = shared_weights.over_the_same_weights(placement.put(model))
    opened = pair_of_kind(_Sources(base, tuned), model, chat, placement, options)
    notes += opened.notes
    if not proof:
        notes.append("the pair was not compared with plain Transformers (no proof was asked for)")

    for note in notes:
        logger.warning(note)
    return ModelPair(
        open_side=opened.open_side,
        n_layers=int(opened.bridge.cfg.n_layers),
        d_model=int(opened.bridge.cfg.d_model),
        one_copy_of_weights=opened.one_copy,
        chat=chat,
        names={"aligned": base.name, "finetuned": str(finetuned)},
        revisions={"aligned": base.revision, "finetuned": tuned.revision},
        fingerprints={"aligned": base.fingerprint, "finetuned": tuned.fingerprint},
        dtype=placement.dtype,
        device=placement.device,
        weights=placement.weights,
        loaded_in_turn=bool(opened.in_turn),
        notes=notes,
        bare=bare if opened.keeps_base else None,
        reload=PairRecipe(
            _from_any_folder(aligned),
            _from_any_folder(finetuned),
            placement,
            None if chat_template is None else _from_any_folder(chat_template),
            allow_mismatch,
            opened.in_turn,
            merged,
            proof,
            json.dumps(chat.arguments, sort_keys=True),
        ),
    )


@dataclass(frozen=True)
class _Sources:
    """Where the two sides come from."""

    base: Source
    tuned: Source

    def of(self, side: Side) -> Source:
        return self.base if side == "aligned" else self.tuned


@dataclass(frozen=True)
class _Options:
    """What the person asked of a pair; see `load_pair`."""

    chat_template: str | Path | None
    allow_mismatch: bool
    in_turn: bool | None
    merged: bool | None
    proof: bool


@dataclass(frozen=True)
class _Opened:
    """A pair of sides, ready to be asked for.

    bridge: of one side, for its shapes.
    one_copy: never two models in memory at once.
    keeps_base: whether the weights that were loaded stay as they were, and stay in memory.
    in_turn: whether one side at a time is held; as asked for where that does not apply.
    """

    open_side: OpenSide
    bridge: Any
    one_copy: bool
    in_turn: bool | None
    notes: list[str]
    keeps_base: bool = False


class _Prover:
    """Holds what plain models gave for the proof's text, and bridges against it."""

    def __init__(self, sources: _Sources, ids: torch.Tensor, dtype: torch.dtype, on: bool) -> None:
        self.sources, self.ids, self.dtype, self.on = sources, ids, dtype, on
        self.references: dict[Side, PlainOutputs] = {}

    def see(self, side: Side, model: Any, adapted: bool = False) -> None:
        """Keep what a plain model gives; a model that is loaded again is held to the first."""
        if self.on and side not in self.references:
            modules = adapted_modules(model) if adapted else {}
            name = self.sources.of(side).name
            self.references[side] = reference(model, self.ids, name, modules)

    def forget_modules(self) -> None:
        """Of an adapter that is merged none is left that could be passed over."""
        self.references = {side: replace(r, ran={}) for side, r in self.references.items()}

    def fault(self, side: Side, bridge: Any) -> str | None:
        return fault_of(bridge, self.references[side], self.dtype) if self.on else None

    def require(self, side: Side, bridge: Any) -> Any:
        """The bridge. Raises: ModelError where it is not what the plain model was."""
        if fault := self.fault(side, bridge):
            raise ModelError(
                f"the {side} side ({self.sources.of(side).name}) is not what plain Transformers "
                f"computes: {fault}. Take a model or an adapter of another kind"
            )
        return bridge


def _adapter_pair(
    sources: _Sources, model: Any, chat: ChatFormat, placement: Placement, options: _Options
) -> _Opened:
    """One model whose adapter is switched or merged; two where that would not be right."""
    files = read_adapter_files(sources.tuned)
    ids = proof_tokens(chat.tokenizer, model.config, files.trained_tokens)
    prover = _Prover(sources, ids, placement.dtype, options.proof)
    prover.see("aligned", placement.put(model))
    before = base_state(model)
    peft_model, notes = attach_adapter(model, files, sources.base)
    changed = files.taken_from_base or changed_outside(peft_model, before)
    notes += _own_text(files, chat, options)
    placement.put(peft_model).eval().requires_grad_(False)
    prover.see("finetuned", peft_model, adapted=True)
    merge = _to_be_merged(peft_model, options.merged, placement)
    if changed:
        why = f"it also changes {changed}, which switching it off would not give back"
        tuned = peft_model
    else:
        opened = _one_model(peft_model, merge, chat, placement, sources.base.name)
        faults = []
        for side in SIDES:
            with opened.open_side(side) as bridge:
                faults.append(prover.fault(side, bridge))
        if not any(faults):
            return replace(opened, in_turn=options.in_turn, notes=notes)
        why = next(fault for fault in faults if fault)
        del opened, bridge
        free_weights(peft_model)
        tuned = None
    del peft_model
    opened = _two_models(files, prover, chat, placement, options, why, tuned)
    return replace(opened, notes=notes + opened.notes)


def _one_model(
    peft_model: Any, merge: bool, chat: ChatFormat, placement: Placement, name: str
) -> _Opened:
    if merge:
        untie(peft_model)
    bridge = bridge_over(peft_model.get_base_model(), chat.tokenizer, name, placement.dtype)
    open_side = (merged_sides if merge else adapter_sides)(peft_model, bridge)
    return _Opened(one_at_a_time(open_side), bridge, not merge, None, [], keeps_base=True)


def _two_models(
    files: AdapterFiles,
    prover: _Prover,
    chat: ChatFormat,
    placement: Placement,
    options: _Options,
    why: str,
    tuned: Any,
) -> _Opened:
    """The base as it is, and a second one with the adapter merged into it.

    tuned: the PeftModel to merge; None where it is to be loaded anew.
    """
    base, kind, name = prover.sources.base, files.kind, files.source.name
    prover.forget_modules()
    if placement.weights:
        raise ModelError(
            f"the adapter {name} ({kind}) cannot be switched: {why}; merging it needs full "
            f"weights, and these are {placement.weights}: take --dtype bfloat16 or float32"
        )

    def bridge_of(side: Side, model: Any) -> Any:
        bridge = bridge_over(placement.put(model), chat.tokenizer, name, placement.dtype)
        return prover.require(side, bridge)

    def merged(peft_model: Any) -> Any:
        return bridge_of("finetuned", merged_model(peft_model, f"{name}, {why}"))

    def load_side(side: Side) -> Any:
        model, _ = _load_checkpoint(base, placement)
        if side == "aligned":
            return bridge_of(side, model)
        return merged(placement.put(attach_adapter(model, files, base)[0]).eval())

    side: Side = "finetuned" if tuned is not None else "aligned"
    first = load_side(side) if tuned is None else merged(tuned)
    opened = _held_or_in_turn(load_side, side, first, placement, options)
    held = f"loaded in turn{_later(options)}" if opened.in_turn else "held beside each other"
    note = (
        f"the adapter ({kind}) is merged into a second copy of its base, since {why}: two models, "
        f"{held}, {weight_bytes(opened.bridge) / 1e9:.1f} GB of weights each"
    )
    return replace(opened, notes=[note])


def _checkpoint_pair(
    sources: _Sources, model: Any, chat: ChatFormat, placement: Placement, options: _Options
) -> _Opened:
    """Two full checkpoints, both held or loaded in turn."""
    notes = _differences_of_checkpoints(sources, model.config, chat, options)
    ids = proof_tokens(chat.tokenizer, model.config)
    prover = _Prover(sources, ids, placement.dtype, options.proof)

    def bridge_of(side: Side, fresh: Any, its_tokenizer: Any) -> Any:
        prover.see(side, placement.put(fresh))
        name = sources.of(side).name
        return prover.require(side, bridge_over(fresh, its_tokenizer, name, placement.dtype))

    def load_side(side: Side) -> Any:
        return bridge_of(side, *_load_checkpoint(sources.of(side), placement))

    bridge = bridge_of("aligned", model, chat.tokenizer)
    if sources.tuned.path.resolve() == sources.base.path.resolve():
        return _Opened(two_sides(bridge, bridge), bridge, True, options.in_turn, notes)
    opened = _held_or_in_turn(load_side, "aligned", bridge, placement, options)
    if opened.in_turn:
        notes.append(f"the two checkpoints are loaded in turn{_later(options)}, to save memory")
    return replace(opened, notes=notes)


def _held_or_in_turn(
    load_side: Callable[[Side], Any],
    side: Side,
    first: Any,
    placement: Placement,
    options: _Options,
) -> _Opened:
    """Both sides in memory where there is room or it was asked for, else one at a time.

    first: the bridge of `side`, which is loaded already.
    """
    in_turn = options.in_turn
    if in_turn is None:
        in_turn = weight_bytes(first) > MEMORY_SHARE * free_bytes(placement)
    if in_turn:
        open_side = one_at_a_time(sides_in_turn(load_side, side, first))
        return _Opened(open_side, first, True, True, [])
    bridges = {name: first if name == side else load_side(name) for name in SIDES}
    return _Opened(two_sides(**bridges), first, False, False, [])


def _later(options: _Options) -> str:
    """When the side that is not held is proven."""
    return " (the other is compared with plain Transformers when first opened)" * options.proof


def _own_text(files: AdapterFiles, chat: ChatFormat, options: _Options) -> list[str]:
    """Notes of how the tokenizer that an adapter carries differs from its base's."""
    if not own_tokenizer(files.source.path):
        return []
    try:
        with _one_clear_line(files.source) as where:
            own = _with_padding(_tokenizer(**where))
    except ModelError as error:
        return [f"the adapter carries a tokenizer that is not used and cannot be read ({error})"]
    differences = _chat_differences(chat, chat_format(own, options.chat_template, None))
    return [
        f"the adapter carries a tokenizer of its own, which is not used: {said}"
        for said in differences
    ]


def _differences_of_checkpoints(
    sources: _Sources, config: Any, chat: ChatFormat, options: _Options
) -> list[str]:
    """Notes of how two checkpoints that can be compared differ.

    Raises: ModelError for other shapes, and for other texts unless these are allowed.
    """
    base, tuned = sources.base, sources.tuned
    other_config, other_tokenizer = _describe(tuned)
    _check_shapes(config, other_config, base, tuned)
    other_chat = chat_format(other_tokenizer, options.chat_template, _context_length(other_config))
    differences = _chat_differences(chat, other_chat)
    if differences and not options.allow_mismatch:
        raise ModelError(
            f"{base.name} and {tuned.name} do not read the same text: "
            f"{'; '.join(differences)}. "
            "Pass --allow-mismatch to go on with the aligned model's format"
        )
    return differences


def _to_be_merged(peft_model: Any, merged: bool | None, placement: Placement) -> bool:
    if merged and placement.weights:
        raise ModelError(f"an adapter cannot be merged into {placement.weights} weights")
    if merged and not can_be_merged(peft_model):
        raise ModelError(
            "only an adapter of plain LoRA weights can be merged; this one "
            f"({kind_of(peft_model)}) changes its base otherwise, or biases or whole modules too: "
            "leave merged at its default"
        )
    if merged is not None:
        return merged
    if placement.dtype_name != "float32" or not can_be_merged(peft_model):
        return False
    return adapted_bytes(peft_model) <= MERGED_SHARE * free_bytes(placement)


def load_causal_lm(ref: str | Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The plain Hugging Face model and tokenizer of a full checkpoint, on the CPU."""
    return _load_checkpoint(_full_checkpoint(ref), Placement(torch.device("cpu"), dtype))


def load_with_adapter(base: str | Path, adapter: Source, dtype: torch.dtype) -> tuple[Any, Any]:
    """The PeftModel of an adapter on its base, ready to be trained further, and the tokenizer.

    Raises: ModelError as `attach_adapter`, and when `adapter` is a full checkpoint.
    """
    if adapter.kind != "adapter":
        raise ModelError(f"{adapter.name} is a full checkpoint; a LoRA adapter is needed here")
    model, tokenizer = load_causal_lm(base, dtype)
    peft_model, notes = attach_adapter(
        model, read_adapter_files(adapter), resolve(base), trainable=True
    )
    for note in notes:
        logger.warning(note)
    return peft_model, tokenizer


def _full_checkpoint(ref: str | Path) -> Source:
    source = resolve(ref)
    if source.kind == "adapter":
        raise ModelError(f"{source.name} is a LoRA adapter; a full model is needed here")
    return source


def load_chat_model(
    ref: str | Path = "default", placement: Placement | None = None
) -> tuple[Any, ChatFormat]:
    """The plain Hugging Face model of a full checkpoint, in evaluation mode, and its chat format.

    Raises: ModelError as `load_pair` does.
    """
    placement = placement or Placement.of()
    model, tokenizer = _load_checkpoint(_full_checkpoint(ref), placement)
    return placement.put(model), chat_format(tokenizer, None, _context_length(model.config))


def describe_chat_model(ref: str | Path) -> tuple[ChatFormat, int]:
    """The chat format of a full checkpoint and its number of parameters; no weights are loaded.

    Raises: ModelError as `load_pair` does.
    """
    from transformers import AutoModelForCausalLM

    source = _full_checkpoint(ref)
    config, tokenizer = _describe(source)
    with _one_clear_line(source), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    n_parameters = sum(weight.numel() for weight in model.parameters())
    return chat_format(tokenizer, None, _context_length(config)), n_parameters


def load_bridge(
    ref: str | Path = "default", *, placement: Placement | None = None
) -> tuple[Any, ChatFormat]:
    """The TransformerBridge of a full checkpoint, in evaluation mode, and its chat format.

    Raises: ModelError as `load_pair` does.
    """
    placement = placement or Placement.of()
    model, tokenizer = _load_checkpoint(_full_checkpoint(ref), placement)
    chat = chat_format(tokenizer, None, _context_length(model.config))
    return bridge_over(placement.put(model), tokenizer, str(ref), placement.dtype), chat


def _load_checkpoint(source: Source, placement: Placement) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    require_blocks(source)
    with _one_clear_line(source) as where:
        with without_load_report():
            model, found = AutoModelForCausalLM.from_pretrained(
                **placement.loading(), **where, output_loading_info=True
            )
        tokenizer = _tokenizer(**where)
    require_whole(found, source)
    _require_on_cards(model, source, placement)
    # A config may leave this empty, and the bridge cannot map every model_type without it.
    model.config.architectures = [type(model).__name__]
    model.eval().requires_grad_(False)
    return model, _with_padding(tokenizer)


def _require_on_cards(model: Any, source: Source, placement: Placement) -> None:
    """accelerate leaves on the CPU what no card has room for; the bridge cannot run that."""
    off = [name for name, p in model.named_parameters() if p.device.type != placement.device.type]
    if placement.spread and off:
        raise ModelError(
            f"{source.name} does not fit on the cards together: {len(off)} of its weights would "
            "be left off them; take --dtype int8 or nf4, or more cards"
        )


def _describe(source: Source) -> tuple[Any, Any]:
    """Config and tokenizer of a checkpoint whose weights stay on the disk."""
    from transformers import AutoConfig

    require_blocks(source)
    with _one_clear_line(source) as where:
        config = AutoConfig.from_pretrained(**where)
        tokenizer = _tokenizer(**where)
    return config, _with_padding(tokenizer)


@contextlib.contextmanager
def _one_clear_line(source: Source) -> Iterator[dict[str, Any]]:
    """Yield where Transformers finds the source; whatever loading raises becomes a ModelError."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        yield {"pretrained_model_name_or_path": source.path}
    except BaseException as error:  # damaged files raise anything from OSError to SafetensorError
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise ModelError(
            f"cannot load {source.name} from {source.path}: "
            f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        ) from error


def _tokenizer(pretrained_model_name_or_path: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # For a Qwen, AutoTokenizer takes the family's class, which composes accents; a folder made of
    # a GGUF holds the tokenizer of that file.
    of_gguf = (pretrained_model_name_or_path / MANIFEST).is_file()
    return (PreTrainedTokenizerFast if of_gguf else AutoTokenizer).from_pretrained(
        pretrained_model_name_or_path,
        trust_remote_code=False,  # otherwise it asks on the terminal
    )


def _with_padding(tokenizer: Any) -> Any:
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _context_length(config: Any) -> int | None:
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def bridge_over(model: Any, tokenizer: Any, name: str, dtype: torch.dtype) -> Any:
    """A TransformerBridge over a Hugging Face model, whose modules it wraps, for evaluation."""
    from transformer_lens.model_bridge import TransformerBridge

    # The bridge re-loads and changes the tokenizer it is given; ours stays as the model ships it.
    bridge = TransformerBridge.boot_transformers(
        name, hf_model=model, tokenizer=copy.deepcopy(tokenizer), dtype=dtype
    )
    bridge.eval()
    fuse_attention(bridge)
    accept_any_cache_name(bridge)
    skip_unread_norms(bridge)
    return bridge


def _check_shapes(aligned: Any, finetuned: Any, base: Source, tuned: Source) -> None:
    for key in ("hidden_size", "num_hidden_layers", "vocab_size"):
        mine = getattr(aligned.get_text_config(), key, None)
        theirs = getattr(finetuned.get_text_config(), key, None)
        if mine != theirs:
            raise ModelError(
                f"{tuned.name} is no fine-tune of {base.name}: {key} is {theirs} against {mine}"
            )


def _chat_differences(mine: ChatFormat, theirs: ChatFormat) -> list[str]:
    differences = []
    if mine.template != theirs.template:
        differences.append("the chat templates differ")
    vocabulary, other = mine.tokenizer.get_vocab(), theirs.tokenizer.get_vocab()
    if vocabulary != other:
        changed = [token for token in vocabulary if other.get(token) != vocabulary[token]]
        example = f", for instance {changed[0]!r}" if changed else ""
        differences.append(
            f"the tokenizers differ ({len(vocabulary)} against {len(other)} tokens{example})"
        )
    elif whole := _whole_tokens(mine) ^ _whole_tokens(theirs):
        differences.append(f"the tokenizers differ: one takes {min(whole)!r} for one token always")
    here, there = mine.tokenizer.special_tokens_map, theirs.tokenizer.special_tokens_map
    for name in sorted(names_read(mine.template)):
        if here.get(name) != there.get(name):
            differences.append(
                f"the chat template writes {name}, which is {here.get(name)!r} against "
                f"{there.get(name)!r}"
            )
    return differences


def _whole_tokens(chat: ChatFormat) -> set[str]:
    """What the tokenizer looks for in a text before it splits the rest."""
    return {token.content for token in chat.tokenizer.added_tokens_decoder.values()}
