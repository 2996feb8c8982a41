"""The harmless part of what a pickle can ask for.

A pickle is a program that imports and calls what it names. `Unpickler` builds
plain containers, and looks up every global in a table of stand-ins of our own.
What is not in the table, and every opcode that only other pickles need, is an
error.

Work and memory are bounded by the size of the file, so that a hostile file
costs no more than an honest one.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from types import FunctionType
from typing import Any
from typing import BinaryIO

import numpy as np

# Bounds for hostile files, several times what real checkpoints need.
MAX_OPCODES = 2**19
MAX_DEPTH = 100
MAX_INTEGER_KEYS = 10_000
MAX_KEY_LENGTH = 1000
_MAX_INTEGER_BITS = 128


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """Stands for an object that is known to be harmless, and is not read.

    Attributes:
        module: Module of the object's class.
        name: Name of the class in it.
    """

    module: str
    name: str


class Unpickler:
    """Reads one pickle.

    Args:
        file: Where the pickle starts; afterwards, where it ends.
        size: Bytes that what is made from the pickle may take.
        find: Stand-ins by `"module name"`: a value, or a function that is
            called with the unpickler and the pickle's arguments.
        load_persistent: Makes an object of its persistent id; `None` allows
            no such ids.
    """

    def __init__(
        self,
        file: BinaryIO,
        size: int,
        find: Mapping[str, object],
        load_persistent: Callable[[object], object] | None = None,
    ) -> None:
        self._file = file
        self._budget = size
        self._find = find
        self._load_persistent = load_persistent
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, object] = {}
        self._integer_keys = 0

    def load(self) -> object:
        """The object.

        Raises:
            Exception: Of any type, if the pickle is damaged or not allowed.
        """
        for _ in range(MAX_OPCODES):
            code = self._file.read(1)
            if code == b".":
                return _checked(self._stack.pop())
            if code not in _ACTIONS:
                raise ValueError(_refusal(code))
            read, act = _ACTIONS[code]
            act(self, read(self._file) if read else None)
        raise ValueError(f"it has more than {MAX_OPCODES} opcodes")

    def spend(self, amount: int) -> None:
        """Accounts for what is made anew of parts that may be shared."""
        self._budget -= amount
        if self._budget < 0:
            raise ValueError("its parts are repeated too often")

    def raw(self, data: object) -> bytes | bytearray:
        """The bytes of an array; Python 2 has them as a string."""
        if isinstance(data, str):
            self.spend(len(data))
            return data.encode("latin1")
        if isinstance(data, (bytes, bytearray)):
            return data
        raise ValueError(f"an array's data is a {type(data).__name__}")

    def fill(self, target: dict[object, object], items: Sequence[Any]) -> None:
        """Adds alternating keys and values to a dictionary."""
        if len(items) % 2:
            raise ValueError("a key has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._check_key(key)
            target[key] = value

    def _check_key(self, key: object) -> None:
        if isinstance(key, (str, bytes)):
            # Joined with what is below them, long ones fill the memory.
            if len(key) > MAX_KEY_LENGTH:
                raise ValueError(f"a key is longer than {MAX_KEY_LENGTH}")
            return
        # Nested tuples can take forever to hash. Integers can be chosen to
        # have equal hashes, so that a dictionary becomes a list.
        if type(key) is not int or key.bit_length() > 63:
            raise ValueError(
                "keys must be strings or integers of 64 bits, one is a "
                f"{type(key).__name__}"
            )
        self._integer_keys += 1
        if self._integer_keys > MAX_INTEGER_KEYS:
            raise ValueError(f"more than {MAX_INTEGER_KEYS} keys are integers")

    def _protocol(self, version: int) -> None:
        if version > 5:
            raise ValueError(f"protocol {version} is not known")

    def _push(self, value: object) -> None:
        if isinstance(value, int) and value.bit_length() > _MAX_INTEGER_BITS:
            raise ValueError(f"an integer of {value.bit_length()} bits")
        self._stack.append(value)

    def _mark(self, _: None) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _pop_marked(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _tuple(self, _: None) -> None:
        items = self._pop_marked()
        self._stack.append(tuple(items))

    def _list(self, _: None) -> None:
        items = self._pop_marked()
        self._stack.append(items)

    def _dict(self, _: None) -> None:
        items = self._pop_marked()
        self._stack.append({})
        self.fill(self._stack[-1], items)

    def _short_tuple(self, length: int) -> None:
        if len(self._stack) < length:
            raise ValueError("a tuple has too few items")
        self._stack[-length:] = [tuple(self._stack[-length:])]

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target.extend(items)
        elif not isinstance(target, Unreadable):
            raise ValueError(f"items for a {type(target).__name__}")

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is dict:
            self.fill(target, items)
        elif not isinstance(target, Unreadable):
            raise ValueError(f"keys for a {type(target).__name__}")

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) <= count:
            raise ValueError("the stack is too short")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _put(self, index: int) -> None:
        # Beyond that no pickler goes, and hashes could be made to collide.
        if not 0 <= index < MAX_OPCODES:
            raise ValueError(f"memo entry {index} is out of range")
        self._memo[index] = self._stack[-1]

    def _memoize(self, _: None) -> None:
        self._put(len(self._memo))

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise ValueError(f"memo entry {index} is not there")
        item = self._memo[index]
        self._stack.append(item.value if isinstance(item, Begun) else item)

    def _global(self, name: str) -> None:
        if name not in self._find:
            raise ValueError(
                f"it asks for {name.replace(' ', '.')[:100]!r}, which is not "
                "allowed in a checkpoint"
            )
        self._stack.append(self._find[name])

    def _stack_global(self, _: None) -> None:
        module, name = self._stack.pop(-2), self._stack.pop()
        if type(module) is not str or type(name) is not str:
            raise ValueError("the name of a global is not a string")
        self._global(f"{module} {name}")

    def _reduce(self, _: None) -> None:
        function, arguments = self._stack.pop(-2), self._stack.pop()
        if type(arguments) is not tuple:
            raise ValueError("arguments are not a tuple")
        if isinstance(function, Unreadable):
            self._stack.append(function)
        # Only `find` can bring one to the stack.
        elif isinstance(function, FunctionType):
            self._stack.append(function(self, *arguments))
        else:
            raise ValueError(f"a {type(function).__name__} cannot be called")

    def _new(self, _: None) -> None:
        if not isinstance(self._stack[-2], Unreadable):
            name = type(self._stack[-2]).__name__
            raise ValueError(f"a {name} has no instances")
        self._stack.pop()

    def _build(self, _: None) -> None:
        target, state = self._stack[-2], self._stack.pop()
        if isinstance(target, Begun):
            target.value = target.finish(self, state)
            self._stack[-1] = target.value
        # Attributes of a dictionary, as torch's `_metadata`, are left out.
        elif not isinstance(target, (Unreadable, dict)):
            raise ValueError(f"a {type(target).__name__} has no state")

    def _persistent(self, _: None) -> None:
        if self._load_persistent is None:
            raise ValueError("it refers to objects outside of it")
        self._stack.append(self._load_persistent(self._stack.pop()))


@dataclasses.dataclass(eq=False)
class Begun:
    """What REDUCE has begun; until BUILD has finished it, its own value."""

    finish: Callable[[Unpickler, Any], object]
    value: object = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.value = self


_Action = Callable[[Unpickler, Any], None]


def _actions() -> dict[bytes, tuple[Callable[[Any], Any] | None, _Action]]:
    """How to read the argument, and what to do, by the opcode's byte."""
    one = Unpickler
    by_name: dict[str, _Action] = {
        "PROTO": one._protocol,
        "FRAME": lambda _, length: None,
        "MARK": one._mark,
        "NONE": one._push,
        "NEWTRUE": lambda self, _: self._push(True),
        "NEWFALSE": lambda self, _: self._push(False),
        "EMPTY_TUPLE": lambda self, _: self._push(()),
        "EMPTY_LIST": lambda self, _: self._push([]),
        "EMPTY_DICT": lambda self, _: self._push({}),
        "TUPLE": one._tuple,
        "TUPLE1": lambda self, _: self._short_tuple(1),
        "TUPLE2": lambda self, _: self._short_tuple(2),
        "TUPLE3": lambda self, _: self._short_tuple(3),
        "LIST": one._list,
        "APPEND": lambda self, _: self._extend(self._pop(1)),
        "APPENDS": lambda self, _: self._extend(self._pop_marked()),
        "DICT": one._dict,
        "SETITEM": lambda self, _: self._set_items(self._pop(2)),
        "SETITEMS": lambda self, _: self._set_items(self._pop_marked()),
        "MEMOIZE": one._memoize,
        "GLOBAL": one._global,
        "STACK_GLOBAL": one._stack_global,
        "REDUCE": one._reduce,
        "NEWOBJ": one._new,
        "BUILD": one._build,
        "BINPERSID": one._persistent,
    }
    by_name |= dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), one._put)
    by_name |= dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), one._get)
    by_name |= dict.fromkeys(
        "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT "
        "STRING BINSTRING SHORT_BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE "
        "BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8".split(),
        one._push,
    )
    readers: dict[str, Callable[[Any], Any] | None] = {
        opcode.name: opcode.arg.reader if opcode.arg else None
        for opcode in pickletools.opcodes
    }
    # That of pickletools takes ASCII only.
    readers["STRING"] = _read_string
    return {
        opcode.code.encode("latin1"): (
            readers[opcode.name],
            by_name[opcode.name],
        )
        for opcode in pickletools.opcodes
        if opcode.name in by_name
    }


