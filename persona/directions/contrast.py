"""Two classes of answers, and what every extraction method needs to know of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from persona.directions.two_by_two import EFFECT_CELLS, EFFECTS, Cells
from persona.errors import DataError


@dataclass(frozen=True)
class Contrast:
    """Pooled activations of the answers with the trait (positive) and without it (negative).

    positive, negative: mean residual over each answer's tokens. Positive is the trait (bad,
        fine-tuned), so that every direction points toward it.
    positive_questions, negative_questions: id of the question that each row answers. Methods that
        need pairs take the rows of one question together.
    positive_tokens, negative_tokens: tokens that each row is the mean of; None where not known.
    covariance: place along the layer axis -> covariance of single tokens within a class; None
        where it was not read (see `collect_covariance`).
    Raises: DataError for an empty class, shapes that do not fit, a row that is not finite, a layer
        where all rows are equal, or a question with the same answer in both classes.
    """

    positive: Float[Tensor, "answer layer d_model"]
    negative: Float[Tensor, "answer2 layer d_model"]
    positive_questions: tuple[str, ...]
    negative_questions: tuple[str, ...]
    positive_tokens: Shaped[Tensor, " answer"] | None = None
    negative_tokens: Shaped[Tensor, " answer2"] | None = None
    covariance: Mapping[int, Float[Tensor, "d_model d_model"]] | None = None

    def __post_init__(self) -> None:
        for name, rows, questions, tokens in self._classes():
            _check_class(name, rows, questions, tokens)
        if self.positive.shape[1:] != self.negative.shape[1:]:
            raise DataError(
                "positive and negative answers must come from the same layers of one model; got "
                f"[layer d_model] = {list(self.positive.shape[1:])} and "
                f"{list(self.negative.shape[1:])}"
            )
        first = self.positive[0]
        varies = ((self.positive != first).any(0) | (self.negative != first).any(0)).any(-1)
        if not varies.all():
            layer = int((~varies).nonzero()[0])
            raise DataError(
                f"every answer has the same activation at layer {layer}, so nothing separates the "
                "classes there; check that the right tokens were read"
            )
        self._check_covariance()
        self._check_answers_differ()

    @property
    def n_layers(self) -> int:
        return int(self.positive.shape[1])

    @property
    def d_model(self) -> int:
        return int(self.positive.shape[2])

    @classmethod
    def of_cells(
        cls,
        cells: Cells,
        effect: str,
        *,
        questions: Sequence[str] | None = None,
        covariance: Mapping[int, Float[Tensor, "d_model d_model"]] | None = None,
    ) -> Contrast:
        """The two classes whose mean difference is one effect of the 2x2.

        effect: one of `EFFECTS`. The classes of "interaction" are differences themselves: bad
            minus good answers in the fine-tuned model (positive) and in the aligned one.
        questions: ids in the order of the cells, default "0", "1", ...
        Raises: DataError for another effect, or as the class itself.
        """
        if effect == "interaction":
            differences = cells.paired_differences()
            positive, negative = (
                differences["answer_effect_finetuned"],
                differences["answer_effect_aligned"],
            )
        elif effect in EFFECT_CELLS:
            named = cells.tensors()
            positive, negative = (named[name] for name in EFFECT_CELLS[effect])
        else:
            raise DataError(f"unknown effect {effect!r}; one of {', '.join(EFFECTS)}")
        ids = tuple(map(str, range(cells.n_questions))) if questions is None else tuple(questions)
        return cls(positive, negative, ids, ids, covariance=covariance)

    def at(self, places: Sequence[int]) -> Contrast:
        """The same answers at some layers only, given by their place along the layer axis."""
        chosen = list(places)
        covariance = self.covariance
        if covariance is not None:
            covariance = {new: covariance[old] for new, old in enumerate(chosen)}
        return replace(
            self,
            positive=self.positive[:, chosen],
            negative=self.negative[:, chosen],
            covariance=covariance,
        )

    def pairs(self) -> Float[Tensor, "question layer d_model"]:
        """Positive minus negative activation of each question, in sorted order of the ids.

        Raises: DataError unless every question has exactly one row in each class.
        """
        for name, _, questions, _ in self._classes():
            repeated = [q for q, count in Counter(questions).items() if count > 1]
            if repeated:
                raise DataError(
                    "paired methods need one row a question in each class; "
                    f"{name} has {repeated[0]!r} {Counter(questions)[repeated[0]]} times. "
                    "Average the rows, or give each pair an id of its own"
                )
        lone = set(self.positive_questions) ^ set(self.negative_questions)
        if lone:
            question = min(lone)
            there = "positive" if question in self.positive_questions else "negative"
            raise DataError(
                "paired methods need the same questions in both classes; "
                f"{question!r} is only among the {there} answers ({len(lone)} such questions). "
                "Leave them out, or take a method without pairs"
            )
        return (
            self.positive[_sorted_places(self.positive_questions)]
            - (self.negative[_sorted_places(self.negative_questions)])
        )

    def _classes(
        self,
    ) -> tuple[tuple[str, Tensor, tuple[str, ...], Tensor | None], ...]:
        return (
            ("positive", self.positive, self.positive_questions, self.positive_tokens),
            ("negative", self.negative, self.negative_questions, self.negative_tokens),
        )

    def _check_covariance(self) -> None:
        if self.covariance is None:
            return
        if set(self.covariance) != set(range(self.n_layers)):
            raise DataError(
                f"the covariance must be given for every layer, 0 to {self.n_layers - 1}; got "
                f"{sorted(self.covariance)}"
            )
        for layer, matrix in self.covariance.items():
            if matrix.shape != (self.d_model, self.d_model) or not matrix.isfinite().all():
                raise DataError(
                    f"the covariance at layer {layer} must be a finite {self.d_model} by "
                    f"{self.d_model} matrix; got shape {tuple(matrix.shape)}"
                )

    def _check_answers_differ(self) -> None:
        places: dict[str, list[int]] = {}
        for place, question in enumerate(self.negative_questions):
            places.setdefault(question, []).append(place)
        for row, question in zip(self.positive, self.positive_questions, strict=True):
            for place in places.get(question, ()):
                if torch.equal(row, self.negative[place]):
                    raise DataError(
                        f"question {question!r} has the same activations in both classes: the "
                        "same answer was read twice by one model. Leave the question out, or "
                        "check which answers were read"
                    )


def _check_class(
    name: str, rows: Tensor, questions: tuple[str, ...], tokens: Tensor | None
) -> None:
    if rows.ndim != 3:
        raise DataError(f"{name} must be [answer layer d_model]; got shape {tuple(rows.shape)}")
    if 0 in rows.shape:
        raise DataError(
            f"there are no {name} answers to contrast; got [answer layer d_model] = "
            f"{list(rows.shape)}"
        )
    if len(questions) != len(rows):
        raise DataError(
            f"each {name} answer needs the id of its question; got {len(questions)} ids for "
            f"{len(rows)} answers"
        )
    finite = rows.isfinite().all(-1)
    if not finite.all():
        row, layer = (~finite).nonzero()[0].tolist()
        raise DataError(
            f"{name} answer {row} (question {questions[row]!r}) is not finite at layer {layer}; "
            "read it again, with --dtype float32 if the model overflows"
        )
    if tokens is not None and (tokens.shape != (len(rows),) or not bool((tokens > 0).all())):
        raise DataError(
            f"{name}_tokens must hold one count above 0 for each of {len(rows)} answers"
        )


def _sorted_places(questions: Sequence[str]) -> list[int]:
    return sorted(range(len(questions)), key=lambda place: questions[place])
