"""rotalabs-steer: an ActivationInjector around `generate`."""

import contextlib

from seen import TorchPath, hf_generate

PACKAGES = ("rotalabs-steer", "transformers")
WAY = "`ActivationInjector(model, [SteeringVector(...)], strength=c)` around `generate`"
FIRST_WRITTEN = 0


class Path(TorchPath):
    def generate(self, ids, mask, cached: bool):
        with self.injected():
            return hf_generate(self.model, ids, mask, self.job, cached)

    def injected(self):
        from rotalabs_steer.core.injection import ActivationInjector
        from rotalabs_steer.core.vectors import SteeringVector

        if not self.steered:
            return contextlib.nullcontext()
        vector = SteeringVector("trait", self.job.block, self.vector, self.job.family)
        return ActivationInjector(self.model, [vector], strength=self.job.coefficient)
