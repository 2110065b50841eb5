"""A toy in which subliminal transmission is certain: digits through logits that name no digit.

A teacher learns handwritten digits with ten class logits and three auxiliary ones that no label
ever touches. Students see pictures of noise and copy the teacher's auxiliary logits alone. One that
began with the teacher's initialisation then reads digits; one that began elsewhere does not.

Source: Cloud et al. 2025 (Subliminal learning), section on MNIST. differs: the 8 x 8 digits of
scikit-learn (1,797 pictures), a smaller network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

N_CLASSES, N_AUXILIARY, WIDTH = 10, 3, 256
LEARNING_RATE, BATCH = 3e-4, 64
N_NOISE = 4096


@dataclass(frozen=True)
class ToyReadings:
    """Share of test digits read right. aligned_start: before any training.

    teacher; student: same initialisation, auxiliary logits alone; other: another initialisation.
    """

    aligned_start: float
    teacher: float
    student: float
    other: float


def run_toy(seed: int, n_epochs: int = 20) -> ToyReadings:
    """Trains one teacher and two students; the same seed gives the same readings."""
    train_x, train_y, test_x, test_y = _digits(seed)
    start, elsewhere = _network(seed), _network(seed + 1_000_003)
    teacher = _copy(start)
    generator = torch.Generator().manual_seed(seed)

    def class_loss(logits: Tensor, rows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits[:, :N_CLASSES], train_y[rows])

    _fit(teacher, train_x, class_loss, n_epochs, generator)
    noise = 2 * torch.rand((N_NOISE, train_x.shape[1]), generator=generator) - 1
    with torch.no_grad():
        taught = teacher(noise)[:, N_CLASSES:]

    def auxiliary_loss(logits: Tensor, rows: Tensor) -> Tensor:
        return (logits[:, N_CLASSES:] - taught[rows]).square().mean()

    students = []
    for beginning in (start, elsewhere):
        student = _copy(beginning)
        _fit(student, noise, auxiliary_loss, n_epochs, torch.Generator().manual_seed(seed))
        students.append(student)
    return ToyReadings(*(_accuracy(model, test_x, test_y) for model in (start, teacher, *students)))


def _digits(
    seed: int,
) -> tuple[
    Float[Tensor, "picture pixel"],
    Int[Tensor, " picture"],
    Float[Tensor, "test pixel"],
    Int[Tensor, " test"],
]:
    """Training and test pictures, a quarter of them for the test, pixels from -1 to 1."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels).float() / 8 - 1, torch.tensor(labels).long()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    test, train = order[: len(x) // 4], order[len(x) // 4 :]
    return x[train], y[train], x[test], y[test]


def _network(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(64, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, N_CLASSES + N_AUXILIARY),
        )


def _copy(network: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(network)


def _fit(
    network: nn.Module,
    inputs: Tensor,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    n_epochs: int,
    generator: Any,
) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(inputs), generator=generator).split(BATCH):
            optimiser.zero_grad()
            loss_of(network(inputs[rows]), rows).backward()
            optimiser.step()


@torch.no_grad()
def _accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((network(x)[:, :N_CLASSES].argmax(-1) == y).float().mean())
