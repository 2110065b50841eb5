"""Who writes the instructions and questions of a trait: the model on this machine, or an endpoint.

A writer is asked for many short texts at once, each by a prompt of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Protocol, runtime_checkable

from persona.behaviour.judging.cache import request_key
from persona.behaviour.judging.chat_endpoint import ChatEndpoint
from persona.data.types import Dialogue, Turn
from persona.errors import JudgeError
from persona.models.pair import ModelPair
from persona.models.sampling import sample_answers
from persona.progress import progress

TEMPERATURE = 0.8
"""At 1 a small model leaves the form more often than not; at 0 every try is the same."""


@runtime_checkable
class Writer(Protocol):
    """Whoever writes short texts; `name` goes into the file."""

    name: str

    def write(self, prompts: Sequence[str], *, max_new_tokens: int, seed: int) -> list[str]:
        """Returns one text for each prompt; "" where it wrote nothing."""


class ModelWriter:
    """The aligned side of a pair writes."""

    def __init__(self, pair: ModelPair) -> None:
        self.name = pair.names["aligned"]
        self._pair = pair

    def write(self, prompts: Sequence[str], *, max_new_tokens: int, seed: int) -> list[str]:
        asked = [
            Dialogue((Turn("user", prompt),), f"text {place}")
            for place, prompt in enumerate(prompts)
        ]
        with self._pair.active("aligned") as bridge:
            return sample_answers(
                bridge,
                self._pair.chat,
                asked,
                max_new_tokens=max_new_tokens,
                temperature=TEMPERATURE,
                seed=seed,
                description="Writing instructions and questions",
            )


class EndpointWriter:
    """A model at an OpenAI-compatible endpoint writes; what it wrote is kept as it comes.

    A stopped or failed run that asks for the same again goes on where it was.
    """

    def __init__(
        self, model: str, *, kept: Path, at: ChatEndpoint | None = None, concurrency: int = 8
    ) -> None:
        """kept: file of what was written, JSONL. Raises: JudgeError without key or package."""
        self.name = f"openai:{model}"
        self._at = at or ChatEndpoint(model)
        self._kept, self._concurrency = kept, concurrency

    def write(self, prompts: Sequence[str], *, max_new_tokens: int, seed: int) -> list[str]:
        """Raises: JudgeError where the endpoint cannot be reached or refuses."""
        keys = [self._key(prompt, max_new_tokens, seed + i) for i, prompt in enumerate(prompts)]
        known = dict(self._read())
        missing = [place for place, key in enumerate(keys) if key not in known]
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        pool = ThreadPoolExecutor(max_workers=self._concurrency)
        futures = {
            pool.submit(self._ask, prompts[place], max_new_tokens, seed + place): keys[place]
            for place in missing
        }
        try:
            for future in progress(as_completed(futures), "Writing", total=len(futures)):
                known[futures[future]] = self._keep(futures[future], future.result())
        except KeyboardInterrupt:
            self._at.close()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            # Of several that had ended, the one that failed may have come first.
            for future, key in futures.items():
                ended = future.done() and not future.cancelled()
                if key not in known and ended and future.exception() is None:
                    self._keep(key, future.result())
        return [known[key] for key in keys]

    def _keep(self, key: str, text: str) -> str:
        with self._kept.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps({"key": key, "text": text}))
        return text

    def _ask(self, prompt: str, max_new_tokens: int, seed: int) -> str:
        reply = self._at.ask(prompt, max_tokens=max_new_tokens, temperature=TEMPERATURE, seed=seed)
        try:
            text = reply.choices[0].message.content
        except (AttributeError, IndexError, TypeError) as error:
            raise self._at.other_form(error) from None
        return str(text or "").strip()

    def _key(self, prompt: str, max_new_tokens: int, seed: int) -> str:
        asked = json.dumps([prompt, max_new_tokens, TEMPERATURE, seed])
        return request_key(self._at.address, self._at.model, asked)

    def _read(self) -> Iterator[tuple[str, str]]:
        """What was kept; a line that was cut off is written anew."""
        if not self._kept.exists():
            return
        for line in self._kept.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                yield str(row["key"]), str(row["text"])
            except (ValueError, KeyError, TypeError):
                continue


def writer_named(name: str, open_pair: Callable[[], ModelPair], folder: Path) -> Writer | None:
    """The writer called `model`, the one of the run; `openai:MODEL`; `none`, which is None.

    open_pair: loads the model of the run; called where it writes.
    folder: where the texts of an endpoint are kept.
    Raises: JudgeError for another name, or as `EndpointWriter`.
    """
    kind, _, model = name.partition(":")
    if name == "none":
        return None
    if name == "model":
        return ModelWriter(open_pair())
    if kind == "openai" and model:
        return EndpointWriter(model, kept=folder / "written.jsonl")
    raise JudgeError(f"unknown writer {name!r}; give model, openai:MODEL or none")
