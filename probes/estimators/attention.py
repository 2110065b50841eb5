"""A probe that learns which tokens to look at: one query, one value.

Shapes: N text, P position (padded), D d_model.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import einsum
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor
from torch.nn.functional import softplus
from torch.nn.utils.rnn import pad_sequence

from persona.directions.methods.algebra import standardisation
from probes.estimators.linear import DEFAULT_PENALTY, require_penalty
from probes.estimators.token_probe import TokenProbe
from probes.estimators.token_rows import TokenRows

START_SIZE = 0.01


class AttentionPoolProbe(TokenProbe):
    """decision = sum over t of attention_t (x_t . coef_ + intercept_),
    attention = softmax over t of x_t . query_.

    Query q, value v and offset b minimise mean log(1 + exp(-y decision)) + penalty / 2 (|q|^2 +
    |v|^2) over standardised tokens by L-BFGS; q starts at random and nearly 0, which is mean
    pooling. Then mapped back to raw space: query_ = q / scale, coef_ = v / scale (a shift of all
    x_t . query_ leaves the attention as it is, and attention sums to 1). The problem is not convex:
    another random_state may end in another minimum.
    After `fit` also query_ [d_model].

    Source: McKenzie et al. 2025, Detecting High-Stakes Interactions with Activation Probes.
    differs: standardised, penalised, fitted by L-BFGS instead of AdamW.

    Examples:
        One token of each text, marked by coordinate 0, tells the trait by coordinate 1:

        >>> import numpy as np
        >>> from probes import AttentionPoolProbe
        >>> from probes.estimators import token_rows
        >>> rng, labels = np.random.default_rng(0), np.arange(60) % 2
        >>> def text(label):
        ...     tokens = rng.standard_normal((5, 3)) * [0, 1, 1]
        ...     tokens[rng.integers(5)] = [6, 4 if label else -4, 0]
        ...     return tokens
        >>> probe = AttentionPoolProbe().fit(token_rows([text(label) for label in labels]), labels)
        >>> probe.attention(np.array([[0.0, 0, 0], [6, 4, 0], [0, 0, 0]])).round(1)
        array([0. , 0.9, 0. ])
    """

    def __init__(
        self, penalty: float = DEFAULT_PENALTY, max_iter: int = 200, random_state: int = 0
    ) -> None:
        self.penalty = penalty
        self.max_iter = max_iter
        self.random_state = random_state

    def attention(self, tokens: Float[np.ndarray, "tokens d_model"]) -> NDArray[np.float64]:
        """[tokens]: the weights of one text's tokens, which sum to 1."""
        return np.asarray(softmax(tokens @ self.query_))

    def _fit_tokens(self, rows: TokenRows, positive: NDArray[np.bool_]) -> None:
        require_penalty(self.penalty)
        mean, scale = standardisation(np.concatenate(list(rows)).astype(np.float64))
        # float32 after standardisation: the tokens of many texts are the memory here.
        z_NPD = pad_sequence(
            [torch.from_numpy((row - mean) / scale).float() for row in rows], batch_first=True
        )
        lengths_N = torch.tensor([len(row) for row in rows])
        mask_NP = torch.arange(z_NPD.shape[1]) < lengths_N[:, None]
        query, value, offset = self._minimise(z_NPD, mask_NP, torch.from_numpy(positive))
        self.query_ = query / scale
        self.coef_ = value / scale
        self.intercept_ = float(offset - mean @ self.coef_)

    def _minimise(
        self,
        z_NPD: Float[Tensor, "text pos d_model"],
        mask_NP: Bool[Tensor, "text pos"],
        positive_N: Bool[Tensor, " text"],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        d_model = z_NPD.shape[-1]
        generator = torch.Generator().manual_seed(self.random_state)
        query = START_SIZE * torch.randn(d_model, generator=generator)
        value, offset = torch.zeros(d_model), torch.zeros(())
        weights = [part.requires_grad_() for part in (query, value, offset)]
        sign_N = torch.where(positive_N, 1.0, -1.0)
        optimiser = torch.optim.LBFGS(
            weights, max_iter=self.max_iter, line_search_fn="strong_wolfe", tolerance_change=1e-8
        )

        def loss() -> Tensor:
            optimiser.zero_grad()
            logits_NP = einsum(z_NPD, query, "text pos d_model, d_model -> text pos")
            attention_NP = logits_NP.masked_fill(~mask_NP, -torch.inf).softmax(-1)
            scores_NP = einsum(z_NPD, value, "text pos d_model, d_model -> text pos")
            decision_N = einsum(attention_NP, scores_NP, "text pos, text pos -> text") + offset
            size = query.square().sum() + value.square().sum()
            total = softplus(-sign_N * decision_N).mean() + self.penalty / 2 * size
            total.backward()
            return total

        with torch.enable_grad():
            optimiser.step(loss)
        found = [part.detach().double().numpy() for part in weights]
        return found[0], found[1], float(found[2])

    def _pool(self, tokens: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
        return float(self.attention(tokens) @ scores)
