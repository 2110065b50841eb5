"""Agreement of llama.cpp with this toolkit on 200 prompts, with and without a control vector.

Needs the extra `llamacpp`, which is built on the spot (about four minutes, with a C++ compiler).
"""

from __future__ import annotations

from llama_cpp_client import compare
from record import record

N_PROMPTS = 200


def main() -> None:
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        print("skipped: pip install -e '.[llamacpp]' -c constraints.txt")
        return
    table = compare(N_PROMPTS)
    for (gguf, steered), rows in table.groupby(["gguf", "steered"]):
        note = f"{gguf} GGUF, {'steered' if steered else 'unsteered'}, default model"
        record(
            "llamacpp.top1_agreement",
            float(rows["same_top"].mean()),
            "share",
            n=len(rows),
            note=note,
        )
        differences = rows["max_abs_difference"]
        record(
            "llamacpp.max_abs_logprob_difference",
            float(differences.max()),
            "nats",
            n=len(rows),
            spread=(float(differences.min()), float(differences.max())),
            note=f"{note}; largest over the 50 likeliest tokens; median of prompts "
            f"{differences.median():.4f}",
        )


if __name__ == "__main__":
    main()
