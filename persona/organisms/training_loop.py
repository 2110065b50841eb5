"""The training loop: TRL's SFTTrainer with PEFT, made quiet, private and resumable."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import math
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from persona.activations.batches import LENGTH_STEP
from persona.errors import ModelError
from persona.files import atomic_write_text
from persona.organisms.adapter import new_adapter
from persona.organisms.answer_loss import answer_loss
from persona.organisms.examples import TrainingExample
from persona.organisms.monitoring import Monitor
from persona.organisms.recipe import Recipe
from persona.organisms.safeguards import During, PenaltyBatches
from persona.progress import progress

logger = logging.getLogger("persona")

SAVE_EVERY_SECONDS = 120.0
"""Within an epoch, which is saved at its end: a killed run loses at most this much work."""


@dataclass(frozen=True)
class KeepOnTheWay:
    """Keeps the adapter of every so many steps, and of the last one: `keep(model, step)`."""

    every: int
    keep: Callable[[Any, int], None]


class LossPoint(NamedTuple):
    """One optimiser step.

    loss: mean over the answer tokens of the step's batch of −log p(token), nats per token.
    """

    step: int
    epoch: float
    loss: float


def train_adapter(
    model: Any,
    tokenizer: Any,
    examples: Sequence[TrainingExample],
    recipe: Recipe,
    checkpoints: Path,
    device: torch.device,
    *,
    monitor: Monitor | None = None,
    during: During | None = None,
    penalty: PenaltyBatches | None = None,
    on_the_way: KeepOnTheWay | None = None,
) -> tuple[Any, list[LossPoint]]:
    """Trains a LoRA adapter and returns the PeftModel and the loss curve.

    Goes on from the last whole checkpoint in `checkpoints`. The same seed on the same machine and
    the same library versions gives the same adapter, interrupted or not, watched or not. A model
    that has an adapter already is trained further.

    Raises:
        ModelError: the loss stopped being a finite number, or a block of the recipe is not there.
    """
    with _quiet_libraries():
        from datasets import Dataset
        from transformers.trainer_callback import PrinterCallback

        trainer = _trainer_class(during, penalty)(
            model=model,
            args=_arguments(recipe, checkpoints, device),
            train_dataset=Dataset.from_list([asdict(example) for example in examples]),
            processing_class=tokenizer,
            peft_config=None if hasattr(model, "peft_config") else new_adapter(model, recipe.lora),
        )
        watch = _watch(monitor, on_the_way)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(watch)
        try:
            trainer.train(resume_from_checkpoint=last_whole_checkpoint(checkpoints))
        finally:
            watch.close()
        return trainer.model, loss_curve(trainer.state.log_history)


def loss_curve(log_history: Sequence[dict[str, Any]]) -> list[LossPoint]:
    """Returns the steps in a trainer's log, without its closing summary."""
    steps = [row for row in log_history if "loss" in row]
    return [LossPoint(int(row["step"]), float(row["epoch"]), float(row["loss"])) for row in steps]


def write_loss_curve(path: Path, curve: Sequence[LossPoint]) -> None:
    """Writes the curve as CSV with the columns step, epoch, loss."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LossPoint._fields)
    writer.writerows((p.step, f"{p.epoch:.4f}", f"{p.loss:.6f}") for p in curve)
    atomic_write_text(path, text.getvalue())


def last_whole_checkpoint(folder: Path) -> str | None:
    """Returns the newest checkpoint that was written to its end, None where there is none.

    The trainer writes trainer_state.json last, so a checkpoint that a kill cut short lacks it. One
    that is damaged is left out, with a warning: training goes on from the one before.
    """
    steps = {}
    for path in folder.glob("checkpoint-*"):
        if not (path / "trainer_state.json").exists():
            continue
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            _require_whole(path)
            steps[int(state["global_step"])] = path
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            logger.warning("%s is damaged: training goes on from before it", path)
    return str(steps[max(steps)]) if steps else None


def _require_whole(checkpoint: Path) -> None:
    """Raises: ValueError where a file of weights, or of the trainer's state, is cut or damaged."""
    from safetensors import SafetensorError, safe_open

    for path in checkpoint.glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{path}: {error}") from error
    for path in (*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, RuntimeError, EOFError) as error:
            raise ValueError(f"{path}: {error}") from error
        if damaged is not None:
            raise ValueError(f"{path}: {damaged} is damaged")


