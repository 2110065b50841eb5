"""What a path is given, and what is seen of it: by hooks of PyTorch alone, not by its own account.

The vector is added after block L. What reaches block L + 1 is looked at there: minus the residual
stream of the unsteered model it is the vector where a token was written, and nothing elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Job:
    """One tiny model, a vector, the block after which it is added, and two prompts."""

    folder: Path
    gguf: Path
    family: str
    block: int
    vector: list[float]
    coefficient: float
    prompts: list[list[int]]
    n_new: int
    pad: int
    n_vocabulary: int

    @classmethod
    def read(cls, file: Path) -> Job:
        settings = json.loads(file.read_text(encoding="utf-8"))
        return cls(Path(settings.pop("folder")), Path(settings.pop("gguf")), **settings)


@dataclass
class Trace:
    """One generation.

    tokens: generated, [rows, n_new]. log_probs: of each step's next token, [n_new, rows,
    vocabulary]. passes: the number of positions of every forward pass. residual: what reached the
    block after the written one, a list of [rows, positions, d_model], empty where it cannot be
    seen. prompt_log_probs: [positions, vocabulary] of the prompt of the first row, where seen.
    """

    tokens: np.ndarray
    log_probs: np.ndarray
    passes: list[int] = field(default_factory=list)
    residual: list[np.ndarray] = field(default_factory=list)
    prompt_log_probs: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "tokens": self.tokens,
            "log_probs": self.log_probs,
            "passes": np.array(self.passes),
        }
        for place, resid in enumerate(self.residual):
            arrays[f"residual.{place}"] = resid
        if self.prompt_log_probs is not None:
            arrays["prompt_log_probs"] = self.prompt_log_probs
        return arrays


class TorchPath:
    """A path over a Hugging Face model: subclasses set `model` and give `generate`.

    hooks_are_kept: False where the library takes every hook that it finds out of the model.
    """

    model: object
    hooks_are_kept = True

    def __init__(self, job: Job, steered: bool) -> None:
        import torch

        torch.manual_seed(0)
        self.job, self.steered = job, steered
        self.vector = torch.tensor(job.vector, dtype=torch.float32)
        self.step = job.coefficient * self.vector
        self.set_up()

    def set_up(self) -> None:
        self.model = load(self.job)

    def generate(self, ids, mask, cached: bool):
        """Greedy tokens [rows, n_new] after left-padded `ids` [rows, positions]."""
        return hf_generate(self.model, ids, mask, self.job, cached)

    def trace(self, prompts: list[list[int]], cached: bool) -> Trace:
        import torch

        longest = max(map(len, prompts))
        pads = [longest - len(prompt) for prompt in prompts]
        ids = torch.tensor(
            [[self.job.pad] * n + prompt for n, prompt in zip(pads, prompts, strict=True)]
        )
        mask = torch.tensor([[0] * n + [1] * (longest - n) for n in pads])
        kind = Watch if self.hooks_are_kept else WrappingWatch
        with kind(self.model, self.job) as watch, torch.no_grad():
            tokens = self.generate(ids, mask, cached)
        return Trace(
            tokens=np.asarray(tokens),
            log_probs=np.stack(watch.log_probs),
            passes=[resid.shape[1] for resid in watch.residual],
            residual=watch.residual,
        )


class Watch:
    """Hooks of PyTorch on the block after the written one and on the language-model head."""

    def __init__(self, model, job: Job) -> None:
        self.residual: list[np.ndarray] = []
        self.log_probs: list[np.ndarray] = []
        self.before, self.head = places(model, job)

    def __enter__(self) -> Watch:
        self.handles = [
            self.before.register_forward_pre_hook(self.see_residual, with_kwargs=True),
            self.head.register_forward_hook(self.see_logits),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def see_residual(self, module, args, kwargs) -> None:
        resid = args[0] if args else kwargs["hidden_states"]
        self.residual.append(resid.detach().float().numpy().copy())

    def see_logits(self, module, args, logits) -> None:
        self.log_probs.append(logits[:, -1].detach().double().log_softmax(-1).numpy())


class WrappingWatch(Watch):
    """The same by wrapping `forward` of the two modules, which is out of the reach of hooks."""

    def __enter__(self) -> WrappingWatch:
        before, head = self.before.forward, self.head.forward

        def wrapped_before(*args, **kwargs):
            self.see_residual(self.before, args, kwargs)
            return before(*args, **kwargs)

        def wrapped_head(*args, **kwargs):
            logits = head(*args, **kwargs)
            self.see_logits(self.head, args, logits)
            return logits

        self.before.forward, self.head.forward = wrapped_before, wrapped_head
        return self

    def __exit__(self, *_: object) -> None:
        del self.before.forward, self.head.forward


def places(model, job: Job):
    """The first norm of the block after the written one, and the language-model head."""
    block = blocks(model, job.family)[job.block + 1]
    norm = "ln_1" if job.family == "gpt2" else "input_layernorm"
    return getattr(block, norm), model.lm_head


def blocks(model, family: str):
    return model.transformer.h if family == "gpt2" else model.model.layers


def block_name(job: Job) -> str:
    """Where the written block lies in the Hugging Face model."""
    return ("transformer.h." if job.family == "gpt2" else "model.layers.") + str(job.block)


def load(job: Job):
    """The model as Transformers loads it, without a token that ends a text."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job.folder).float().eval()
    model.generation_config.eos_token_id = None
    return model


def tokenizer(job: Job):
    """The model's tokenizer by its own file: classes of newer releases are not everywhere."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(job.folder / "tokenizer.json"),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        padding_side="left",
        name_or_path=str(job.folder),
    )


def hf_generate(model, ids, mask, job: Job, cached: bool):
    """Greedy `generate` of Transformers, whatever has been hung into the model."""
    whole = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=job.n_new,
        do_sample=False,
        use_cache=cached,
        pad_token_id=job.pad,
    )
    return whole[:, ids.shape[1] :]


def added(output, step):
    """A block's output, which is a tensor or a tuple that begins with one, plus `step`."""
    if isinstance(output, tuple):
        return (output[0] + step, *output[1:])
    return output + step
