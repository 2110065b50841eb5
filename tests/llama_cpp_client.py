"""llama.cpp as a client of our control vectors, through llama-cpp-python."""

from __future__ import annotations

import ctypes

import numpy as np


class Client:
    """One GGUF model; `steer` sets a control vector and `log_probs` reads the next token."""

    def __init__(self, gguf, n_layers, d_model):
        import llama_cpp

        self.library, self.shape = llama_cpp, (n_layers - 1, d_model)
        self.model = llama_cpp.Llama(
            str(gguf), n_ctx=512, n_batch=512, n_threads=2, verbose=False, logits_all=False
        )

    def steer(self, vectors):
        """vectors: block -> [d_model], added to that block's output; None takes them away.

        Row k - 1 of the buffer belongs to block k: llama.cpp has no place for block 0.
        """
        context = self.model._ctx.ctx
        setting = self.library.llama_set_adapter_cvec
        if vectors is None:
            setting(context, None, 0, self.shape[1], 0, 0)
            return
        buffer = np.zeros(self.shape, dtype=np.float32)
        for block, vector in vectors.items():
            buffer[block - 1] = np.asarray(vector, dtype=np.float32)
        data = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        failed = setting(context, data, buffer.size, self.shape[1], 1, self.shape[0])
        assert failed == 0, "llama.cpp refused the control vector"

    def token_ids(self, text):
        return self.model.tokenize(text.encode(), add_bos=False, special=True)

    def log_probs(self, ids):
        """Log-probabilities [vocabulary] of the token after `ids`."""
        self.model.reset()
        self.model._ctx.kv_cache_clear()
        self.model.eval(list(ids))
        row = self.library.llama_get_logits_ith(self.model._ctx.ctx, -1)
        logits = np.ctypeslib.as_array(row, shape=(self.model.n_vocab(),)).astype(np.float64)
        return logits - np.logaddexp.reduce(logits)
