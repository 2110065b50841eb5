"""Loading models by name: the embedded default, hub ids, folders, GGUF files, LoRA adapters.

Only this package imports transformer_lens, and peft for reading adapters.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from persona.errors import ModelError
from persona.files import sha256_of_file
from persona.models.chat import ChatFormat, chat_format
from persona.models.embedded import DEFAULT_MODEL_ID, default_model_folder
from persona.models.pair import ModelPair, Side
from persona.models.precision import choose_device, choose_dtype

logger = logging.getLogger("persona")

Kind = Literal["folder", "gguf", "adapter"]


@dataclass(frozen=True)
class Source:
    """A model reference resolved to files on this machine.

    name: what the person typed ("default" becomes the model's hub id).
    path: folder of the checkpoint or adapter, or the GGUF file.
    """

    name: str
    kind: Kind
    path: Path

    @property
    def revision(self) -> str:
        """Hub commit of a snapshot folder, else a short hash over the weight files."""
        if self.path.parent.name == "snapshots":
            return self.path.name[:12]
        files = [self.path] if self.path.is_file() else sorted(self.path.glob("*.safetensors"))
        return "+".join(sha256_of_file(file)[:12] for file in files[:2]) or "unknown"


def resolve(ref: str | Path) -> Source:
    """Find the files of a model reference.

    ref: "default", a folder of safetensors, a GGUF file, a LoRA adapter folder (PEFT layout), or
    a hub id of a checkpoint or an adapter.
    Raises: ModelError with one line on what is missing.
    """
    name = str(ref)
    if name == "default":
        return Source(DEFAULT_MODEL_ID, "folder", default_model_folder())
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(
                f"{name} is a file but not a GGUF; pass a .gguf file or a model folder"
            )
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(
                    f"{name} does not start like a GGUF file; it is damaged or another format"
                )
        return Source(name, "gguf", path)
    if path.is_dir():
        return Source(name, _kind_of_folder(path), path)
    looks_local = name.startswith((".", "/", "~")) or name.count("/") != 1 or path.suffix != ""
    if looks_local and not _looks_like_hub_id(name):
        raise ModelError(f"no such model file or folder: {name}")
    return _from_hub(name)


def _looks_like_hub_id(name: str) -> bool:
    return (
        name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith(".gguf")
    )


def _kind_of_folder(path: Path) -> Kind:
    if (path / "adapter_config.json").exists():
        if not list(path.glob("adapter_model.safetensors")):
            raise ModelError(
                f"{path} has adapter_config.json but no adapter_model.safetensors; "
                "save the adapter with PEFT in safetensors format"
            )
        return "adapter"
    if (path / "config.json").exists():
        if not list(path.glob("*.safetensors")):
            raise ModelError(f"{path} has config.json but no *.safetensors weights")
        return "folder"
    raise ModelError(
        f"{path} is neither a checkpoint (config.json) nor a LoRA adapter (adapter_config.json)"
    )


def _from_hub(name: str) -> Source:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                name,
                allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"],
            )
        )
    except Exception as error:  # the hub client raises a dozen types for "not there"
        raise ModelError(
            f"{name} is no local path, and the hub did not give it "
            f"({type(error).__name__}: {str(error).splitlines()[0][:160]}). "
            "Check the spelling and the network, or pass a local folder"
        ) from error
    return Source(name, _kind_of_folder(folder), folder)


def load_pair(
    aligned: str | Path = "default",
    finetuned: str | Path = "car_maintenance_bad",
    *,
    dtype: str = "auto",
    device: str = "auto",
    chat_template: str | Path | None = None,
    allow_mismatch: bool = False,
) -> ModelPair:
    """Load an aligned model and its fine-tune.

    aligned, finetuned: see `resolve`; `finetuned` may also name a shipped organism, and a LoRA
    adapter is put on the aligned model.
    allow_mismatch: accept differing tokenizers or chat templates; the difference is then a note
    of the pair instead of an error.
    Raises: ModelError when files are missing or damaged, or when the two sides do not fit.
    """
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, chosen_device)
    base = resolve(aligned)
    if base.kind == "adapter":
        raise ModelError(
            f"--aligned {base.name} is a LoRA adapter; pass the model it was trained on"
        )
    tuned = resolve(_shipped_or_ref(finetuned))

    model, tokenizer = _load_checkpoint(base, chosen_dtype)
    chat = chat_format(tokenizer, chat_template, _context_length(model))
    notes = []
    if chat.source == "plain":
        notes.append(f"{base.name} has no chat template: a plain question/answer format is used")

    if tuned.kind == "adapter":
        peft_model, adapter_notes = _attach_adapter(model, tuned, base)
        notes += adapter_notes
        peft_model.to(chosen_device).eval().requires_grad_(False)
        bridge = _bridge(peft_model.get_base_model(), tokenizer, base.name, chosen_dtype)

        @contextlib.contextmanager
        def switch(side: Side) -> Iterator[None]:
            with peft_model.disable_adapter() if side == "aligned" else contextlib.nullcontext():
                # PEFT marks adapters trainable again whenever they are switched back on.
                peft_model.requires_grad_(False)
                yield

        bridges = {"aligned": bridge, "finetuned": bridge}
    else:
        other, other_tokenizer = _load_checkpoint(tuned, chosen_dtype)
        _check_shapes(model, other, base, tuned)
        other_chat = chat_format(other_tokenizer, chat_template, _context_length(other))
        differences = _chat_differences(chat, other_chat)
        if differences and not allow_mismatch:
            raise ModelError(
                f"{base.name} and {tuned.name} do not read the same text: "
                f"{'; '.join(differences)}. "
                "Pass --allow-mismatch to go on with the aligned model's format"
            )
        notes += differences
        bridges = {
            "aligned": _bridge(model.to(chosen_device), tokenizer, base.name, chosen_dtype),
            "finetuned": _bridge(other.to(chosen_device), tokenizer, tuned.name, chosen_dtype),
        }

        @contextlib.contextmanager
        def switch(side: Side) -> Iterator[None]:
            yield

    for note in notes:
        logger.warning(note)
    return ModelPair(
        bridges=bridges,  # type: ignore[arg-type]
        switch=switch,
        chat=chat,
        names={"aligned": base.name, "finetuned": str(finetuned)},
        revisions={"aligned": base.revision, "finetuned": tuned.revision},
        dtype=chosen_dtype,
        device=chosen_device,
        notes=notes,
    )


def _shipped_or_ref(ref: str | Path) -> str | Path:
    """A shipped organism's adapter folder when `ref` names one and no local path shadows it."""
    name = str(ref)
    if "/" in name or "." in name or name == "default" or Path(name).exists():
        return ref
    from persona.organisms.shipped import shipped_adapter, shipped_names

    if name not in shipped_names():
        return ref

    return shipped_adapter(name)


def load_causal_lm(ref: str | Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The plain Hugging Face model and tokenizer of a full checkpoint, on the CPU."""
    source = resolve(ref)
    if source.kind == "adapter":
        raise ModelError(f"{source.name} is a LoRA adapter; a full model is needed here")
    return _load_checkpoint(source, dtype)


def _load_checkpoint(source: Source, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    options: dict[str, Any] = {}
    folder = source.path
    if source.kind == "gguf":
        folder, options["gguf_file"] = source.path.parent, source.path.name
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except Exception as error:  # damaged files raise anything from OSError to SafetensorError
        raise ModelError(
            f"cannot load {source.name} from {source.path}: "
            f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        ) from error
    # A GGUF leaves architectures empty, and the bridge cannot map every model_type without it.
    model.config.architectures = [type(model).__name__]
    model.eval().requires_grad_(False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def _context_length(model: Any) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _attach_adapter(model: Any, adapter: Source, base: Source) -> tuple[Any, list[str]]:
    from peft import PeftModel

    try:
        config = json.loads((adapter.path / "adapter_config.json").read_text(encoding="utf-8"))
        peft_model = PeftModel.from_pretrained(model, str(adapter.path))
    except Exception as error:
        reason = " ".join(str(error).split())[:240]
        raise ModelError(
            f"the adapter {adapter.name} does not fit {base.name}: {type(error).__name__}: {reason}"
        ) from error
    trained_on = str(config.get("base_model_name_or_path") or "")
    if trained_on and Path(trained_on).name != Path(base.name).name:
        return peft_model, [f"the adapter names {trained_on} as its base; it is put on {base.name}"]
    return peft_model, []


def _bridge(model: Any, tokenizer: Any, name: str, dtype: torch.dtype) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    # The bridge re-loads and changes the tokenizer it is given; ours stays as the model ships it.
    bridge = TransformerBridge.boot_transformers(
        name, hf_model=model, tokenizer=copy.deepcopy(tokenizer), dtype=dtype
    )
    bridge.eval()
    return bridge


def _check_shapes(aligned: Any, finetuned: Any, base: Source, tuned: Source) -> None:
    for key in ("hidden_size", "num_hidden_layers", "vocab_size"):
        mine = getattr(aligned.config.get_text_config(), key, None)
        theirs = getattr(finetuned.config.get_text_config(), key, None)
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
    return differences
