"""Made-up activations whose directions are known: what a method finds can be held against truth."""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from persona.directions.contrast import Contrast
from persona.directions.direction import orthonormal
from persona.errors import DataError


def planted_contrast(
    n_questions: int,
    n_layers: int,
    d_model: int,
    signal: float,
    noise: float,
    rank: int = 1,
    seed: int = 0,
    *,
    anisotropy: float = 1.0,
    question_effect: float = 1.0,
) -> tuple[Contrast, Float[Tensor, "layer rank d_model"]]:
    """One positive and one negative answer to each question, and the directions that part them.

    At every layer, for question q, with t the truth (random orthonormal rows):
        negative_q = b_q + e_q
        positive_q = b_q + e'_q + signal (t_0 + sum over k >= 1 of z_qk t_k)
    b_q ~ N(0, question_effect^2 1) is shared by both; e_q, e'_q have variance noise^2, averaged
    over coordinates; z_qk is standard normal. So the mean difference is signal t_0, and the
    differences vary along t_1, t_2, ..., of which only the span is identified.
    anisotropy: ratio of the largest to the smallest noise amplitude among the coordinates, evenly
        spaced in between on a log scale, in random order at each layer; 1 is the same everywhere.
    Raises: DataError for sizes below 1, a rank above d_model, or an anisotropy below 1.

    Examples:
        >>> from persona.directions import planted_contrast
        >>> contrast, truth = planted_contrast(200, 3, 16, signal=2.0, noise=1.0)
        >>> difference = contrast.positive.mean(0) - contrast.negative.mean(0)
        >>> bool((difference * truth[:, 0]).sum(-1).sub(2.0).abs().max() < 0.3)
        True
    """
    if min(n_questions, n_layers, d_model, rank) < 1 or rank > d_model:
        raise DataError(
            "a planted contrast needs at least 1 question, layer and coordinate, and a rank of 1 "
            f"to d_model; got {n_questions}, {n_layers}, {d_model} and rank {rank}"
        )
    if anisotropy < 1:
        raise DataError(f"the anisotropy is largest / smallest and so at least 1; got {anisotropy}")
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    truth = torch.stack([orthonormal(normal(rank, d_model)) for _ in range(n_layers)])
    amplitudes = torch.logspace(0, -1, d_model, base=max(anisotropy, 1.0))
    amplitudes = noise * amplitudes / amplitudes.square().mean().sqrt()
    amplitude = torch.stack(
        [amplitudes[torch.randperm(d_model, generator=generator)] for _ in range(n_layers)]
    )
    shape = (n_questions, n_layers, d_model)
    shared = question_effect * normal(*shape)
    coordinates = torch.cat([torch.ones(n_questions, 1), normal(n_questions, rank - 1)], dim=1)
    effect = signal * einsum(coordinates, truth, "q rank, layer rank d -> q layer d")
    ids = tuple(f"q{place:04d}" for place in range(n_questions))
    contrast = Contrast(
        shared + amplitude * normal(*shape) + effect, shared + amplitude * normal(*shape), ids, ids
    )
    return contrast, truth
