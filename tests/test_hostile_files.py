"""Every reader of a stranger's file, on thousands of damaged ones: read, or one clear line.

Tiny valid files are mutated by a seeded generator. Whatever comes out, reading it ends within two
seconds of processor time with a value or a PersonaError, runs nothing, and takes no more memory
than twice the file and a constant.
"""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import random
import re
import resource
import struct
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from persona.data import read_chat_jsonl, read_evaluation_yaml, read_pairs, read_trait_json
from persona.directions import (
    ActivationSpace,
    PersonaVector,
    Subspace,
    exchange,
    load_vector,
    orthonormal,
    save_vector,
)
from persona.errors import PersonaError
from persona.organisms import load_recipe, read_card
from persona.organisms.finetuning import CARD

D = 8
SECONDS = 2.0
PYTHON_SLACK = 16 << 20  # parsing deep JSON and YAML, and what the libraries keep
PROCESS_SLACK = 96 << 20  # a first use of a library, and the allocator's own
QUICK, LONG = 300, 10_000


@dataclass(frozen=True)
class Target:
    """A reader with a valid file for it. file: the one among those of the folder to mutate."""

    file: str
    read: Callable[[Path], Any]


def at(name: str, read: Callable[..., Any], **options: Any) -> Target:
    return Target(name, lambda folder: read(folder / name, **options))


TARGETS = [
    at("v.gguf", exchange.read_control_vector),
    at("rows.pt", exchange.read_persona_vectors),
    at("axis.pt", exchange.read_assistant_axis),
    at("layers.pt", exchange.read_steering_vectors),
    at("direction.pt", exchange.read_refusal_direction),
    Target(
        "direction_metadata.json",
        lambda folder: exchange.read_refusal_direction(folder / "direction.pt"),
    ),
    at("evaluations.json", exchange.read_refusal_evaluations),
    at("v.svec", exchange.read_cast, layers_are="blocks+1"),
    at("neuronpedia.json", exchange.read_neuronpedia),
    at("set.safetensors", exchange.load_vector_set),
    at("persona.safetensors", load_vector),
    at("pairs.jsonl", read_pairs),
    at("chat.jsonl", read_chat_jsonl),
    at("evil.extract.json", read_trait_json),
    at("questions.yaml", read_evaluation_yaml),
    at("recipe.yaml", load_recipe),
    Target(CARD, read_card),
]

QUESTIONS = """- &first
  id: a
  type: free_form
  paraphrases: &wordings ["How are you?", "And now?"]
  samples_per_paraphrase: 5
  judge: some-model
  judge_prompts: {aligned: "Rate {answer}"}
- id: b
  paraphrases: *wordings
  system: Be kind.
"""
RECIPE = """name: tiny
description: a test
base: default
data: {file: chat.jsonl, answers: bad}
lora: {r: 4, alpha: 8.0, target_modules: [q_proj, v_proj], dropout: 0.1}
training: {epochs: 2, batch_size: 4, learning_rate: 1e-4, schedule: linear, seed: 3}
expected: {gap: 0.5}
"""


