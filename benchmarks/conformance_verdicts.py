"""From what was seen of a path to a row of the table, and to a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from conformance_models import Reference

AGREES = 1e-3
"""Nats: log-probabilities of two float32 ways that differ by less are taken as the same."""
Arrays = Mapping[str, np.ndarray]


@dataclass
class Facts:
    """What one path did to one tiny model.

    written: tokens with the vector, pass by pass of a cached generation. n_prompt: tokens of the
    prompt. expected: tokens of the prompt that the way writes as it is meant. partly: tokens that
    got something else than the vector or nothing. Distances are in nats, the largest difference of
    a log-probability at any step: to the reference (reference, uncached_reference,
    batch_reference, unsteered), between cached and uncached, between batch and single.
    None: not measured, because it raised or cannot be seen. pads: whether padding was written.
    """

    written: list[int] = field(default_factory=list)
    n_prompt: int = 0
    expected: int = 0
    partly: int = 0
    pads: bool | None = None
    first: bool | None = None
    unsteered: float | None = None
    reference: float | None = None
    uncached_reference: float | None = None
    batch_reference: float | None = None
    cached_uncached: float | None = None
    batch_single: float | None = None
    batch_written: list[list[int]] = field(default_factory=list)

    def as_row(self) -> dict[str, object]:
        return asdict(self)


def facts_of(
    arrays: Arrays,
    reference: Reference,
    step: torch.Tensor,
    prompts: Sequence[list[int]],
    first_written: int,
) -> Facts:
    """step: the vector times its coefficient. first_written: the first token that is to get it."""
    view = View(arrays, reference, step, first_written)
    one, two = [prompts[0]], list(prompts)
    facts = Facts(n_prompt=len(prompts[0]), expected=len(prompts[0]) - first_written)
    if view.has("unsteered"):
        facts.unsteered = view.to_reference("unsteered", one, steered=False)
    if view.has("cached"):
        rows = view.written("cached", one)
        facts.written = [int((shares[0] == 1).sum()) for shares in rows]
        facts.partly = sum(int(np.isnan(shares).sum()) for shares in rows)
        facts.first = bool(rows[0][0][0] == 1)
        facts.reference = view.to_reference("cached", one)
    if view.has("uncached"):
        facts.uncached_reference = view.to_reference("uncached", one)
    if view.has("cached", "uncached"):
        facts.cached_uncached = view.between(("cached", 0), ("uncached", 0))
    if view.has("batch"):
        facts.batch_reference = view.to_reference("batch", two)
        if view.sees_residual:
            rows = view.written("batch", two)
            n_pad = len(two[0]) - len(two[1])
            if view.has("plain_batch"):
                facts.pads = bool((rows[0][1][:n_pad] == 1).any())
            facts.batch_written = [
                [
                    int((shares[row][skip if place == 0 else 0 :] == 1).sum())
                    for place, shares in enumerate(rows)
                ]
                for row, skip in ((0, 0), (1, n_pad))
            ]
    if view.has("batch", "cached", "short"):
        facts.batch_single = max(
            view.between(("batch", 0), ("cached", 0)), view.between(("batch", 1), ("short", 0))
        )
    return facts


@dataclass(frozen=True)
class View:
    """The arrays of one path beside the reference."""

    arrays: Arrays
    reference: Reference
    step: torch.Tensor
    first_written: int

    def has(self, *scenarios: str) -> bool:
        return all(f"{scenario}.tokens" in self.arrays for scenario in scenarios)

    @property
    def sees_residual(self) -> bool:
        return any(".residual." in key for key in self.arrays)

    def texts(self, scenario: str, prompts: Sequence[list[int]]) -> list[list[int]]:
        """Each row's prompt and what the path generated after it."""
        tokens = self.arrays[f"{scenario}.tokens"]
        return [prompt + list(map(int, row)) for prompt, row in zip(prompts, tokens, strict=True)]

    def to_reference(
        self, scenario: str, prompts: Sequence[list[int]], *, steered: bool = True
    ) -> float:
        """Largest difference to the reference with the vector wherever it is meant to be."""
        log_probs = self.arrays[f"{scenario}.log_probs"]
        worst = 0.0
        for row, text in enumerate(self.texts(scenario, prompts)):
            written = [steered and place >= self.first_written for place in range(len(text))]
            right = self.reference.run(text, self.step, written)[1].numpy()
            start = len(prompts[row]) - 1
            for place, seen in enumerate(log_probs[:, row]):
                worst = max(worst, _distance(seen, right[start + place]))
        return worst

    def between(self, one: tuple[str, int], other: tuple[str, int]) -> float:
        """Largest difference of two rows, over the steps before which they said the same."""
        (a, row_a), (b, row_b) = one, other
        tokens = self.arrays[f"{a}.tokens"][row_a], self.arrays[f"{b}.tokens"][row_b]
        differ = np.flatnonzero(tokens[0] != tokens[1])
        n_same = len(tokens[0]) if not len(differ) else int(differ[0]) + 1
        logs = self.arrays[f"{a}.log_probs"][:, row_a], self.arrays[f"{b}.log_probs"][:, row_b]
        return max(_distance(logs[0][k], logs[1][k]) for k in range(n_same))

    def written(self, scenario: str, prompts: Sequence[list[int]]) -> list[np.ndarray]:
        """[rows, positions] of every pass: 1 where the vector was added, 0 where nothing was, NaN
        where something else; 0 at padding that got nothing.
        """
        texts = self.texts(scenario, prompts)
        if not self.sees_residual:
            return self._written_by_logits(scenario, prompts[0], texts[0])
        step = self.step.double().numpy()
        longest = max(map(len, prompts))
        befores = [self.reference.run(text)[0].numpy() for text in texts]
        passes = []
        for place in range(len(self.arrays[f"{scenario}.passes"])):
            resid = self.arrays[f"{scenario}.residual.{place}"].astype(np.float64)
            start = longest + place - resid.shape[1]
            shares = np.zeros(resid.shape[:2])
            for row, before in enumerate(befores):
                n_pad = longest - len(prompts[row])
                for k in range(resid.shape[1]):
                    position = start + k - n_pad
                    known = before[position] if position >= 0 else self._plain_padding(row, k)
                    shares[row, k] = 0.0 if known is None else _share(resid[row, k], known, step)
            passes.append(shares)
        return passes

    def _plain_padding(self, row: int, column: int) -> np.ndarray | None:
        """The unsteered stream at padding, which the reference lacks: the path's own."""
        plain = self.arrays.get("plain_batch.residual.0")
        return None if plain is None else plain[row, column].astype(np.float64)

    def _written_by_logits(
        self, scenario: str, prompt: list[int], text: list[int]
    ) -> list[np.ndarray]:
        """Which positions have the vector, as the log-probabilities say: the nearest guess."""
        seen = self.arrays[f"{scenario}.prompt_log_probs"]
        steps = self.arrays[f"{scenario}.log_probs"][:, 0]
        n = len(prompt)
        guesses = [[True] * n, [False] * n, [False] + [True] * (n - 1), [False] * (n - 1) + [True]]

        def distance(written: list[bool], n_seen: int) -> float:
            right = self.reference.run(text[: len(written)], self.step, written)[1].numpy()
            rows = seen if n_seen == n else steps[n_seen - n : n_seen - n + 1]
            return max(_distance(a, b) for a, b in zip(rows, right[-len(rows) :], strict=True))

        written = min(guesses, key=lambda guess: distance(guess, n))
        passes = [np.array([written], dtype=float)]
        for place in range(1, len(steps)):
            both = [[*written, True], [*written, False]]
            written = min(both, key=lambda guess: distance(guess, n + place))
            passes.append(np.array([[written[-1]]], dtype=float))
        return passes


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def _share(resid: np.ndarray, before: np.ndarray, step: np.ndarray) -> float:
    """1 where `resid` is `before` plus the step, 0 where it is `before`, NaN elsewhere."""
    change, size = resid - before, np.linalg.norm(step)
    if np.linalg.norm(change) < 0.01 * size:
        return 0.0
    return 1.0 if np.linalg.norm(change - step) < 0.01 * size else float("nan")


def verdict(facts: Facts, errors: Mapping[str, str]) -> str:
    """What a user of the path gets, in words."""
    if "cached" in errors:
        return "raises"
    prompt, steps = facts.written[0], facts.written[1:]
    if (facts.unsteered or 0.0) > AGREES:
        said = "generates wrongly, steered or not"
    elif facts.partly:
        said = "partly steered"
    elif not any(facts.written):
        said = "silently unsteered"
    elif prompt and not any(steps):
        said = "prompt only"
    elif steps and all(steps) and not prompt:
        said = "answer only"
    elif prompt < facts.expected or not all(steps):
        said = "partly steered"
    else:
        said = "steered everywhere"
    if said == "steered everywhere" and facts.reference and facts.reference > AGREES:
        said = "steered, but the logits are wrong"
    remarks = []
    if "uncached" in errors:
        remarks.append("raises without a cache")
    elif facts.uncached_reference is not None and facts.uncached_reference > AGREES:
        remarks.append("wrong without a cache")
    if "batch" in errors:
        remarks.append("raises on a padded batch")
    elif (facts.batch_reference or 0.0) > AGREES and said == "steered everywhere":
        remarks.append("wrong in a padded batch")
    return "; ".join([said, *remarks])
