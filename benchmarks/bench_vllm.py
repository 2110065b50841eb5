"""vLLM beside Transformers' `generate`: the same answers, how far apart, how fast, how large.

Greedy and in float32, so that both write the same tokens and do the same work. Repetitions are
interleaved, engine and models are loaded before the clock starts. Needs the environment of
`make test-vllm`; elsewhere it says so and adds no row.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sysconfig
import time
from pathlib import Path
from typing import Any

from record import median_and_range, record

from persona.data import load_pairs
from persona.models import ModelPair, Placement, load_pair
from persona.models.alone import load_alone
from persona.models.pair import Side
from persona.models.sampling import sample_answers
from persona.vllm import installed_vllm, vllm_sampler
from steering.certificate import Certificate, certify_through_vllm
from steering.edits import ALL_BLOCKS, SteeredBy, ablate

N_PROMPTS = 64
N_NEW = 48
REPETITIONS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aligned", default="default")
    parser.add_argument("--finetuned", default="car_maintenance_bad")
    parser.add_argument(
        "--alone", action="store_true", help="the speed of the aligned model without an adapter"
    )
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    options = parser.parse_args()
    if installed_vllm() is None:
        print("vLLM is not installed here; make test-vllm makes its environment")
        return
    if options.alone:
        pair = load_alone(options.aligned, placement=Placement.of("float32"))
        record_speed(pair, options.repetitions, options.aligned, "aligned")
        return
    pair = load_pair(options.aligned, options.finetuned, placement=Placement.of("float32"))
    record_size()
    record_parity(certify_through_vllm(pair))
    record_speed(pair, options.repetitions, options.aligned, "finetuned")


def record_parity(certificate: Certificate) -> None:
    """The certificate's own readings: tokens, and the largest difference of a hidden state."""
    certificate.require()
    tokens = [c.measured for c in certificate.checks if "answers are" in c.check]
    note = f"{certificate.model}, float32, alone and in a mixed batch, chunks and preemption"
    record("vllm.parity.tokens", float(sum(tokens) == 0), "share", n=12 * 40, note=note)
    for name, words, what in (
        ("hidden_relative", "hidden states", "after all blocks before it"),
        ("block_relative", "every block", "each block from the same input"),
    ):
        apart = max(c.measured for c in certificate.checks if words in c.check)
        record(
            f"vllm.parity.{name}",
            apart * 1e6,
            "1e-6 of the state",
            n=12,
            note=f"{note}; largest of any token and block, {what}",
        )


def record_speed(pair: ModelPair, repetitions: int, model: str, side: Side) -> None:
    """Seconds of generate over seconds of vLLM, and of steered over unsteered answers there.

    model: its name ends the rows' names, but for the default one. side: who answers, the fine-tuned
    one with its adapter live.
    """
    questions = [question.prompt_dialogue for question in load_pairs()[:N_PROMPTS]]
    by_vllm = dataclasses.replace(pair, sampler=vllm_sampler(pair))
    edits = SteeredBy(ablate(_direction(pair), at=ALL_BLOCKS))
    answers: dict[str, list[str]] = {}

    def seconds(name: str, one: ModelPair, intervene: Any = None, n: int = N_PROMPTS) -> float:
        with one.active(side) as bridge:
            start = time.perf_counter()
            answers[name] = sample_answers(
                bridge,
                one.chat,
                questions[:n],
                intervene=intervene,
                max_new_tokens=N_NEW,
                temperature=0.0,
            )
            return time.perf_counter() - start

    seconds("started", by_vllm, n=2)
    ratios, steered = [], []
    for _ in range(repetitions):
        generate = seconds("generate", pair)
        plain = seconds("vllm", by_vllm)
        ratios.append(generate / plain)
        steered.append(seconds("steered", by_vllm, edits) / plain)
        print(f"generate {generate:.1f} s, vLLM {plain:.1f} s, steered x {steered[-1]:.2f}")
    same = sum(a == b for a, b in zip(answers["generate"], answers["vllm"], strict=True))
    adapter = "LoRA live" if side == "finetuned" else "no adapter"
    note = (
        f"{model}: {N_PROMPTS} prompts x {N_NEW} tokens, greedy, float32, {adapter}, "
        f"{os.environ.get('OMP_NUM_THREADS', 'all')} threads; {same} of {N_PROMPTS} answers equal"
    )
    ending = "" if model == "default" else f".{model}"
    ending += "" if side == "finetuned" else ".no_adapter"
    value, spread = median_and_range(ratios)
    told = "seconds of generate over those of vLLM"
    record(
        f"vllm.sampling.ratio_to_generate{ending}",
        value,
        "x",
        n=repetitions,
        spread=spread,
        ratio_to=told,
        note=note,
    )
    value, spread = median_and_range(steered)
    record(
        f"vllm.sampling.steered_over_unsteered{ending}",
        value,
        "x",
        n=repetitions,
        spread=spread,
        ratio_to="seconds with an ablation after every block over seconds without, in vLLM",
        note=note,
    )


def _direction(pair: ModelPair) -> Any:
    import torch

    return torch.randn(pair.d_model, generator=torch.Generator().manual_seed(0))


def record_size() -> None:
    """What the environment takes on the disk, all packages together."""
    folder = Path(sysconfig.get_paths()["purelib"])
    size = sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())
    found = installed_vllm()
    assert found is not None
    record(
        "vllm.install.bytes",
        float(size),
        "bytes",
        n=1,
        note=f"site-packages with {found.distribution} {found.version} and the project's own",
    )


if __name__ == "__main__":
    main()
