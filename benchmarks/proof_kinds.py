"""Every adapter kind of PEFT on tiny models of many families: right, or refused in one line.

    python -m benchmarks.proof_kinds [--families llama phi3] [--kinds lora dora] [--record]

Right means that both sides are what plain Transformers and PEFT compute on a text that the proof
inside `load_pair` does not use. A kind that PEFT itself cannot make, save and load again on a
family is not counted.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import record
from persona.errors import ModelError
from persona.models import load_pair
from persona.models.precision import Placement

SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
TOKENS = dict(vocab_size=261, bos_token_id=0, eos_token_id=1, pad_token_id=1)
GROUPED = dict(num_key_value_heads=1)
HEADS = dict(GROUPED, head_dim=8)
PLAIN = ("q_proj", "down_proj")

FAMILIES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "llama": (GROUPED, PLAIN),
    "qwen2": (GROUPED, PLAIN),
    "qwen3": (HEADS, PLAIN),
    "gemma2": (HEADS, PLAIN),
    "gemma3_text": (HEADS, PLAIN),
    "granite": (GROUPED, PLAIN),
    "gpt2": (dict(n_embd=16, n_layer=2, n_head=2, n_positions=256), ("c_attn", "c_proj")),
    "gpt_neox": ({}, ("query_key_value", "dense_4h_to_h")),
    "bloom": (dict(n_layer=2, n_head=2), ("query_key_value", "dense_4h_to_h")),
    "phi3": (GROUPED, ("qkv_proj", "gate_up_proj", "down_proj")),
    "glm4": (HEADS, ("q_proj", "gate_up_proj")),
    "mixtral": (dict(GROUPED, num_local_experts=4, num_experts_per_tok=2), ("q_proj",)),
    "qwen3_moe": (
        dict(HEADS, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
        ("q_proj",),
    ),
}
"""What each family needs besides the sizes, and the modules that its adapters are put on."""

EMBEDDINGS = {"gpt2": "wte", "gpt_neox": "embed_in", "bloom": "word_embeddings"}
HEAD = {"gpt_neox": "embed_out"}
NORMS = {
    "gpt2": "ln_1",
    "gpt_neox": "input_layernorm",
    "bloom": "input_layernorm",
}
FEEDFORWARD = ("down_proj", "dense_4h_to_h")


def _lora(**options: Any) -> Callable[[str, list[str]], Any]:
    def make(family: str, modules: list[str]) -> Any:
        from peft import LoraConfig

        return LoraConfig(r=2, target_modules=modules, fan_in_fan_out=family == "gpt2", **options)

    return make


def _kind(name: str, **options: Any) -> Callable[[str, list[str]], Any]:
    def make(family: str, modules: list[str]) -> Any:
        import peft

        return getattr(peft, name)(target_modules=modules, **options)

    return make


def _prompt(name: str, **options: Any) -> Callable[[str, list[str]], Any]:
    def make(family: str, modules: list[str]) -> Any:
        import peft

        return getattr(peft, name)(task_type="CAUSAL_LM", **options)

    return make


def _embedding(family: str, modules: list[str]) -> Any:
    return _lora()(family, [*modules, EMBEDDINGS.get(family, "embed_tokens")])


def _head(family: str, modules: list[str]) -> Any:
    return _lora()(family, [*modules, HEAD.get(family, "lm_head")])


def _whole_head(family: str, modules: list[str]) -> Any:
    return _lora(modules_to_save=[HEAD.get(family, "lm_head")])(family, modules)


def _experts(family: str, modules: list[str]) -> Any:
    if family not in ("mixtral", "qwen3_moe"):
        raise ValueError("no experts")
    names = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    return _lora(target_parameters=names)(family, modules)


def _norms(family: str, modules: list[str]) -> Any:
    import peft

    return peft.LNTuningConfig(target_modules=[NORMS.get(family, "input_layernorm")])


def _ia3(family: str, modules: list[str]) -> Any:
    import peft

    forward = [name for name in modules if name in FEEDFORWARD]
    return peft.IA3Config(
        target_modules=modules, feedforward_modules=forward, fan_in_fan_out=family == "gpt2"
    )


def _tokens(family: str, modules: list[str]) -> Any:
    import peft

    name = EMBEDDINGS.get(family, "embed_tokens")
    return peft.TrainableTokensConfig(target_modules=[name], token_indices=[10, 12, 15])


KINDS: dict[str, Callable[[str, list[str]], Any]] = {
    "LoRA": _lora(),
    "rsLoRA": _lora(use_rslora=True),
    "DoRA": _lora(use_dora=True),
    "LoRA, ranks by pattern": _lora(rank_pattern={"q_proj": 4}, alpha_pattern={"q_proj": 2}),
    "LoRA with lora_bias": _lora(lora_bias=True),
    "LoRA with bias=all": _lora(bias="all"),
    "LoRA with bias=lora_only": _lora(bias="lora_only"),
    "LoRA begun by PiSSA": _lora(init_lora_weights="pissa"),
    "LoRA begun by OLoRA": _lora(init_lora_weights="olora"),
    "LoRA begun by MiLoRA": _lora(init_lora_weights="milora"),
    "LoRA begun orthogonal": _lora(init_lora_weights="orthogonal"),
    "LoRA on embeddings": _embedding,
    "LoRA on the head": _head,
    "LoRA with trained tokens": _lora(trainable_token_indices=[10, 12, 15]),
    "LoRA with a whole head": _whole_head,
    "LoRA on experts": _experts,
    "LoRA repeating blocks": _lora(layer_replication=[(0, 2), (1, 2)]),
    "aLoRA": _lora(alora_invocation_tokens=[12, 13]),
    "AdaLoRA": _kind("AdaLoraConfig", total_step=100, init_r=4, target_r=2),
    "LoHa": _kind("LoHaConfig", r=2),
    "LoKr": _kind("LoKrConfig", r=2),
    "IA3": _ia3,
    "VeRA": _kind("VeraConfig", r=4),
    "LN tuning": _norms,
    "OFT": _kind("OFTConfig", r=0, oft_block_size=4),
    "BOFT": _kind("BOFTConfig", boft_block_size=4),
    "FourierFT": _kind("FourierFTConfig", n_frequency=16),
    "VB-LoRA": _kind("VBLoRAConfig", r=2, num_vectors=8, vector_length=4, topk=2),
    "HRA": _kind("HRAConfig", r=2),
    "Poly": _kind("PolyConfig", r=2, n_tasks=1, n_splits=1),
    "trainable tokens": _tokens,
    "AdaMSS": _kind("AdamssConfig", r=2),
    "BEFT": _kind("BeftConfig"),
    "C3A": _kind("C3AConfig", block_size=4),
    "DEFT": _kind("DeftConfig", r=2),
    "DeLoRA": _kind("DeloraConfig", r=2),
    "FRoD": _kind("FrodConfig"),
    "GLoRA": _kind("GloraConfig", r=2),
    "GraLoRA": _kind("GraloraConfig", r=4, gralora_k=2),
    "HiRA": _kind("HiraConfig", r=2),
    "Lily": _kind("LilyConfig", r=2),
    "MiSS": _kind("MissConfig", r=2),
    "SHiRA": _kind("ShiraConfig", r=2),
    "OSF": _kind("OSFConfig"),
    "PEANuT": _kind("PeanutConfig", r=2),
    "PSOFT": _kind("PsoftConfig", r=2),
    "PVeRA": _kind("PveraConfig", r=4),
    "RandLoRA": _kind("RandLoraConfig", r=2),
    "RoAd": _kind("RoadConfig"),
    "Shadow": _kind("ShadowConfig", r=2),
    "SuperTuning": _kind("SupertuningConfig", r=2),
    "TinyLoRA": _kind("TinyLoraConfig", r=2),
    "UniLoRA": _kind("UniLoraConfig", r=2),
    "WaveFT": _kind("WaveFTConfig", n_frequency=16),
    "prompt tuning": _prompt("PromptTuningConfig", num_virtual_tokens=4),
    "multitask prompt tuning": _prompt("MultitaskPromptTuningConfig", num_virtual_tokens=4),
    "p-tuning": _prompt("PromptEncoderConfig", num_virtual_tokens=4),
    "prefix tuning": _prompt("PrefixTuningConfig", num_virtual_tokens=4),
    "context-aware prompt tuning": _prompt("CPTConfig", num_virtual_tokens=4, cpt_token_ids=[5] * 4,
        cpt_mask=[1] * 4, cpt_tokens_type_mask=[1] * 4),
    "cartridge": _prompt("CartridgeConfig", num_virtual_tokens=4),
    "adaption prompt": _prompt("AdaptionPromptConfig", adapter_len=4, adapter_layers=1),
}  # fmt: skip

IDS = torch.tensor([[*range(20, 40), 10, 12, 15, 12, 13, 40, 41]])


def _save_base(folder: Path, family: str) -> Path:
    import transformers
    from tiny_models import save_tokenizer

    options, _ = FAMILIES[family]
    sizes = {} if family == "gpt2" else SIZES
    config = transformers.AutoConfig.for_model(
        family, **TOKENS, **sizes, **options, initializer_range=0.2
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@torch.no_grad()
def _truth(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(base).eval()(input_ids=IDS).logits
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = PeftModel.from_pretrained(model, adapter).eval()(input_ids=IDS).logits
    return {"aligned": plain, "finetuned": tuned[:, -IDS.shape[1] :]}


def _save_adapter(base: Path, folder: Path, config: Any) -> None:
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)


@torch.no_grad()
def _outcome(base: Path, adapter: Path, merged: bool | None, truth: Any) -> str:
    """right, "right, two models", refused: why, WRONG: how, or CRASH: how."""
    try:
        pair = load_pair(base, adapter, placement=Placement.of("float32", "cpu"), merged=merged)
        for side, expected in truth.items():
            with pair.active(side) as bridge:
                off = float((bridge(IDS) - expected).abs().max())
            if not off <= 1e-3 * float(expected.abs().max()):
                return f"WRONG: {side} off by {off:.2g}"
    except ModelError as error:
        return f"refused: {error}"
    except Exception as error:  # what a user would see as a traceback
        return f"CRASH: {type(error).__name__}: {error}"[:200]
    return "right, two models" if any("second copy" in note for note in pair.notes) else "right"


def sweep(families: list[str], kinds: list[str]) -> list[tuple[str, str, bool | None, str]]:
    """(family, kind, merged, outcome) of all that PEFT can make."""
    rows = []
    with tempfile.TemporaryDirectory() as work:
        bases = {family: _save_base(Path(work) / family, family) for family in families}
        for family, kind in itertools.product(families, kinds):
            adapter = Path(work) / f"{family}-{list(KINDS).index(kind)}"
            try:
                config = KINDS[kind](family, list(FAMILIES[family][1]))
                _save_adapter(bases[family], adapter, config)
                truth = _truth(bases[family], adapter)
            except Exception as error:  # PEFT does not offer it here
                reason = " ".join(str(error).split())[:120]
                print(f"{family:12} {kind:28} -     not made: {type(error).__name__}: {reason}")
                continue
            for merged in (False, None, True):
                outcome = _outcome(bases[family], adapter, merged, truth)
                rows.append((family, kind, merged, outcome))
                print(f"{family:12} {kind:28} {merged!s:5} {outcome[:230]}", flush=True)
    return rows


def proof_seconds(n: int) -> list[float]:
    """Processor seconds that the proof adds to loading the default pair, n times.

    Of the whole process: run it with OMP_NUM_THREADS=1, since waiting threads count too.
    """

    def seconds(proof: bool) -> float:
        started = time.process_time()
        load_pair(proof=proof, placement=Placement.of("float32", "cpu"))
        return time.process_time() - started

    seconds(True)  # the first loads the libraries too
    return [seconds(True) - seconds(False) for _ in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--seconds", type=int, metavar="N", help="time the proof N times instead")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.seconds:
        found = proof_seconds(options.seconds)
        print("seconds that the proof adds:", *(f"{x:.2f}" for x in found))
        if options.record:
            record(
                "load.proof.seconds",
                statistics.median(found),
                "s",
                n=len(found),
                spread=(min(found), max(found)),
                note="processor seconds on one thread, default pair (135M), float32",
            )
        return
    rows = sweep(options.families, options.kinds)
    counts = collections.Counter(outcome.split(":")[0] for *_, outcome in rows)
    print(dict(counts))
    if options.record:
        kept = sum(n for word, n in counts.items() if word not in ("WRONG", "CRASH"))
        note = (
            f"{len({kind for _, kind, *_ in rows})} kinds, {len(options.families)} families, "
            f"merged False, None and True: {dict(counts)}"
        )
        record(
            "proof.adapter_kinds", kept / len(rows), "share of all tried", n=len(rows), note=note
        )


if __name__ == "__main__":
    main()