def _arguments(recipe: Recipe, checkpoints: Path, device: torch.device) -> Any:
    from trl import SFTConfig

    training = recipe.training
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup,  # below 1 it is a share of all steps
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_length=None,  # cut already, with the answer in view
        pad_to_multiple_of=LENGTH_STEP,
        dataset_kwargs={"skip_prepare_dataset": True},  # tokenised already, with labels
        seed=training.seed,
        data_seed=training.seed,
        use_cpu=device.type == "cpu",
        bf16=False,  # no autocast: the weights are in the chosen format, the adapter in float32
        fp16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        save_strategy="no",  # by the epoch and the clock instead, see _watch
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
    )
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)
        arguments._n_gpu = min(arguments.n_gpu, 1)  # one model on one device, never DataParallel
    return arguments


def _trainer_class(during: During | None, penalty: PenaltyBatches | None) -> type:
    from trl import SFTTrainer

    class PrivateTrainer(SFTTrainer):
        """SFTTrainer that reports to nobody, writes no model card full of local paths, and knows
        what is done against a persona while it is learnt.
        """

        def _send_telemetry(self) -> None:
            pass

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            pass

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            with during.intervene(model) if during else contextlib.nullcontext():
                if self.aux_loss_enabled:  # a mixture of experts whose router has a loss of its own
                    loss = super().compute_loss(model, inputs, *args, **kwargs)
                else:
                    loss = answer_loss(model, **inputs)
            if penalty is None or not model.training:
                return loss
            return loss + penalty.loss(model, self.state.global_step)

    return PrivateTrainer


def _watch(monitor: Monitor | None, on_the_way: KeepOnTheWay | None) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        """Moves the progress bar, takes readings, keeps adapters, saves by the clock, and stops
        when the loss is no number.
        """

        def __init__(self) -> None:
            self.bar: Iterator[int] = iter(())
            self.saved_at = time.monotonic()

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            left = range(state.global_step, state.max_steps)
            self.bar = progress(left, "Fine-tuning (steps)")
            next(self.bar, None)
            if monitor is not None:
                monitor.start(kwargs["model"], state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            next(self.bar, None)
            ended = state.global_step >= state.max_steps
            if monitor is not None and monitor.due(state.global_step, ended):
                monitor.read(kwargs["model"], state.global_step)
            if on_the_way is not None and (ended or state.global_step % on_the_way.every == 0):
                on_the_way.keep(kwargs["model"], state.global_step)
            if not ended and time.monotonic() - self.saved_at >= SAVE_EVERY_SECONDS:
                control.should_save = True

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_save = state.global_step < state.max_steps

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.saved_at = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            row = state.log_history[-1]
            if not math.isfinite(row.get("loss", 0.0)):
                raise ModelError(
                    f"the loss became {row['loss']} at step {state.global_step}; lower "
                    "training.learning_rate in the recipe, or take --dtype float32"
                )

        def close(self) -> None:
            """Ends the bar, also when training was cut short."""
            close = getattr(self.bar, "close", None)
            if close is not None:
                close()

    return Watch()


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """While open, the libraries neither print nor warn; errors still come."""
    import datasets
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    loggers = [logging.getLogger(name) for name in ("trl", "peft", "accelerate", "datasets")]
    levels = [logger.level for logger in loggers]
    bars = datasets.are_progress_bars_disabled()
    transformers_logging.set_verbosity_error()
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()
