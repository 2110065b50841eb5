"""Where an activation was read: the space that a direction belongs to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from persona.errors import SpaceMismatchError


@dataclass(frozen=True)
class ActivationSpace:
    """One point of one model's residual stream.

    model, revision: what the person called the model, and its content hash or hub commit.
    hook_name: TransformerBridge name, for instance "blocks.20.hook_resid_post".
    layer: 0-based block whose output this is; `hook_resid_post` of block l is row l + 1 of
        Hugging Face `hidden_states` (except after the last block, where that row is normalised).
    weight_processing: "none" - no folding or centring, so the basis is the model's own.
    Raises: SpaceMismatchError where the hook is of another block than `layer`.
    """

    model: str
    revision: str
    hook_name: str
    layer: int
    d_model: int
    chat_template_hash: str = ""
    weight_processing: str = "none"

    def __post_init__(self) -> None:
        named = re.match(r"blocks\.(\d+)\.", self.hook_name)
        if named and int(named[1]) != self.layer:
            raise SpaceMismatchError(
                f"{self.hook_name} is of block {named[1]}, but layer={self.layer} was given; give "
                "the same block in both"
            )

    def require_same_model(self, other: ActivationSpace) -> None:
        """Raise SpaceMismatchError unless both spaces belong to one model."""
        for name in ("d_model", "model", "revision", "chat_template_hash", "weight_processing"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise SpaceMismatchError(
                    f"{name} differs: {mine!r} ({self.model}, {self.hook_name}) against {theirs!r} "
                    f"({other.model}, {other.hook_name}). Extract a direction from this model, or "
                    "load the model it came from"
                )

    def require_same(self, other: ActivationSpace) -> None:
        """Raise SpaceMismatchError unless both are the same point of the same model."""
        self.require_same_model(other)
        if self.hook_name != other.hook_name:
            raise SpaceMismatchError(
                f"hook_name differs: {self.hook_name} against {other.hook_name} of {self.model}"
            )