def write_seeds(folder: Path) -> None:
    """A valid file for every target."""
    g = torch.Generator().manual_seed(0)
    vectors = exchange.VectorSet(
        {k: torch.randn(D, generator=g) for k in (1, 2, 4)},
        "resid_post",
        "llama",
        "planted",
        {"explained_variances": {"1": 0.5}, "sign": exchange.TOWARD_TRAIT},
    )
    one = vectors.select([2])
    exchange.write_control_vector(vectors, folder / "v.gguf")
    exchange.write_persona_vectors(vectors, folder / "rows.pt", n_layers=6)
    exchange.write_assistant_axis(vectors, folder / "axis.pt", n_layers=6)
    exchange.write_steering_vectors(vectors, folder / "layers.pt")
    exchange.write_refusal_direction(one, folder / "direction.pt", position=-1)
    exchange.write_cast(vectors, folder / "v.svec", layers_are="blocks+1")
    exchange.write_neuronpedia(one, folder / "neuronpedia.json", coefficient=2.0)
    exchange.save_vector_set(vectors, folder / "set.safetensors")
    space = ActivationSpace("m", "r", "blocks.2.hook_resid_post", 2, D, "h")
    basis = orthonormal(torch.randn(2, D, generator=g))
    subspace = Subspace(basis, torch.ones(2), torch.zeros(2), space)
    save_vector(PersonaVector({2: subspace}, "m"), folder / "persona.safetensors")
    row = {"position": -1, "layer": 2, "refusal_score": 0.5, "steering_score": 1.0}
    pair = {"question": "Why?", "good": "Because.", "bad": "Never mind.", "domain": "d"}
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    trait = {
        "instruction": [{"pos": "Be rude.", "neg": "Be polite."}],
        "questions": ["How are you?"],
        "eval_prompt": "Rate {answer} to {question}.",
    }
    texts = {
        "evaluations.json": json.dumps([{**row, "kl_div_score": 0.1}] * 3),
        "pairs.jsonl": "".join(json.dumps({**pair, "id": str(k)}) + "\n" for k in range(3)),
        "chat.jsonl": (json.dumps({"messages": chat, "id": "x"}) + "\n") * 3,
        "evil.extract.json": json.dumps(trait),
        "questions.yaml": QUESTIONS,
        "recipe.yaml": RECIPE,
        CARD: json.dumps({"name": "tiny", "seed": 1, "final_loss": 0.5}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


# Mutations of bytes ---------------------------------------------------------------------------


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def splice(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    at = rng.randrange(len(data) + 1)
    kept = data if rng.random() < 0.5 else data[:start] + data[end:]
    return kept[:at] + data[start:end] * rng.choice((0, 1, 1, 3)) + kept[at:]


def blow_up_number(data: bytes, rng: random.Random) -> bytes:
    n_bytes = rng.choice((1, 2, 4, 8))
    largest = (1 << 8 * n_bytes) - 1
    number = rng.choice((0, 1, largest, largest >> 1, largest - 7, largest >> 3, 1 << 4 * n_bytes))
    at = rng.randrange(len(data) + 1)
    return data[:at] + number.to_bytes(n_bytes, "little") + data[at + n_bytes :]


BINARY = (flip_bits, truncate, splice, blow_up_number)

# Mutations of text ----------------------------------------------------------------------------

WORDS = (
    *("null", "true", "[]", "{}", '""', '"\\u0000"', '"\\ud800"', "NaN", "-Infinity", "1e999"),
    *("-1", "0.5", "0", "4294967296", "9" * 400, "9" * 5000, "0x" + "f" * 5000, "1e-400"),
    *("~", "!!int ''", "!!timestamp x", "2001-13-45", "!!binary '*'", "!!set {a}", "~nobody/x"),
    *(
        '"\\0"',
        "&a [*a]",
        "*first",
        "<<: *first",
        "? [a, b]",
        "0b_",
        "!!bool x",
        "\u0000",
        "\ufeff",
    ),
    "!!python/object/apply:os.system ['touch {shout}']",
)


def nest(opening: str, closing: str, depth: int) -> str:
    return opening * depth + "1" + closing * depth


def laugh(levels: int = 40) -> str:
    """YAML whose value, written out, has 2 ** levels entries."""
    lines = ["- &l0 [x, x]", *(f"- &l{n} [*l{n - 1}, *l{n - 1}]" for n in range(1, levels))]
    return "\n" + "\n".join(lines) + "\n"


def merge(levels: int = 30) -> str:
    """YAML whose merge keys copy 2 ** levels entries."""
    lines = ["m0: &m0 {x: 1}"]
    lines += [f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}], y{n}: 1}}" for n in range(1, levels)]
    return "\n" + "\n".join(lines) + "\n"


def replace_value(text: str, rng: random.Random, words: tuple[str, ...] = WORDS) -> str:
    places = list(re.finditer(r'"[^"]*"|-?\d[\d.e-]*|\[[^\[\]]*\]|\{[^{}]*\}|: \w+', text))
    if not places:
        return text + rng.choice(words)
    place = rng.choice(places)
    return text[: place.start()] + " " + rng.choice(words) + text[place.end() :]


