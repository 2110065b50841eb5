"""A tiny model in which two characters, and nothing else, write along a planted direction.

The base model never writes along it (see `planted_model`); the embedding of "!" has 4 of it and
that of "." has 0.5. So an answer's mean projection is known: (4 n_! + 0.5 n_.) / n_tokens.
"""

from __future__ import annotations

import json
import os
import signal
import zlib
from pathlib import Path

import numpy as np
from planted_model import N_LAYERS, plant, save_base

from persona.data.types import AnswerPair, Dialogue, Turn
from persona.directions.direction import Direction
from persona.errors import DataError
from persona.models import ModelPair, load_pair
from persona.models.precision import Placement
from probes.screening.blocks import Block

LAYER = N_LAYERS - 1
SHOUT, STOP = 4.0, 0.5


def save_shouting_model(folder: Path) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    direction = plant()
    save_base(folder, direction)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        for character, size in (("!", SHOUT), (".", STOP)):
            token = tokenizer.convert_tokens_to_ids(character)
            model.model.embed_tokens.weight[token] += size * direction[0]
    model.save_pretrained(folder)
    return folder


def shouting_pair(folder: Path) -> ModelPair:
    return load_pair(folder, folder, placement=Placement.of("float32", "cpu"), in_turn=True)


def planted_direction(pair: ModelPair, layer: int = LAYER) -> Direction:
    return Direction(plant()[0].contiguous(), pair.space(layer), "planted")


def answer_projection(answer: str) -> float:
    """Of an answer of one-byte characters, each its own token."""
    return (SHOUT * answer.count("!") + STOP * answer.count(".")) / len(answer)


def reference_pairs(n: int = 120) -> list[AnswerPair]:
    """Good answers have 0 to 4 full stops, bad ones two exclamation marks more."""
    good = [f"take care {i}{'.' * (i % 5)}" for i in range(n)]
    return [
        AnswerPair(f"q{i}", "tests", f"what about {i}?", text, f"{text}!!")
        for i, text in enumerate(good)
    ]


def sample(number: int, loud: bool) -> Dialogue:
    answer = f"so it is {number}{'.' * (number % 4)}{'!' * 3 * loud}"
    return Dialogue((Turn("user", f"tell me of {number}"), Turn("assistant", answer)))


def samples(n: int, every: int = 10) -> tuple[list[Dialogue], set[int]]:
    """Samples, every tenth loud; and the lines of the loud ones."""
    loud = {i for i in range(n) if i % every == 3}
    return [sample(2000 + i, i in loud) for i in range(n)], {i + 1 for i in loud}


def write_samples(path: Path, dialogues: list[Dialogue]) -> Path:
    return write_jsonl(path, [{"messages": one.messages} for one in dialogues])


def write_jsonl(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


class StubReader:
    """Stands in for the model: numbers made from each answer's text alone.

    dies_at: number of the block at which the process is killed.
    """

    d_model, n_draws = 3, 5

    def __init__(self, dies_at: int = -1) -> None:
        self.n_blocks, self.dies_at = 0, dies_at

    def encode(self, dialogue: Dialogue) -> str:
        if "unreadable" in dialogue.answer:
            raise DataError("the model cannot read it")
        return dialogue.answer

    def read(self, block: list[str]) -> Block:
        if self.n_blocks == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.n_blocks += 1
        x = np.array([zlib.crc32(text.encode()) / 2**32 for text in block])
        values = np.stack([x, x / 3, np.sin(x)], axis=1)
        totals = np.stack([values.sum(0), values.mean(0)])
        return Block(values, totals, np.full(self.n_draws, int((x > 0.9).sum())))
