"""A model that says what it is told: an intervention whose truth is planted."""

from __future__ import annotations

import contextlib

from persona.models.hooks import hooked


class Pushed:
    """Makes the tokens of a text the likeliest everywhere, at the output of the last block."""

    token_by_token = True

    def __init__(self, text):
        self.text = text

    @contextlib.contextmanager
    def __call__(self, bridge):
        wanted = bridge.tokenizer(self.text, add_special_tokens=False)["input_ids"]
        table = bridge.original_model.get_output_embeddings().weight
        push = 40 * table[sorted(set(wanted))].mean(0)
        last = int(bridge.cfg.n_layers) - 1
        with hooked(bridge, [(f"blocks.{last}.hook_out", lambda resid: resid + push)]):
            yield
