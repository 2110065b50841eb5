"""Which LoRA adapters vLLM takes as they are; the others can be merged into a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from persona.errors import EngineError

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Sizes of vLLM's tables; an adapter takes the first that holds it."""

MERGE = (
    "merge it into its base (PeftModel.merge_and_unload, save_pretrained) and pass that folder as "
    "--finetuned"
)


def rank_for(adapter: Path) -> int:
    """The size of the table that holds an adapter.

    Raises: EngineError for a rank above the limit, and for what vLLM does not take of PEFT.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        ranks = [int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"{adapter}/adapter_config.json cannot be read ({error})") from error
    if max(ranks) > RANKS[-1]:
        raise EngineError(
            f"the adapter {adapter} has rank {max(ranks)} and vLLM takes {RANKS[-1]} at most; "
            f"{MERGE}"
        )
    strange = {
        f"of kind {config.get('peft_type')}": config.get("peft_type", "LORA") != "LORA",
        "with DoRA": bool(config.get("use_dora")),
        "with whole modules beside it": bool(config.get("modules_to_save")),
        "with biases": config.get("bias", "none") != "none",
        "with trained rows of tokens": bool(config.get("trainable_token_indices")),
    }
    if found := [what for what, on in strange.items() if on]:
        raise EngineError(
            f"vLLM does not take the adapter {adapter} {' and '.join(found)}; {MERGE}"
        )
    return next(size for size in RANKS if size >= max(ranks))


def trains_head(adapter: Path) -> bool:
    """Whether an adapter that `rank_for` takes changes the model's head or its embedding."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    targets = config.get("target_modules") or []
    if isinstance(targets, str):  # a pattern; all-linear leaves the head alone
        return targets != "all-linear" and "lm_head" in targets
    return any(name.rsplit(".", 1)[-1] in ("lm_head", "embed_tokens") for name in targets)
