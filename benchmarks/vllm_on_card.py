"""vLLM with edits on a card: the certificate and parity on a toy, answers a second on an 8B shape.

    python benchmarks/vllm_on_card.py            on a card, in the environment of make test-vllm
    python benchmarks/vllm_on_card.py --toy      the same steps on any machine, which adds no row

Nothing is fetched: the toy is made here, and the large model's weights are random ones of vLLM's
own, which cost as much to compute as real ones. Rows: vllm.card.parity.hidden_relative,
vllm.card.answers_per_second and vllm.card.steered_over_unsteered.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench_gpu import LLAMA_8B
from record import median_and_range, record
from tiny_models import save_tokenizer
from vllm_cases import Toy

from persona.models import Placement, load_pair
from persona.vllm import EditSet, VllmEngine, installed_vllm
from steering.certificate import certify_through_vllm
from steering.edits import ALL_BLOCKS, ablate

LARGE = {**LLAMA_8B, "max_position_embeddings": 4096, "tie_word_embeddings": False}
SMALL = {
    **LARGE,
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
N_PROMPTS, PROMPT_TOKENS, NEW_TOKENS, REPETITIONS = 256, 100, 100, 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="tiny shapes, no rows, any machine")
    options = parser.parse_args()
    if installed_vllm() is None:
        print("vLLM is not installed here; make test-vllm makes its environment")
        return
    if not options.toy and not torch.cuda.is_available():
        print("there is no card here; --toy runs the same steps on tiny shapes")
        return
    card = "a toy" if options.toy else torch.cuda.get_device_name(0)
    with tempfile.TemporaryDirectory() as scratch:
        parity = of_certificate(Path(scratch) / "toy")
        print(f"certificate: passed; hidden states at most {parity:.2g} apart")
        shape = SMALL if options.toy else LARGE
        fast, ratios = of_speed(Path(scratch) / "shape", shape, 8 if options.toy else N_PROMPTS)
    rate, spread = median_and_range(fast)
    steered, between = median_and_range(ratios)
    print(f"{rate:.1f} answers a second, steered x {steered:.2f} ({card})")
    if options.toy:
        return
    note = f"{card}, bfloat16, {N_PROMPTS} prompts of {PROMPT_TOKENS} x {NEW_TOKENS} tokens, eager"
    record("vllm.card.parity.hidden_relative", parity * 1e6, "1e-6 of the state", n=12, note=card)
    record("vllm.card.answers_per_second", rate, "1/s", n=REPETITIONS, spread=spread, note=note)
    record(
        "vllm.card.steered_over_unsteered",
        steered,
        "x",
        n=REPETITIONS,
        spread=between,
        ratio_to="seconds with an ablation after every block over seconds without",
        note=note,
    )


def of_certificate(folder: Path) -> float:
    """The largest relative difference of a hidden state. Raises: where a check does not hold."""
    toy = Toy(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pair = load_pair(toy.base, toy.adapter, placement=Placement.of("float32", device))
    certificate = certify_through_vllm(pair)
    certificate.require()
    return max(c.measured for c in certificate.checks if "hidden states" in c.check)


def of_speed(
    folder: Path, shape: dict[str, Any], n_prompts: int
) -> tuple[list[float], list[float]]:
    """Answers a second, and seconds of edited over seconds of unedited answers, by repetition."""
    folder.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **shape}
    (folder / "config.json").write_text(json.dumps(config))
    save_tokenizer(folder)
    engine = VllmEngine(folder, dtype="bfloat16", max_length=512, options={"load_format": "dummy"})
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(5, 500, (n_prompts, PROMPT_TOKENS), generator=generator).tolist()
    direction = torch.randn(shape["hidden_size"], generator=generator)
    edits = EditSet.of(ablate(direction, at=ALL_BLOCKS))

    def seconds(chosen: EditSet | None, new: int = NEW_TOKENS) -> float:
        start = time.perf_counter()
        engine.sample(prompts, edits=chosen, max_new_tokens=new)
        return time.perf_counter() - start

    seconds(None, 4)
    fast, ratios = [], []
    for _ in range(REPETITIONS):
        plain, steered = seconds(None), seconds(edits)
        fast.append(n_prompts / plain)
        ratios.append(steered / plain)
    engine.close()
    return fast, ratios


if __name__ == "__main__":
    main()
