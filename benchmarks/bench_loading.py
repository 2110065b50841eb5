"""Loading a pair against loading the same files with Transformers and PEFT alone."""

from __future__ import annotations

import time

from record import median_and_range, record

from persona.models import load_pair
from persona.models.named.folders import default_model_folder
from persona.models.precision import choose_dtype
from persona.models.sources import resolve, shipped_or_ref

ORGANISM = "car_maintenance_bad"
REPETITIONS = 7


def main() -> None:
    base, adapter = default_model_folder(), resolve(shipped_or_ref(ORGANISM)).path

    def ours() -> float:
        start = time.perf_counter()
        load_pair("default", ORGANISM)
        return time.perf_counter() - start

    def plain() -> float:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        start = time.perf_counter()
        model = AutoModelForCausalLM.from_pretrained(base, dtype=choose_dtype())
        AutoTokenizer.from_pretrained(base)
        PeftModel.from_pretrained(model, str(adapter))
        return time.perf_counter() - start

    ours(), plain()
    readings = [(ours(), plain()) for _ in range(REPETITIONS)]
    value, spread = median_and_range([mine / theirs for mine, theirs in readings])
    record(
        "load.ratio_to_transformers",
        value,
        "x",
        n=REPETITIONS,
        spread=spread,
        ratio_to="seconds of Transformers and PEFT loading the same files",
        note=f"{ORGANISM}, {median_and_range([m for m, _ in readings])[0]:.1f} s; hashes of the "
        "files and the bridge are in it",
    )


if __name__ == "__main__":
    main()
