"""One autoencoder from a buffer of activations, with the SAELens trainer; killed, it goes on.

Shapes: N tokens of a batch, F latents, D d_model.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.errors import DataError
from persona.files import atomic_directory
from persona.progress import progress
from persona.sae.buffer import ActivationBuffer

logger = logging.getLogger("persona")

Architecture = Literal["batchtopk", "topk", "jumprelu"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
CHECKPOINT_SECONDS = 60.0
THRESHOLD_BATCHES = 20
MIN_ROWS_PER_LATENT = 4


@dataclass(frozen=True)
class TrainingConfig:
    """What decides an autoencoder beside its activations.

    width: number of latents. k: latents active on a token: exactly (topk), on average
        (batchtopk), or the target of the L0 penalty (jumprelu).
    epochs: passes over the activations. learning_rate: of Adam, after a warm-up over the first
        twentieth of the steps and before a linear decay over the last third.
    """

    width: int
    k: int = 32
    architecture: Architecture = "batchtopk"
    epochs: int = 4
    batch_size: int = 1024
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise DataError(
                f"an autoencoder is one of {', '.join(ARCHITECTURES)}; got {self.architecture!r}"
            )
        if not 1 <= self.k < self.width:
            raise DataError(f"k must be from 1 to width - 1 = {self.width - 1}; got {self.k}")
        if self.epochs < 1 or self.batch_size < 1 or not 0 < self.learning_rate < 1:
            raise DataError(
                "epochs and batch size must be at least 1 and the learning rate between 0 and 1; "
                f"got {self.epochs}, {self.batch_size}, {self.learning_rate}"
            )


@dataclass(frozen=True)
class Schedule:
    """Which rows each step sees: every epoch its own order, the last partial batch left out."""

    rows: NDArray[np.int64]
    batch_size: int
    epochs: int
    seed: int

    @classmethod
    def of(cls, rows: NDArray[np.int64], config: TrainingConfig) -> Schedule:
        """Raises: DataError for too few rows."""
        needed = MIN_ROWS_PER_LATENT * config.width
        if len(rows) < needed:
            raise DataError(
                f"{config.width} latents need at least {needed} tokens (one in each model counts "
                f"two); there are {len(rows)}. Give more text with --data, or a smaller --width"
            )
        return cls(rows, min(config.batch_size, len(rows)), config.epochs, config.seed)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.rows) // self.batch_size

    @property
    def n_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def batches(self, source: NDArray[np.float16], first: int = 0) -> Iterator[Tensor]:
        """Activations [N D], float32, from step `first` on."""
        epoch, order = -1, self.rows
        for step in range(first, self.n_steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
            at = step % self.steps_per_epoch * self.batch_size
            # Sorted within the batch, for the disk's sake: the order there means nothing.
            yield torch.from_numpy(source[np.sort(order[at : at + self.batch_size])]).float()


def train_autoencoder(
    buffer: ActivationBuffer,
    schedule: Schedule,
    config: TrainingConfig,
    metadata: dict[str, Any],
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    description: str = "Training",
) -> Any:
    """A trained sae_lens TrainingSAE, its weights in the units of the residual stream.

    The decoder bias begins at the mean activation, and activations are scaled so that their mean
    distance from it is sqrt(d_model); both are folded into the weights at the end.
    Every minute the state goes to `folder`, from where a stopped run goes on.

    Source: Gao et al. 2024 (TopK), Bussmann et al. 2024 (BatchTopK and its threshold),
    Rajamanoharan et al. 2024 (JumpReLU); Bricken et al. 2023 for the bias. differs: the distance
    from the mean is scaled, not the norm, because the mean is most of the residual stream.
    """

    def fresh() -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            return _new_trainer(buffer, schedule, config, metadata, device)

    trainer = fresh()
    if (folder / "steps.json").exists():
        try:
            _resume(trainer, folder)
        except Exception as error:  # whatever three formats and their readers find wrong
            logger.warning("%s is damaged (%s): trained anew", folder, type(error).__name__)
            shutil.rmtree(folder, ignore_errors=True)
            trainer = fresh()
    source = buffer.rows()
    saved = time.monotonic()
    first = trainer.n_training_steps
    steps = progress(schedule.batches(source, first), description, schedule.n_steps - first)
    for batch in steps:
        output = trainer.step(batch)
        trainer.n_training_steps += 1
        if not torch.isfinite(output.loss):
            raise DataError(
                f"the training diverged at step {trainer.n_training_steps}; give a smaller "
                f"--learning-rate than {config.learning_rate:g}"
            )
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(trainer, folder)
            saved = time.monotonic()
    sae = trainer.sae.eval()
    if config.architecture == "batchtopk":
        _set_threshold(trainer, source, schedule)
    sae.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
    return sae


def _new_trainer(
    buffer: ActivationBuffer,
    schedule: Schedule,
    config: TrainingConfig,
    metadata: dict[str, Any],
    device: torch.device | str,
) -> Any:
    from sae_lens import SAETrainer, TrainingSAE
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    n_steps = schedule.n_steps
    warm_up = 0 if n_steps < 40 else n_steps // 20  # their schedule divides by warm_up - 1
    sae = TrainingSAE.from_dict(
        {
            "architecture": config.architecture,
            "d_in": buffer.d_model,
            "d_sae": config.width,
            "device": str(device),
            "normalize_activations": "expected_average_only_in",
            "metadata": metadata,
            **_options(config, n_steps),
        }
    )
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=n_steps * schedule.batch_size,
            train_batch_size_samples=schedule.batch_size,
            lr=config.learning_rate,
            lr_end=config.learning_rate,  # where the linear decay to 0 begins
            lr_warm_up_steps=warm_up,
            lr_decay_steps=n_steps // 3,
            device=str(device),
            # A latent that has not fired for a twelfth of the run is pulled back by the
            # auxiliary loss; the default of 1,000 steps is longer than a run here.
            dead_feature_window=max(n_steps // 12, 10),
            feature_sampling_window=n_steps + 1,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae,
        iter(()),
    )
    factor = math.sqrt(buffer.d_model) / max(buffer.spread, 1e-12)
    trainer.activation_scaler.scaling_factor = factor
    sae.b_dec.data.copy_(buffer.centre * factor)
    return trainer


def _options(config: TrainingConfig, n_steps: int) -> dict[str, Any]:
    if config.architecture != "jumprelu":
        return {"k": config.k}
    return {
        "jumprelu_sparsity_loss_mode": "quadratic",
        "target_l0": float(config.k),
        "jumprelu_ste_to_input": True,
        "l0_warm_up_steps": n_steps // 3,
    }


@torch.no_grad()
def _set_threshold(trainer: Any, source: NDArray[np.float16], schedule: Schedule) -> None:
    """The saved threshold: mean over batches of the smallest activation that BatchTopK keeps.

    Their running average begins at 0 and forgets in hundreds of steps; measured anew with the
    final weights it is right for a short training too.
    """
    smallest = []
    for batch, _ in zip(schedule.batches(source), range(THRESHOLD_BATCHES), strict=False):
        active = trainer.sae.encode(trainer.activation_scaler(batch.to(trainer.sae.device)))
        if (active > 0).any():
            smallest.append(active[active > 0].min().double())
    if smallest:
        trainer.sae.topk_threshold = torch.stack(smallest).mean()


def _save(trainer: Any, folder: Path) -> None:
    with atomic_directory(folder) as temporary:
        trainer.sae.save_model(temporary)
        trainer.save_trainer_state(temporary)
        steps = {"steps": trainer.n_training_steps}
        (temporary / "steps.json").write_text(json.dumps(steps), encoding="utf-8")


def _resume(trainer: Any, folder: Path) -> None:
    from safetensors.torch import load_file

    trainer.sae.load_state_dict(load_file(str(folder / "sae_weights.safetensors")))
    trainer.load_trainer_state(folder)