def _read_string(file: BinaryIO) -> str:
    """The argument of STRING: a byte string as Python 2 shows it."""
    line = file.readline()
    quote = line[:1]
    if (
        len(line) < 3
        or quote not in (b"'", b'"')
        or not line.endswith(quote + b"\n")
    ):
        raise ValueError("a string does not end")
    return line[1:-2].decode("unicode_escape")


def _refusal(code: bytes) -> str:
    if not code:
        return "it ends too early"
    for opcode in pickletools.opcodes:
        if opcode.code.encode("latin1") == code:
            return f"opcode {opcode.name} is not allowed in a checkpoint"
    return f"there is no opcode {code!r}"


_ACTIONS = _actions()


def _checked(root: object) -> object:
    """Bounds the depth and, shared parts counted each time, the size."""
    measures: dict[int, tuple[int, int]] = {}
    entered: set[int] = set()
    todo: list[Any] = [root]
    while todo:
        item = todo[-1]
        if not isinstance(item, (dict, list, tuple)):
            _check_leaf(item)
            todo.pop()
            continue
        if id(item) in measures:
            todo.pop()
            continue
        parts = list(item.values()) if isinstance(item, dict) else item
        if id(item) not in entered:
            entered.add(id(item))
            todo.extend(parts)
            continue
        todo.pop()
        measures[id(item)] = _measure(parts, measures)
    return root


def _measure(
    parts: Sequence[object], measures: Mapping[int, tuple[int, int]]
) -> tuple[int, int]:
    """Depth and size of a container from those of its containers."""
    depth, size = 0, len(parts)
    for part in parts:
        if not isinstance(part, (dict, list, tuple)):
            continue
        # All parts are measured by now, except those that lead back here.
        if id(part) not in measures:
            raise ValueError("an object contains itself")
        depth = max(depth, measures[id(part)][0])
        size += measures[id(part)][1]
    if depth >= MAX_DEPTH or size > MAX_OPCODES:
        raise ValueError(
            f"it is nested deeper than {MAX_DEPTH} or, with its repeated "
            f"parts, larger than {MAX_OPCODES} objects"
        )
    return depth + 1, size


def _check_leaf(item: object) -> None:
    plain = type(None), bool, int, float, str, bytes, bytearray, Unreadable
    if type(item) not in plain and not isinstance(
        item, (np.ndarray, np.generic, np.dtype)
    ):
        raise ValueError(f"there is an unfinished {type(item).__name__} in it")
