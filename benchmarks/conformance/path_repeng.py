"""repeng: a ControlModel around the model, with a ControlVector set at one layer."""

from seen import TorchPath, hf_generate, load

PACKAGES = ("repeng", "transformers")
WAY = "`ControlModel(model, [L]).set_control(ControlVector(...), coefficient)`, then `generate`"
FIRST_WRITTEN = 0


class Path(TorchPath):
    def set_up(self) -> None:
        from repeng import ControlModel, ControlVector

        self.model = load(self.job)
        self.control = ControlModel(self.model, [self.job.block])
        if self.steered:
            directions = {self.job.block: self.vector.numpy()}
            vector = ControlVector(model_type=self.job.family, directions=directions)
            self.control.set_control(vector, self.job.coefficient)

    def generate(self, ids, mask, cached: bool):
        return hf_generate(self.control, ids, mask, self.job, cached)
