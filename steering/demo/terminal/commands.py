"""What a line that begins with / does in `persona chat`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from persona.directions.exchange.vectors import listed
from persona.errors import DataError, PersonaError, SteeringError
from steering.demo.session.conversation import Conversation
from steering.demo.session.example_questions import example_questions
from steering.demo.session.served_session import ServedSession
from steering.demo.session.session import Session
from steering.demo.session.starting import parse_layers
from steering.demo.session.transcript import save_transcript
from steering.demo.session.vector import load_demo_vector

HELP = """\
/coef X          coefficient; restore: 1 is onto the aligned mean, 0 nothing
/mode M          restore, add (the shift toward the trait) or ablate (to zero)
/layers A-B      0-based blocks to steer at; one block, or all
/on MODEL        steer the aligned or the finetuned model
/again           the last question to the steered column once more
/keep on|off     whether a question comes after those before it (off: each alone)
/seed N          /temperature T          /tokens N
/show            how it is steered now
/load FILE       steer with another direction
/also FILE X     and with this one beside it, at coefficient X; /drop takes the last away
/system TEXT     a column of the fine-tuned model under a system prompt; off: none
/examples        questions to begin with, and how they were chosen
/save FILE       the conversation as JSON lines
/reset           forget the conversation
/quit            leave (Ctrl-D too); Ctrl-C stops an answer"""


@dataclass(frozen=True)
class Reply:
    """What to print, and what else is to happen."""

    text: str = ""
    again: bool = False
    leave: bool = False


def obey(line: str, session: Conversation) -> Reply:
    """Do what a line such as "/coef 1.5" says.

    Raises: PersonaError for an unknown command or one that is not possible; nothing then changes.
    """
    name, _, argument = line.strip().partition(" ")
    if (command := _COMMANDS.get(name.lower())) is None:
        raise PersonaError(f"there is no command {name[:30]!r}; /help lists them")
    return command(session, argument.strip())


def _coefficient(session: Conversation, argument: str) -> Reply:
    session.change(coefficient=_number(argument, "/coef", "1.5"))
    return _shown(session)


def _mode(session: Conversation, argument: str) -> Reply:
    session.change(mode=_one_of(argument.lower(), "/mode", ("restore", "add", "ablate")))
    return _shown(session)


def _layers(session: Conversation, argument: str) -> Reply:
    session.change(layers=parse_layers(argument))
    return _shown(session)


def _side(session: Conversation, argument: str) -> Reply:
    word = argument.lower().replace("-", "")
    session.change(side=_one_of(word, "/on", ("aligned", "finetuned")))
    return _shown(session)


def _seed(session: Conversation, argument: str) -> Reply:
    session.change_sampling(seed=_whole(argument, "/seed", "7"))
    return Reply(f"seed {session.sampling.seed}")


def _temperature(session: Conversation, argument: str) -> Reply:
    session.change_sampling(temperature=_number(argument, "/temperature", "0.7"))
    return Reply(f"temperature {session.sampling.temperature:g}")


def _tokens(session: Conversation, argument: str) -> Reply:
    session.change_sampling(max_new_tokens=_whole(argument, "/tokens", "120"))
    return Reply(f"at most {session.sampling.max_new_tokens} tokens an answer")


def _keep(session: Conversation, argument: str) -> Reply:
    session.remembers = _one_of(argument.lower(), "/keep", ("on", "off")) == "on"
    if session.remembers:
        return Reply("each question comes after those before it")
    return Reply("each question begins a dialogue of its own")


def _again(session: Conversation, argument: str) -> Reply:
    if not session.of("steered"):
        raise DataError("nothing was asked yet")
    return Reply(again=True)


def _shown(session: Conversation, argument: str = "") -> Reply:
    if isinstance(session, ServedSession):
        now = f" Now {session.setting.coefficient:g}." if session.steering else ""
        return Reply(session.facts + now)
    setting, vector = session.setting, session.vector
    assert vector is not None
    n_blocks = len(vector.chosen(setting.layers))
    warning = (
        f"; the shift is added at each of {n_blocks} blocks and piles up, so a coefficient near "
        f"{1 / n_blocks:.2g} or one block is what 1 is elsewhere"
        if setting.mode == "add" and n_blocks > 1 and abs(setting.coefficient) > 1 / n_blocks
        else ""
    )
    beside = "".join(
        f"; beside it {each.vector.name}: {each.setting.edit_in_words}" for each in session.further
    )
    return Reply(
        f"steered: {setting.words} (direction: {vector.name}, block {listed(vector.layers)})"
        f"{warning}{beside}"
    )


def _load(session: Conversation, argument: str) -> Reply:
    here = _of_models_here(session, "/load")
    vector = load_demo_vector(_path(argument, "/load", "direction.safetensors"), here.pair)
    here.load(vector)
    return Reply("\n".join([*vector.notes, _shown(here).text]))


def _also(session: Conversation, argument: str) -> Reply:
    name, _, number = argument.rpartition(" ")
    if not name:
        raise DataError("/also takes a file and a coefficient, such as `/also other.gguf 0.5`")
    coefficient = _number(number, "/also", "other.gguf 0.5")
    here = _of_models_here(session, "/also")
    before = here.further
    here.load_further(load_demo_vector(_path(name.strip(), "/also", ""), here.pair))
    try:
        here.change_further(len(before), coefficient=coefficient)
        here.steering("steered")  # two edits may undo each other
    except SteeringError:
        here.further = before
        raise
    return _shown(here)


def _drop(session: Conversation, argument: str) -> Reply:
    here = _of_models_here(session, "/drop")
    here.drop_further(len(here.further) - 1)
    return _shown(here)


def _system(session: Conversation, argument: str) -> Reply:
    session.compare_with("" if argument.lower() == "off" else argument)
    if not session.system_prompt:
        return Reply("no column under a system prompt")
    return Reply(f"a column of the fine-tuned model told: {session.system_prompt}")


def _examples(session: Conversation, argument: str) -> Reply:
    questions, how = example_questions(session.vector)
    return Reply("\n".join([*questions, f"({how})"]))


def _save(session: Conversation, argument: str) -> Reply:
    path = _path(argument, "/save", "talk.jsonl")
    if not session.exchanges:
        raise DataError("there is nothing to save yet")
    if path.exists():
        raise DataError(f"{path} is there already; name another file")
    try:
        save_transcript(session, path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    return Reply(f"{len(session.exchanges)} answers in {path}")


def _reset(session: Conversation, argument: str) -> Reply:
    session.reset()
    return Reply("the conversation begins anew")


_COMMANDS: dict[str, Callable[[Conversation, str], Reply]] = {
    "/coef": _coefficient,
    "/coefficient": _coefficient,
    "/mode": _mode,
    "/layers": _layers,
    "/on": _side,
    "/keep": _keep,
    "/seed": _seed,
    "/temperature": _temperature,
    "/tokens": _tokens,
    "/again": _again,
    "/show": _shown,
    "/load": _load,
    "/also": _also,
    "/drop": _drop,
    "/system": _system,
    "/examples": _examples,
    "/save": _save,
    "/reset": _reset,
    "/help": lambda session, argument: Reply(HELP),
    "/quit": lambda session, argument: Reply(leave=True),
    "/exit": lambda session, argument: Reply(leave=True),
}


def _of_models_here(session: Conversation, command: str) -> Session:
    """Raises: SteeringError where the models are served elsewhere."""
    if not isinstance(session, Session):
        raise SteeringError(f"{command} needs the models here; the endpoint has its own direction")
    return session


def _number(text: str, command: str, example: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise SteeringError(
            f"{command} takes a number, such as `{command} {example}`; got {text[:40]!r}"
        ) from error


def _whole(text: str, command: str, example: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise SteeringError(
            f"{command} takes a whole number, such as `{command} {example}`; got {text[:40]!r}"
        )
    return int(text)


def _one_of(word: str, command: str, words: tuple[str, ...]) -> str:
    if word not in words:
        raise SteeringError(f"{command} takes {' or '.join(words)}; got {word[:40]!r}")
    return word


def _path(text: str, command: str, example: str) -> Path:
    if not text:
        raise DataError(f"{command} takes the name of a file, such as `{command} {example}`")
    return Path(text).expanduser()
