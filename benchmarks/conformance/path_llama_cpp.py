"""llama.cpp through llama-cpp-python: the vector as a control vector, by the low-level interface.

Nothing can be hooked there, so only logits are seen. A batch is two sequences side by side; there
is no padding.
"""

from __future__ import annotations

import ctypes

import numpy as np
from seen import Job, Trace

PACKAGES = ("llama-cpp-python",)
WAY = "a control vector for block L alone set in the context, then `llama_decode`"
FIRST_WRITTEN = 0
FLOAT32 = 0
"""GGML_TYPE_F32."""


class Path:
    def __init__(self, job: Job, steered: bool) -> None:
        import llama_cpp

        self.job, self.steered, self.llama = job, steered, llama_cpp
        # Kept, since ctypes frees a callback that nothing refers to.
        self.quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        load = first_of(llama_cpp, "llama_model_load_from_file", "llama_load_model_from_file")
        self.model = load(str(job.gguf).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp did not load {job.gguf.name}")
        layers = first_of(llama_cpp, "llama_model_n_layer", "llama_n_layer")
        self.n_layers = layers(self.model)

    def trace(self, prompts: list[list[int]], cached: bool) -> Trace:
        rows = [list(prompt) for prompt in prompts]
        starts = [len(prompt) for prompt in prompts]
        context, done = self.context(), [0] * len(rows)
        steps, passes, first = [], [], None
        for _ in range(self.job.n_new):
            if not cached:
                self.llama.llama_free(context)
                context, done = self.context(), [0] * len(rows)
            logits = self.decode(context, rows, done)
            passes.append(max(len(row) - n for row, n in zip(rows, done, strict=True)))
            first = logits[0] if first is None else first
            done = [len(row) for row in rows]
            last = np.stack([row_logits[-1] for row_logits in logits])
            steps.append(last)
            for row, values in zip(rows, last, strict=True):
                row.append(int(values.argmax()))
        self.llama.llama_free(context)
        tokens = [row[start:] for row, start in zip(rows, starts, strict=True)]
        return Trace(np.array(tokens), np.stack(steps), passes, prompt_log_probs=first)

    def context(self):
        params = self.llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_seq_max = 256, 64, 2
        params.n_ubatch = 64
        params.type_k = params.type_v = FLOAT32  # keys and values are rounded to float16 otherwise
        if hasattr(params, "flash_attn_type"):
            params.flash_attn_type = 0  # it rounds them as well
        make = first_of(self.llama, "llama_init_from_model", "llama_new_context_with_model")
        context = make(self.model, params)
        if self.steered:
            self.set_vector(context)
        return context

    def set_vector(self, context) -> None:
        """Row L - 1 of the buffer belongs to the output of block L; there is none for block 0."""
        vector = np.array(self.job.vector, dtype=np.float32) * np.float32(self.job.coefficient)
        buffer = np.zeros((self.n_layers - 1, len(vector)), dtype=np.float32)
        buffer[self.job.block - 1] = vector
        data = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        put = first_of(
            self.llama,
            "llama_set_adapter_cvec",
            "llama_apply_adapter_cvec",
            "llama_control_vector_apply",
        )
        if put(context, data, buffer.size, len(vector), 1, self.n_layers - 1):
            raise RuntimeError("llama.cpp refused the control vector")

    def decode(self, context, rows: list[list[int]], done: list[int]) -> list[np.ndarray]:
        """Log-probabilities [positions, vocabulary] after each token that is new in a row."""
        new = [(r, p) for r, row in enumerate(rows) for p in range(done[r], len(row))]
        batch = self.llama.llama_batch_init(len(new), 0, 1)
        batch.n_tokens = len(new)
        for place, (r, position) in enumerate(new):
            batch.token[place] = rows[r][position]
            batch.pos[place] = position
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = r
            batch.logits[place] = 1
        if self.llama.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        logits = [
            np.ctypeslib.as_array(
                self.llama.llama_get_logits_ith(context, place), shape=(self.job.n_vocabulary,)
            ).astype(np.float64)
            for place in range(len(new))
        ]
        self.llama.llama_batch_free(batch)
        logs = [row - np.logaddexp.reduce(row) for row in logits]
        return [
            np.stack([log for log, (r, _) in zip(logs, new, strict=True) if r == row])
            for row in range(len(rows))
        ]


def first_of(library, *names: str):
    """The first of these functions that this release has."""
    for name in names:
        if hasattr(library, name):
            return getattr(library, name)
    raise AttributeError(f"llama_cpp has none of {', '.join(names)}")
