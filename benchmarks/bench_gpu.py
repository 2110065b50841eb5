"""Extraction and steered generation on a CUDA card: a randomly initialised model of the 8B shape.

Speed does not depend on what the weights are. Without a card nothing is measured.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from bench_steering import generation_seconds, steered_over_plain, wait_for_device
from record import median_and_range, record

from persona.activations import collect_moments
from persona.directions import ActivationSpace, Direction
from persona.models import load_pair
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import model_device, resid_post
from persona.models.load import bridge_over
from persona.models.precision import Placement
from steering import add

LLAMA_8B = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0}
N_TEXTS, TOKEN_BUDGET = 1024, 32_768
REPETITIONS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak-tflops", type=float, help="of dense 16-bit products, by the maker")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA card: nothing is measured", file=sys.stderr)
        return
    card = torch.cuda.get_device_name()
    peak = options.peak_tflops or next((v for k, v in PEAK_TFLOPS.items() if k in card), None)
    if peak is None:
        parser.error(f"the peak of {card} is not known here; pass --peak-tflops")
    bridge = random_bridge(LLAMA_8B, torch.bfloat16, "cuda")
    extraction(bridge, random_texts(N_TEXTS), peak, TOKEN_BUDGET, card)
    steered_generation(bridge, card)


def random_bridge(shape: dict[str, int], dtype: torch.dtype, device: str):
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_pair("default", "default", placement=Placement.of(device="cpu")).tokenizer
    torch.manual_seed(0)
    with torch.device(device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            model = LlamaForCausalLM(LlamaConfig(**shape))
        finally:
            torch.set_default_dtype(before)
    model.config.architectures = [type(model).__name__]
    return bridge_over(model.requires_grad_(False), tokenizer, "random-llama", dtype)


def random_texts(n: int, shortest: int = 64, longest: int = 384) -> list[TokenizedDialogue]:
    """Texts of chat length; token ids below 1,000, which every vocabulary here has."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(shortest, longest, (n,), generator=generator).tolist()
    ids = [torch.randint(5, 200, (m,), generator=generator).tolist() for m in lengths]
    return [TokenizedDialogue(tuple(row), (len(row) // 3, len(row)), "t") for row in ids]


def extraction(bridge, texts: list, peak: float, token_budget: int, card: str) -> None:
    """Operations of the products of weights and tokens that are no padding, over the peak."""
    last = int(bridge.cfg.n_layers) - 1
    used = weights_in_blocks(bridge)
    flop = 2 * used * sum(map(len, texts))
    here = torch.zeros(1, device=model_device(bridge))

    def ours() -> float:
        wait_for_device(here)
        start = time.perf_counter()
        collect_moments(bridge, texts, [last], token_budget=token_budget)
        wait_for_device(here)
        return time.perf_counter() - start

    @torch.no_grad()
    def one_by_one() -> float:
        wait_for_device(here)
        start = time.perf_counter()
        for text in texts:
            ids = torch.tensor([text.ids], device=here.device)
            states = bridge.original_model(ids, output_hidden_states=True).hidden_states
            states[last][0, text.response[0] :].mean(0)
        wait_for_device(here)
        return time.perf_counter() - start

    ours(), one_by_one()
    seconds = [ours() for _ in range(REPETITIONS)]
    value, spread = median_and_range([flop / s / 1e12 / peak for s in seconds])
    record(
        "gpu.extraction.mfu",
        value,
        "share",
        n=REPETITIONS,
        spread=spread,
        ratio_to=f"{peak:g} TFLOPS",
        note=f"{card}; {used / 1e9:.1f}B weights in blocks, {len(texts)} texts; attention's own "
        "products are not counted",
    )
    value, spread = median_and_range([one_by_one() / ours() for _ in range(REPETITIONS)])
    record(
        "gpu.extraction.ratio_to_one_text_loop",
        value,
        "x",
        n=REPETITIONS,
        spread=spread,
        ratio_to="seconds of this project; above 1 it is faster than one text at a time",
        note=card,
    )


def weights_in_blocks(bridge) -> int:
    """Entries of the matrices that every token is multiplied with."""
    return sum(p.numel() for block in bridge.blocks for p in block.parameters() if p.ndim == 2)


def steered_generation(bridge, card: str, rows: int = 8, n_tokens: int = 64) -> None:
    width, layer = int(bridge.cfg.d_model), int(bridge.cfg.n_layers) // 2
    space = ActivationSpace("random-llama", "0", resid_post(layer), layer, width)
    edits = add(Direction(torch.randn(width), space, "any"), 0.01)
    ids = torch.randint(5, 200, (rows, 64), device=model_device(bridge))

    def seconds(chosen: list) -> float:
        return generation_seconds(bridge, ids, chosen, n_tokens)

    seconds([]), seconds(edits)
    value, spread = median_and_range(
        [steered_over_plain(seconds, edits) for _ in range(REPETITIONS)]
    )
    record(
        "gpu.steer.generation_ratio",
        value,
        "x",
        n=REPETITIONS,
        spread=spread,
        ratio_to="seconds of unsteered generation on the same path",
        note=f"{card}; {rows} rows, {n_tokens} forced tokens, one hook at block {layer}",
    )


if __name__ == "__main__":
    main()
