"""Reads pickles of arrays without running anything that they ask for."""

import contextlib
import io
import math
import os
import stat
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import Literal

import numpy as np

from keras_nonlocal.weights.opcodes import Begun
from keras_nonlocal.weights.opcodes import Unpickler

_MAX_RANK = 32  # That of numpy 1.
_MAX_MESSAGE = 500

_DTYPES = frozenset("b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16".split())


class ReadError(ValueError):
    """A file that cannot be read as a checkpoint; the message names it."""


class Source(io.BufferedReader):
    """A file that is never asked for more bytes than it has.

    Attributes:
        length: Of the file, in bytes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(io.FileIO(path))
        self.length = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        # A read makes room for `size` bytes before it looks for them.
        if size is None or size < 0:
            size = self.length
        return super().read(min(size, self.length))


def read_pickle(path: str | os.PathLike[str]) -> object:
    """Reads a pickle of plain containers, numbers, strings and numpy arrays.

    Protocols 0 to 5 are read. The byte strings of Python 2 become `str` by
    way of latin-1, and an `OrderedDict` a `dict`.

    Args:
        path: Of the file.

    Returns:
        The object. Arrays are read-only and may share memory.

    Raises:
        ReadError: If there is no such file, if it is damaged, if it holds
            anything else, or if it is out of all proportion to its size.
    """
    with reading(path, "a pickle") as source:
        content = Unpickler(source, source.length, GLOBALS).load()
        if source.read(1):
            raise ValueError("there is more after its end")
        return content


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], kind: str) -> Iterator[Source]:
    """Opens a file; every failure within becomes a `ReadError`.

    Args:
        path: Of the file.
        kind: What the file should be, for the message.
    """
    try:
        # Opening a pipe would wait for its writer.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ReadError(f"{path}: not a regular file")
        with Source(path) as source:
            yield source
    except ReadError:
        raise
    except FileNotFoundError as error:
        raise ReadError(f"{path}: there is no such file") from error
    # No list of types covers what damage can set off in numpy and zipfile.
    except Exception as error:
        reason = str(error)
        if not isinstance(error, ValueError):
            reason = f"{type(error).__name__}: {reason}"
        raise ReadError(
            f"{path}: cannot be read as {kind}: {reason[:_MAX_MESSAGE]}"
        ) from error


def is_one_of(value: object, *options: str) -> bool:
    """Whether this is one of the strings; an array would compare itself."""
    return type(value) is str and value in options


def check_naturals(value: object, what: str) -> None:
    """Raises `ValueError` unless this is a short tuple of natural numbers."""
    if type(value) is not tuple or len(value) > _MAX_RANK:
        raise ValueError(f"{what} is not a tuple of at most {_MAX_RANK}")
    if not all(type(number) is int and number >= 0 for number in value):
        raise ValueError(f"{what} has what is not a natural number")


def _array(
    data: bytes | bytearray,
    dtype: object,
    shape: tuple[int, ...],
    order: Literal["C", "F"],
) -> np.ndarray:
    """A read-only view of the data, if it is exactly as long as it should."""
    check_naturals(shape, "a shape")
    if not isinstance(dtype, np.dtype):
        raise ValueError("an array has no dtype")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(
            f"an array of shape {shape} and {dtype} comes with {len(data)} "
            "bytes"
        )
    array = np.frombuffer(data, dtype).reshape(shape, order=order)
    array.flags.writeable = False
    return array


def _ndarray(unpickler: Unpickler) -> None:
    raise ValueError("numpy.ndarray is called")


def _reconstruct(
    unpickler: Unpickler, kind: object, shape: object, code: object
) -> Begun:
    if kind is not _ndarray:
        raise ValueError("an array is not a numpy.ndarray")
    return Begun(_finish_array)


def _finish_array(unpickler: Unpickler, state: Any) -> np.ndarray:
    _, shape, dtype, is_fortran, data = state
    order: Literal["C", "F"] = "F" if is_fortran else "C"
    return _array(unpickler.raw(data), dtype, shape, order)


def _from_buffer(
    unpickler: Unpickler,
    data: object,
    dtype: object,
    shape: Any,
    order: object,
    axes: Any = None,
) -> np.ndarray:
    if not is_one_of(order, "C", "F", "K"):
        raise ValueError("the order of an array is not C, F or K")
    array = _array(
        unpickler.raw(data), dtype, shape, "F" if order == "F" else "C"
    )
    if axes is None:
        return array
    check_naturals(axes, "the order of axes")
    return array.transpose(axes)


def _scalar(unpickler: Unpickler, dtype: object, data: object) -> Any:
    return _array(unpickler.raw(data), dtype, (), "C")[()]


def _dtype(
    unpickler: Unpickler, name: object, align: object, copy: object
) -> Begun:
    # Objects, strings and records are no weights.
    if not is_one_of(name, *_DTYPES):
        raise ValueError("a dtype is not of numbers")

    def finish(unpickler: Unpickler, state: Any) -> np.dtype:
        if not is_one_of(state[1], "<", ">", "|", "="):
            raise ValueError("a dtype has an unknown byte order")
        return np.dtype(f"{state[1]}{name}")

    return Begun(finish)


def _encode(unpickler: Unpickler, text: object, encoding: object) -> bytes:
    """How Python 3 writes bytes at protocol 2."""
    if type(text) is not str or not is_one_of(encoding, "latin1", "latin-1"):
        raise ValueError("codecs.encode is called for something else")
    return bytes(unpickler.raw(text))


def _bytes(unpickler: Unpickler) -> bytes:
    """How Python 3 writes no bytes at protocol 2."""
    return b""


def _ordered_dict(
    unpickler: Unpickler, pairs: Sequence[Any] = ()
) -> dict[object, object]:
    ordered: dict[object, object] = {}
    unpickler.spend(len(pairs))
    for pair in pairs:
        if len(pair) != 2:
            raise ValueError("an item of a dictionary is not a pair")
        unpickler.fill(ordered, pair)
    return ordered


GLOBALS: dict[str, object] = {
    "collections OrderedDict": _ordered_dict,
    "_codecs encode": _encode,
    "__builtin__ bytes": _bytes,
    "builtins bytes": _bytes,
    "numpy ndarray": _ndarray,
    "numpy dtype": _dtype,
}
# The underscore came with numpy 2.
for _core in ("numpy.core", "numpy._core"):
    GLOBALS[f"{_core}.multiarray _reconstruct"] = _reconstruct
    GLOBALS[f"{_core}.multiarray scalar"] = _scalar
    GLOBALS[f"{_core}.numeric _frombuffer"] = _from_buffer
