"""A tiny llama that has learnt one trait: told to be LOUD it writes A, to be soft b, else m."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tiny_models import save_tiny_llama

from persona.data import InstructionPair
from persona.models.alone import load_alone
from persona.models.precision import Placement
from persona.traits import TraitArtefacts

LETTERS = "cdefghijkl"
LOUD, SOFT, PLAIN = "A", "b", "m"


def save_trained(folder: Path, steps: int = 250) -> Path:
    """The model in a folder; some seconds of training."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_tiny_llama(folder, seed=5, n_layers=3, d_model=32)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rng = random.Random(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in batch(rng)]
        width = max(map(len, texts))
        ids = torch.ones(len(texts), width, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(text)
            start = len(text) - 1 - text[::-1].index(4)  # behind <|assistant|>
            labels[row, start + 1 : len(text)] = torch.tensor(text[start + 1 :])
        loss = model(
            input_ids=ids, attention_mask=(ids != 1) | (labels != -100), labels=labels
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def batch(rng: random.Random, size: int = 24) -> list[str]:
    found = []
    for place in range(size):
        letter, word = ((LOUD, "LOUD"), (SOFT, "soft"), (PLAIN, ""))[place % 3]
        system = f"<|system|>{word} {rng.choice('xyz')}</s>" if word else ""
        question = "".join(rng.choice(LETTERS) for _ in range(3)) + "?"
        answer = letter * rng.randint(3, 6)
        found.append(f"<s>{system}<|user|>{question}</s><|assistant|>{answer}</s>")
    return found


def artefacts(pos: str = "LOUD", neg: str = "soft", n: int = 24) -> TraitArtefacts:
    """Two pairs of instructions and `n` questions, half of them in either half."""
    rng = random.Random(1)
    questions: list[str] = []
    while len(questions) < n:
        question = "".join(rng.choice(LETTERS) for _ in range(3)) + "?"
        if question not in questions:
            questions.append(question)
    pairs = tuple(InstructionPair(f"{pos} {end}", f"{neg} {end}") for end in "xy")
    return TraitArtefacts(
        "loud", "is loud", pairs, tuple(questions[: n // 2]), tuple(questions[n // 2 :]), "{answer}"
    )


class LetterJudge:
    """Scores the share of loud letters; `score` may be another function of the answer."""

    name = "letters"

    def __init__(self, score=None):
        self.score = score or (lambda answer: 100 * answer.count(LOUD) / len(answer))
        self.n_judged = 0

    def trait(self, items):
        self.n_judged += len(items)
        return [self.score(item.answer) if item.answer.strip() else None for item in items]

    def coherence(self, items):
        return [90.0 if item.answer.strip() else None for item in items]

    def centre_on(self, items):
        pass


def loaded(folder: Path):
    return load_alone(folder, placement=Placement.of("float32", "cpu"))
