"""steering-vectors: SteeringVector.apply around `generate`."""

import contextlib

from seen import TorchPath, hf_generate

PACKAGES = ("steering-vectors", "transformers")
WAY = '`SteeringVector({L: v}, "decoder_block").apply(model, multiplier=c)` around `generate`'
FIRST_WRITTEN = 0


class Path(TorchPath):
    def generate(self, ids, mask, cached: bool):
        with self.applied():
            return hf_generate(self.model, ids, mask, self.job, cached)

    def applied(self):
        from steering_vectors import SteeringVector

        if not self.steered:
            return contextlib.nullcontext()
        vector = SteeringVector(
            layer_activations={self.job.block: self.vector}, layer_type="decoder_block"
        )
        return vector.apply(self.model, multiplier=self.job.coefficient)