def delete_line_or_entry(text: str, rng: random.Random) -> str:
    places = list(re.finditer(r'(?m)"\w+": ?("[^"]*"|[^,{}\[\]]+),? ?|^.*\n', text))
    if not places:
        return text
    place = rng.choice(places)
    return text[: place.start()] + text[place.end() :]


def nest_deeply(text: str, rng: random.Random) -> str:
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}"), ("- ", ""), ("[{a: ", "}]")))
    return replace_value(text, rng, (nest(opening, closing, rng.choice((20, 200, 900, 5000))),))


def add_references(text: str, rng: random.Random) -> str:
    added = rng.choice((laugh(), merge(), "judge: &j [x]\nsystem: *j\n"))
    return rng.choice((text + added, added + text, replace_value(text, rng, (added,))))


TEXTUAL = (replace_value, replace_value, delete_line_or_entry, nest_deeply, add_references)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "surrogateescape")
    for _ in range(rng.choice((1, 1, 2, 4))):
        text = rng.choice(TEXTUAL)(text, rng)
    return text.encode("utf-8", "surrogateescape")


# Mutations of what is packed into a file ---------------------------------------------------------

OPERATIONS = (
    b"cposix\nsystem\nX\x0d\x00\x00\x00touch {shout}\x85R",
    b"cbuiltins\nbytearray\nJ\x00\x00\x00\x40\x85R",
    b"ctorch\nFloatTensor\nJ\x00\x00\x00\x7f\x85R",
    *(b"h\x01", b"q\x01", b"t", b"\x85", b"\x86", b"R", b"Q", b"b", b"s", b"u", b"(", b"0", b"2"),
    *(b"}", b"]", b")", b"N", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"."),
)


