"""What the pickle inside a `.pt` file is about to do, found out before any of it runs."""

from __future__ import annotations

import pickletools

from persona.errors import DataError

_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
ALLOWED_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        *(f"torch {name}Storage" for name in _STORAGES),
    }
)
MAX_TUPLE_DEPTH = 3  # torch writes 2: the sizes within a tensor's arguments

_ATOMS = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"),
        *("NONE", "NEWTRUE", "NEWFALSE", "GLOBAL", "EMPTY_TUPLE"),
    }
)
_CONTAINERS = frozenset({"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"})
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_FILLS = {"APPEND": 1, "SETITEM": 2, "BUILD": 1}  # what they take off the stack
_MARK = -1


def check_program(program: bytes) -> None:
    """Raises: DataError where a pickle does more than put tensors, dicts and lists together.

    It may call what ALLOWED_GLOBALS names, and it may not nest tuples deeply: a tuple that holds
    another one twice, sixty times over, is a small file, but to hash it, or to show it, never ends.
    For that the stack is followed with depths in place of values: a tuple is one deeper than its
    deepest entry, lists, dicts and results of calls are 1, all else is 0.
    """
    stack: list[int] = []
    memo: dict[int, int] = {}
    try:
        for code, argument, _ in pickletools.genops(program):
            _step(code.name, argument, stack, memo)
    except DataError:
        raise
    except Exception as error:  # pickletools raises anything on a damaged pickle
        raise DataError(f"a damaged pickle ({type(error).__name__}: {str(error)[:120]})") from error


def _step(name: str, argument: object, stack: list[int], memo: dict[int, int]) -> None:
    if name in ("GLOBAL", "INST") and argument not in ALLOWED_GLOBALS:
        wanted = str(argument).replace(" ", ".")[:100]
        raise DataError(
            f"it asks to run {wanted!r} on loading; refused. Only tensors, dicts, lists, text and "
            "numbers are read"
        )
    if name in _ATOMS:
        stack.append(0)
    elif name in _CONTAINERS:
        stack.append(1)
    elif name == "MARK":
        stack.append(_MARK)
    elif name in _TUPLES:
        _push_tuple(stack, [stack.pop() for _ in range(_TUPLES[name])])
    elif name == "TUPLE":
        _push_tuple(stack, _above_mark(stack))
    elif name in ("APPENDS", "SETITEMS"):
        _above_mark(stack)
    elif name in _FILLS:
        del stack[-_FILLS[name] :]
    elif name in ("REDUCE", "NEWOBJ"):
        del stack[-2:]
        stack.append(1)
    elif name == "BINPERSID":
        if stack.pop() != 1:
            raise DataError("a storage is named by something other than words; refused")
        stack.append(0)
    elif name in ("BINGET", "LONG_BINGET") and isinstance(argument, int):
        stack.append(memo[argument])
    elif name in ("BINPUT", "LONG_BINPUT") and isinstance(argument, int):
        memo[argument] = stack[-1]
    elif name not in ("PROTO", "STOP"):
        raise DataError(f"the pickle operation {name} is not read; refused")


def _push_tuple(stack: list[int], entries: list[int]) -> None:
    depth = 1 + max(entries, default=0)
    if depth > MAX_TUPLE_DEPTH:
        raise DataError("it nests tuples as no saved tensor does; refused")
    stack.append(depth)


def _above_mark(stack: list[int]) -> list[int]:
    entries = []
    while (top := stack.pop()) != _MARK:
        entries.append(top)
    return entries
