"""This project's `steer` on a plain Hugging Face model."""

import contextlib

from seen import TorchPath, hf_generate

PACKAGES = ("transformers",)
WAY = "`with steer(model, edits, first_token=True)` around `generate`"
FIRST_WRITTEN = 0


class Path(TorchPath):
    def generate(self, ids, mask, cached: bool):
        with self.steering():
            return hf_generate(self.model, ids, mask, self.job, cached)

    def steering(self):
        from steering.edits import edits_at, steer

        if not self.steered:
            return contextlib.nullcontext()
        edits = edits_at(
            self.job.block,
            lambda resid: resid + self.step,
            len(self.step),
            "the vector",
        )
        return steer(self.model, edits, first_token=True)