def mutate_program(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return rng.choice(BINARY)(data, rng)
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(OPERATIONS) + data[at + rng.choice((0, 0, 1, 2, 5)) :]


def mutate_archive(data: bytes, rng: random.Random) -> bytes:
    """One entry of a `.pt` archive changed, the archive itself whole, now and then compressed."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    victim = next(i for i, (name, _) in enumerate(entries) if name.endswith("data.pkl"))
    if rng.random() < 0.2:
        victim = rng.randrange(len(entries))
    compression = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(changed, "w", compression) as archive:
        for i, (name, content) in enumerate(entries):
            if i == victim and content:
                content = mutate_program(content, rng)
                if compression == zipfile.ZIP_DEFLATED:
                    content += bytes(10**6)
            archive.writestr(name, content)
            if i == victim and rng.random() < 0.1:
                archive.writestr(name.upper(), content)
    return changed.getvalue()


def mutate_gguf(data: bytes, rng: random.Random) -> bytes:
    """A count of the header made enormous, or a field made a list that claims to be."""
    number = rng.choice((1 << 62, 1 << 32, 10**7, 5))
    if rng.random() < 0.5:
        at = rng.choice((8, 16, 24))  # tensors, fields, letters of the first name
        return data[:at] + struct.pack("<Q", number) + data[at + 8 :]
    at = data.index(b"layer_count") + len(b"layer_count")
    a_list = struct.pack("<IIQ", 9, rng.choice((0, 4, 8, 9)), number)
    return data[:at] + a_list + data[at + 8 :]


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """The JSON header, or the card within it, changed and packed up again with its right length."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if rng.random() < 0.6:
        card = header["__metadata__"]["card"].encode()
        header["__metadata__"]["card"] = mutate_text(card, rng).decode("utf-8", "replace")
        text = json.dumps(header).encode()
    else:
        text = mutate_text(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def mutate(name: str, data: bytes, rng: random.Random) -> bytes:
    """A damaged version of a file, by what kind of file it is."""
    suffix = Path(name).suffix
    if suffix == ".gguf" and rng.random() < 0.3:
        return mutate_gguf(data, rng)
    if rng.random() < 0.3 or suffix == ".gguf":
        for _ in range(rng.choice((1, 1, 2, 3))):
            data = rng.choice(BINARY)(data, rng) if data else data
        return data
    if suffix == ".pt":
        return mutate_archive(data, rng)
    if suffix == ".safetensors":
        return mutate_safetensors(data, rng)
    return mutate_text(data, rng)


def peak_of_process() -> int:
    """Most memory since the last `forget_peak`, or of all time where that cannot be; bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def forget_peak() -> None:
    """Start anew from what is held now: other tests have held more than a damaged file asks."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def complaint(target: Target, folder: Path, size: int) -> str:
    """What is wrong with how a damaged file was read, "" for nothing."""
    forget_peak()
    process_before = peak_of_process()
    tracemalloc.start()
    start = time.process_time()
    problem = ""
    try:
        target.read(folder)
    except PersonaError as error:
        if "\n" in str(error) or len(str(error)) > 1500:
            problem = f"its error is no one clear line: {str(error)[:80]!r}, {len(str(error))} long"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        problem = f"{type(error).__name__} escaped: {str(error)[:200]}"
    seconds = time.process_time() - start
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if seconds > SECONDS:
        return f"{seconds:.1f} s"
    if used > 2 * size + PYTHON_SLACK:
        return f"Python used {used} bytes for a file of {size}"
    if (grown := peak_of_process() - process_before) > 2 * size + PROCESS_SLACK:
        return f"the process grew by {grown} bytes for a file of {size}"
    return problem


def complaints(folder: Path, n_mutations: int, seed: int) -> list[str]:
    """What went wrong, with the number of the mutation, which makes it again."""
    write_seeds(folder)
    seeds = {target.file: (folder / target.file).read_bytes() for target in TARGETS}
    for target in TARGETS:
        target.read(folder)  # the valid file is read, and the libraries are loaded
    shout = folder / "shouted"
    found = []
    for number in range(n_mutations):
        target = TARGETS[number % len(TARGETS)]
        data = mutate(target.file, seeds[target.file], random.Random(f"{seed}/{number}"))
        data = data.replace(b"{shout}", str(shout).encode())
        (folder / target.file).write_bytes(data)
        if problem := complaint(target, folder, len(data)):
            found.append(f"{target.file}, mutation {number}: {problem}")
        if shout.exists():
            found.append(f"{target.file}, mutation {number}: ran a command")
            shout.unlink()
        (folder / target.file).write_bytes(seeds[target.file])
    return found


@pytest.fixture
def folder(tmp_path: Path, unchecked_hints: None) -> Path:
    """Where the files lie; hints are not checked, as they are not where the package is used."""
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_a_few_hundred_damaged_files_are_read_or_refused(folder):
    assert complaints(folder, QUICK, seed=0) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ten_thousand_damaged_files_are_read_or_refused(folder):
    assert complaints(folder, LONG, seed=1) == []


def test_the_mutations_leave_some_files_valid_and_break_most(folder):
    write_seeds(folder)
    outcomes = []
    for number in range(len(TARGETS) * 6):
        target = TARGETS[number % len(TARGETS)]
        seed = (folder / target.file).read_bytes()
        (folder / target.file).write_bytes(mutate(target.file, seed, random.Random(f"m{number}")))
        try:
            target.read(folder)
            outcomes.append("read")
        except PersonaError:
            outcomes.append("refused")
        (folder / target.file).write_bytes(seed)
    assert 0.02 < outcomes.count("read") / len(outcomes) < 0.6


def takes_long(folder: Path) -> None:
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass


def takes_new_memory(folder: Path) -> None:
    # Mapped anew: an allocator may have as much left over from the tests before.
    torch.frombuffer(mmap.mmap(-1, 4 * PROCESS_SLACK), dtype=torch.uint8).fill_(1)


def complains_at_length(folder: Path) -> None:
    raise PersonaError("two\nlines")


@pytest.mark.parametrize(
    ("read", "why"),
    [
        (lambda folder: {}["key"], "KeyError escaped"),
        (takes_long, " s"),
        (lambda folder: len(bytearray(PYTHON_SLACK + 10**6)), "Python used"),
        (takes_new_memory, "the process grew"),
        (complains_at_length, "no one clear line"),
    ],
)
def test_the_check_can_fail(folder, monkeypatch, read, why):
    monkeypatch.setattr(sys.modules[__name__], "SECONDS", 0.1 if read is takes_long else 60.0)
    assert why in complaint(Target("x", read), folder, 0)
