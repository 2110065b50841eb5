"""llama.cpp as a client of our control vectors: does it compute what we compute?

The default model's GGUF is loaded by llama.cpp, as it ships (Q4_1) and with its weights dequantised
to float32. An exported control vector is set there, the same directions are added here, and the
log-probabilities of the next token of chat prompts are compared.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from gguf_float import write_float32_gguf

from persona.data import load_pairs
from persona.directions.exchange import VectorSet, read_control_vector, write_control_vector
from persona.models import ModelPair, load_pair
from persona.models.hooks import model_device
from persona.models.named.fetching import fetch_gguf
from persona.models.named.table import DEFAULT
from persona.models.precision import Placement
from steering import add, steer

BLOCKS = range(10, 21)
SHARE = 0.1
"""Length of the vector at each block, as a share of the mean length of the residual there."""


class Client:
    """One GGUF model in llama.cpp."""

    def __init__(self, gguf: Path, n_layers: int, d_model: int) -> None:
        import llama_cpp

        self.llama, self.shape = llama_cpp, (n_layers - 1, d_model)
        self.model = llama_cpp.Llama(
            str(gguf), n_ctx=512, n_batch=512, n_threads=2, verbose=False, logits_all=False
        )

    def steer(self, vectors: Mapping[int, torch.Tensor] | None) -> None:
        """Add a vector to the output of each block from now on; None takes all away.

        Row k - 1 of llama.cpp's buffer belongs to block k; block 0 has no place there.
        """
        context, (rows, d_model) = self.model._ctx.ctx, self.shape
        if vectors is None:
            self.llama.llama_set_adapter_cvec(context, None, 0, d_model, 0, 0)
            return
        buffer = np.zeros(self.shape, dtype=np.float32)
        for block, vector in vectors.items():
            buffer[block - 1] = vector.numpy()
        data = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        if self.llama.llama_set_adapter_cvec(context, data, buffer.size, d_model, 1, rows):
            raise RuntimeError("llama.cpp refused the control vector")

    def log_probs(self, ids: Sequence[int]) -> np.ndarray:
        """Log-probabilities [vocabulary] of the token after `ids`."""
        self.model.reset()
        self.model._ctx.kv_cache_clear()
        self.model.eval(list(ids))
        row = self.llama.llama_get_logits_ith(self.model._ctx.ctx, -1)
        logits = np.ctypeslib.as_array(row, shape=(self.model.n_vocab(),)).astype(np.float64)
        return logits - np.logaddexp.reduce(logits)


def compare(n_prompts: int, kinds: Sequence[str] = ("float32", "Q4_1")) -> pd.DataFrame:
    """One row per GGUF kind, prompt, and with or without the vector.

    Columns: gguf, steered, prompt, same_ids (the two tokenisers agree), max_abs_difference (nats,
    over the 50 tokens that are likeliest here), same_top (the likeliest token agrees).
    """
    pair = load_pair("default", "car_maintenance_bad", placement=Placement.of("float32", "cpu"))
    prompts = [q.prompt_dialogue for q in load_pairs()[:: max(1, 500 // n_prompts)]][:n_prompts]
    texts = [pair.chat.render(prompt, open_answer=True) for prompt in prompts]
    ids = [list(prompt.ids) for prompt in pair.chat.encode_all(prompts)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        vectors = exported_vectors(pair, ids, work / "vector.gguf")
        ours = {False: our_log_probs(pair, ids), True: our_log_probs(pair, ids, vectors)}
        shipped = fetch_gguf(DEFAULT, work, work)
        for kind in kinds:
            gguf = shipped if kind == "Q4_1" else write_float32_gguf(shipped, work / "f32.gguf")
            client = Client(gguf, pair.n_layers, pair.d_model)
            for steered in (False, True):
                client.steer(vectors if steered else None)
                for place, (prompt, text) in enumerate(zip(ids, texts, strict=True)):
                    here, there = ours[steered][place].numpy(), client.log_probs(prompt)
                    top = np.argsort(here)[-50:]
                    theirs = client.model.tokenize(text.encode(), add_bos=False, special=True)
                    rows.append(
                        {
                            "gguf": kind,
                            "steered": steered,
                            "prompt": place,
                            "same_ids": theirs == prompt,
                            "max_abs_difference": float(np.abs(here - there)[top].max()),
                            "same_top": bool(here.argmax() == there.argmax()),
                        }
                    )
    return pd.DataFrame(rows)


def exported_vectors(
    pair: ModelPair, ids: Sequence[Sequence[int]], path: Path
) -> Mapping[int, torch.Tensor]:
    """Random vectors, a tenth of the residual long, written as a control vector and read back."""
    from persona.activations import collect_rows
    from persona.models.chat.chat_format import TokenizedDialogue

    generator = torch.Generator().manual_seed(0)
    few = [TokenizedDialogue(tuple(row), (len(row), len(row)), str(i)) for i, row in enumerate(ids)]
    with pair.active("aligned") as bridge:
        rows = collect_rows(bridge, few[:4], list(BLOCKS), token_set="last_prompt")
    made = {}
    for place, block in enumerate(BLOCKS):
        vector = torch.randn(pair.d_model, generator=generator)
        made[block] = vector / vector.norm() * rows[:, place].norm(dim=-1).mean() * SHARE
    write_control_vector(VectorSet(made, "resid_post"), path, model_hint="llama")
    return read_control_vector(path).vectors


@torch.no_grad()
def our_log_probs(
    pair: ModelPair,
    ids: Sequence[Sequence[int]],
    vectors: Mapping[int, torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """Log-probabilities of the next token of each prompt in the aligned model."""
    found = []
    with pair.active("aligned") as bridge:
        for prompt in ids:
            tokens = torch.tensor([list(prompt)], device=model_device(bridge))
            if vectors is None:
                logits = bridge(tokens, use_cache=False)
            else:
                edits = [
                    edit
                    for block, vector in vectors.items()
                    for edit in add(_direction(pair, block, vector))
                ]
                # llama.cpp adds the vector at every token, the first one too.
                with steer(bridge, edits, first_token=True):
                    logits = bridge(tokens, use_cache=False)
            found.append(logits[0, -1].double().log_softmax(-1).cpu())
    return found


def _direction(pair: ModelPair, block: int, vector: torch.Tensor):
    from persona.directions import Direction

    return Direction(vector, pair.space(block), "exported")
