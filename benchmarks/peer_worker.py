"""Runs in the environment of the other libraries: seconds of one extraction pass, on demand.

Reads the name of a library a line and answers with the seconds its own extraction took over the
same texts; started by `bench_peers.py`. Imports nothing of this project.
"""

import json
import sys
import time
from pathlib import Path


def main() -> None:
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    # The tokenizer's class in the folder is of a newer Transformers than these libraries take.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(Path(job["model"]) / "tokenizer.json"), pad_token=job["pad_token"]
    )
    model = AutoModelForCausalLM.from_pretrained(job["model"], torch_dtype=torch.float32).eval()
    texts, layer = job["texts"], job["layer"]

    def repeng() -> None:
        from repeng.extract import batched_get_hiddens

        batched_get_hiddens(model, tokenizer, texts, [layer], batch_size=32)

    def steering_vectors() -> None:
        from steering_vectors import train_steering_vector

        samples = list(zip(texts[::2], texts[1::2], strict=True))
        train_steering_vector(model, tokenizer, samples, layers=[layer])

    ways = {"repeng": repeng, "steering_vectors": steering_vectors}
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        ways[line.strip()]()
        print(f"seconds {time.perf_counter() - start}", flush=True)


if __name__ == "__main__":
    main()
