"""What a person chooses from, each name and default written once; importing it loads no library."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """Number format of the weights and activations; the last two of the weights alone.

    int8, nf4: by bitsandbytes, 8 bits (LLM.int8) and 4 (NF4 of QLoRA).
    """

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    int8 = "int8"
    nf4 = "nf4"


QUANTISED = (Precision.int8, Precision.nf4)
SPREAD = "spread"
"""Name of the device that is all cards together: the blocks are divided between them."""
DEVICES = ("auto", "cpu", "cuda", "mps", SPREAD)
"""Those that can be named; one of several cards as cuda:1."""


MAX_DAMAGE = 0.05
"""Rise of neutral cross-entropy over the fine-tuned model's that what is chosen may bring, unless
told otherwise; nats per token."""


class VectorFormat(StrEnum):
    """Layout of a file of vectors. `persona-vector` is what `persona diagnose` writes."""

    persona_vector = "persona-vector"
    vector_set = "vector-set"
    control_vector = "control-vector"
    persona_vectors = "persona-vectors"
    refusal_direction = "refusal-direction"
    assistant_axis = "assistant-axis"
    steering_vectors = "steering-vectors"
    cast = "cast"
    neuronpedia = "neuronpedia"


class LayersAre(StrEnum):
    """What a layer number k of a file of vectors means."""

    blocks = "blocks"
    blocks_plus_1 = "blocks+1"
