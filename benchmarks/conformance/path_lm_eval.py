"""lm-eval's model type `steered`, with a steering file of one vector."""

import tempfile
from pathlib import Path as FilePath

import torch
from seen import TorchPath, block_name, load, tokenizer

PACKAGES = ("lm-eval", "transformers")
WAY = '`SteeredModel(pretrained, steer_path="vector.pt")`, action "add", then `_model_generate`'
FIRST_WRITTEN = 0


class Path(TorchPath):
    def set_up(self) -> None:
        from lm_eval.models.hf_steered import SteeredModel

        # Hook points are named from the base model, without its own name.
        name = block_name(self.job).split(".", 1)[1]
        coefficient = self.job.coefficient if self.steered else 0.0
        vector = dict(
            action="add", steering_vector=self.vector, steering_coefficient=coefficient, bias=None
        )
        with tempfile.TemporaryDirectory() as folder:
            file = str(FilePath(folder) / "vector.pt")
            torch.save({name: vector}, file)
            self.lm = SteeredModel(
                pretrained=load(self.job),
                tokenizer=tokenizer(self.job),
                steer_path=file,
                device="cpu",
                backend="causal",
            )
        self.model = self.lm.model

    def generate(self, ids, mask, cached: bool):
        # It always asks `generate` of Transformers for a cache; here the model answers otherwise.
        generate = type(self.model).generate
        self.model.generate = lambda *args, **kwargs: generate(
            self.model, *args, **kwargs | {"use_cache": cached}
        )
        whole = self.lm._model_generate(
            ids,
            max_length=ids.shape[1] + self.job.n_new,
            stop=["\0never\0"],
            attention_mask=mask,
            do_sample=False,
        )
        return whole[:, ids.shape[1] :]
