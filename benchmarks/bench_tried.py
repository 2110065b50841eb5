"""What could make extraction faster and is not done, each measured against what is done.

A ratio above 1 would be a gain. Plain Hugging Face models stopped at the same block stand for both
sides of each comparison, so that nothing else differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from record import median_and_range, record

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, token_batches
from persona.data import load_pairs
from persona.models.load import load_pair
from persona.models.named.folders import default_model_folder
from persona.models.sources import resolve, shipped_or_ref

LAYER = 20
N_DIALOGUES = 32
REPETITIONS = 3
BUDGETS = (128, 256, 1024, 4096)
Pass = Callable[[], None]


def main() -> None:
    chat = load_pair("default", "default").chat
    questions = load_pairs()[: N_DIALOGUES // 2]
    answers = [d for q in questions for d in (q.good_dialogue, q.bad_dialogue)]
    dialogues = chat.encode_all(answers)
    pad_id = chat.tokenizer.pad_token_id
    batches = token_batches(dialogues, pad_id)
    budgets(dialogues, pad_id)
    tokenising(chat, answers, batches)
    both_sides_in_one_pass(dialogues, pad_id)
    compiled(batches)


def stopped_model():
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(default_model_folder(), dtype=torch.float32).eval()
    model.model.layers = model.model.layers[: LAYER + 1]
    return model


def reading(model, batches) -> Pass:
    @torch.no_grad()
    def run() -> None:
        for batch in batches:
            model(batch.ids, use_cache=False)

    return run


def compare(name: str, done: Pass, tried: Pass, ratio_to: str, note: str) -> None:
    done(), tried()
    ratios = [seconds(done) / seconds(tried) for _ in range(REPETITIONS)]
    value, spread = median_and_range(ratios)
    full_note = f"block {LAYER}, {N_DIALOGUES} answers; above 1 it would be a gain; {note}"
    record(
        f"tried.{name}",
        value,
        "x",
        n=REPETITIONS,
        spread=spread,
        ratio_to=ratio_to,
        note=full_note,
    )


def seconds(run: Pass) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def budgets(dialogues, pad_id) -> None:
    """Larger and smaller batches than the default."""
    model = stopped_model().model
    chosen = reading(model, token_batches(dialogues, pad_id))
    for budget in BUDGETS:
        compare(
            f"token_budget_{budget}",
            chosen,
            reading(model, token_batches(dialogues, pad_id, budget)),
            f"seconds with {DEFAULT_TOKEN_BUDGET} padded tokens a batch, over those with {budget}",
            f"{DEFAULT_TOKEN_BUDGET} is the default on a CPU",
        )


def tokenising(chat, answers, batches) -> None:
    """All that overlapping tokenisation with the model could save."""
    share = []
    run = reading(stopped_model().model, batches)
    run()
    for _ in range(REPETITIONS):
        alone = seconds(lambda: chat.encode_all(answers))
        share.append(1 + alone / seconds(run))
    value, spread = median_and_range(share)
    record(
        "tried.overlapped_tokenisation",
        value,
        "x",
        n=REPETITIONS,
        spread=spread,
        ratio_to="seconds of rendering, tokenising and the model, over the model's alone",
        note="the most that overlapping could gain; texts are tokenised in one batch before",
    )


def both_sides_in_one_pass(dialogues, pad_id) -> None:
    """Rows with and without the adapter in one batch, against a pass for each side."""
    from peft import PeftModel

    folder = resolve(shipped_or_ref("car_maintenance_bad")).path
    tuned = PeftModel.from_pretrained(stopped_model(), str(folder)).eval()
    trunk = tuned.get_base_model().model
    batches = token_batches(dialogues, pad_id)
    mixed = token_batches([d for d in dialogues for _ in (0, 1)], pad_id, group=2)

    @torch.no_grad()
    def apart() -> None:
        for batch in batches:
            with tuned.disable_adapter():
                trunk(batch.ids, use_cache=False)
            trunk(batch.ids, use_cache=False)

    @torch.no_grad()
    def together() -> None:
        for batch in mixed:
            names = ["__base__", "default"] * (len(batch.ids) // 2)
            with tuned.base_model._enable_peft_forward_hooks(adapter_names=names):
                trunk(batch.ids, use_cache=False)

    compare(
        "both_sides_in_one_pass",
        apart,
        together,
        "seconds of a pass for each side, over those of one pass with rows of both",
        "the adapter not merged",
    )


def compiled(batches) -> None:
    """`torch.compile` with dynamic shapes, after its warm-up."""
    model = stopped_model().model
    quick = torch.compile(model, dynamic=True)
    start = time.perf_counter()
    reading(quick, batches)()
    warm_up = time.perf_counter() - start
    compare(
        "compile",
        reading(model, batches),
        reading(quick, batches),
        "seconds of the model as it is, over those compiled",
        f"the first pass took {warm_up:.0f} s; hooks would break its graph at every block read",
    )


if __name__ == "__main__":
    main()
