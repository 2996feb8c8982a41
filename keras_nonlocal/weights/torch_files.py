"""Reads what `torch.save` writes, without torch and without running it.

There are two layouts. Since torch 1.6 a file is a zip archive of a pickle and
one member per storage. Before, it was five pickles, the fourth with the object
and the fifth with the storages' keys, and then the storages one by one.
"""

import io
import math
import os
import zipfile
from typing import Any

import numpy as np

from keras_nonlocal.weights.opcodes import Unpickler
from keras_nonlocal.weights.opcodes import Unreadable
from keras_nonlocal.weights.unpickle import GLOBALS
from keras_nonlocal.weights.unpickle import Source
from keras_nonlocal.weights.unpickle import check_naturals
from keras_nonlocal.weights.unpickle import is_one_of
from keras_nonlocal.weights.unpickle import reading

_ZIP_MAGIC = b"PK"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_PICKLE = "data.pkl"
_KIND = "a torch file"

_STORAGES = {
    "torch FloatStorage": "float32",
    "torch DoubleStorage": "float64",
    "torch HalfStorage": "float16",
    "torch BFloat16Storage": "bfloat16",
    "torch LongStorage": "int64",
    "torch IntStorage": "int32",
    "torch ShortStorage": "int16",
    "torch CharStorage": "int8",
    "torch ByteStorage": "uint8",
    "torch BoolStorage": "bool",
    "torch ComplexFloatStorage": "complex64",
    "torch ComplexDoubleStorage": "complex128",
    "torch.storage UntypedStorage": "uint8",
}
# What training frameworks put beside the weights.
_RECORDS = (
    "__builtin__ complex",
    "__builtin__ dict",
    "__builtin__ float",
    "__builtin__ frozenset",
    "__builtin__ int",
    "__builtin__ list",
    "__builtin__ set",
    "__builtin__ slice",
    "__builtin__ str",
    "__builtin__ tuple",
    "addict.addict Dict",
    "argparse Namespace",
    "collections Counter",
    "collections defaultdict",
    "collections deque",
    "datetime datetime",
    "datetime timedelta",
    "easydict EasyDict",
    "fvcore.common.config CfgNode",
    "mmcv.utils.config Config",
    "mmcv.utils.config ConfigDict",
    "mmengine.config.config Config",
    "mmengine.config.config ConfigDict",
    "mmengine.logging.history_buffer HistoryBuffer",
    "pathlib Path",
    "pathlib PosixPath",
    "pathlib PurePosixPath",
    "pathlib WindowsPath",
    "torch bfloat16",
    "torch bool",
    "torch device",
    "torch float16",
    "torch float32",
    "torch float64",
    "torch int16",
    "torch int32",
    "torch int64",
    "torch int8",
    "torch uint8",
    "torch.torch_version TorchVersion",
    "yacs.config CfgNode",
)


def is_torch(path: str | os.PathLike[str]) -> bool:
    """Whether the content of a file is of one of torch's two layouts.

    Raises:
        ReadError: If there is no such file, or if it starts as a zip archive
            does and is none.
    """
    with reading(path, _KIND) as source:
        # The first pickle is nothing but the magic number.
        start = source.read(32)
        if not start.startswith(_ZIP_MAGIC):
            return _LEGACY_MAGIC.to_bytes(10, "little") in start
        with zipfile.ZipFile(source) as archive:
            return any(map(_is_pickle, archive.namelist()))


def read_torch(path: str | os.PathLike[str]) -> object:
    """Reads the object that `torch.save` was given.

    Tensors become arrays, an `OrderedDict` a `dict`, a `torch.Size` a `tuple`
    and what training frameworks add, such as an `argparse.Namespace`, an
    `Unreadable`.

    Args:
        path: Of the file.

    Returns:
        The object. Arrays are read-only and may share memory.

    Raises:
        ReadError: If there is no such file, if it is damaged, if it holds
            anything else, or if it is out of all proportion to its size.
    """
    with reading(path, _KIND) as source:
        if source.peek(2).startswith(_ZIP_MAGIC):
            return _read_zip(source)
        return _read_legacy(source)


def _is_pickle(name: str) -> bool:
    folder, _, base = name.partition("/")
    return bool(folder) and base == _PICKLE


def _read_zip(source: Source) -> object:
    with zipfile.ZipFile(source) as archive:
        _check_members(archive.infolist(), source.length)
        names = set(archive.namelist())
        pickles = [name for name in names if _is_pickle(name)]
        if len(pickles) != 1:
            raise ValueError(f"it has {len(pickles)} members */{_PICKLE}")
        prefix = pickles[0].removesuffix(_PICKLE)
        order = f"{prefix}byteorder"
        if order in names and archive.read(order) != b"little":
            raise ValueError("its numbers are not little-endian")
        storages: dict[str, np.ndarray] = {}

        def load(identifier: object) -> np.ndarray:
            dtype, key, length = _storage_of(identifier)
            if key not in storages:
                member = f"{prefix}data/{key}"
                if member not in names:
                    raise ValueError(f"there is no member {member!r}")
                storages[key] = np.frombuffer(archive.read(member), "uint8")
            return _typed(storages[key], dtype, key, length)

        content = archive.read(pickles[0])
        return Unpickler(
            io.BytesIO(content), len(content), _GLOBALS, load
        ).load()


def _check_members(members: list[zipfile.ZipInfo], length: int) -> None:
    """Refuses what torch never writes and hostile archives need."""
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise ValueError("it has several members of one name")
    for member in members:
        name = member.filename
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise ValueError(f"its member {name!r} is outside of it")
        if member.flag_bits & 1:
            raise ValueError(f"its member {name!r} is encrypted")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its member {name!r} is compressed")
    if sum(member.file_size for member in members) > length:
        raise ValueError("its members are larger than the file")


def _read_legacy(source: Source) -> object:
    for expected in (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
        if Unpickler(source, source.length, {}).load() != expected:
            raise ValueError("it does not start as one")
    system = Unpickler(source, source.length, {}).load()
    if not isinstance(system, dict) or not system.get("little_endian"):
        raise ValueError("its numbers are not little-endian")
    storages: dict[str, np.ndarray] = {}
    item_sizes: dict[str, int] = {}
    room = source.length

    def load(identifier: object) -> np.ndarray:
        """Makes room for a storage, at most as much as the file has."""
        nonlocal room
        dtype, key, length = _storage_of(identifier)
        if key not in storages:
            size = length * dtype.itemsize
            room -= size
            if room < 0:
                raise ValueError("its storages are larger than the file")
            storages[key] = np.empty(size, "uint8")
            item_sizes[key] = dtype.itemsize
        return _typed(storages[key], dtype, key, length)

    content = Unpickler(source, source.length, _GLOBALS, load).load()
    keys = Unpickler(source, source.length, {}).load()
    if not isinstance(keys, list) or not all(type(k) is str for k in keys):
        raise ValueError("its list of storages is damaged")
    if sorted(keys) != sorted(storages):
        raise ValueError("its list of storages is not that of its tensors")
    for key in keys:
        _fill(storages[key], source, item_sizes[key])
    if source.read(1):
        raise ValueError("there is more after its end")
    return content


def _fill(storage: np.ndarray, source: Source, item_size: int) -> None:
    """Reads a storage of the legacy layout: its length and its numbers."""
    length = source.read(8)
    if len(length) < 8:
        raise ValueError("it ends before a storage")
    if int.from_bytes(length, "little") * item_size != len(storage):
        raise ValueError("a storage is not as long as its tensors say")
    if source.readinto(storage.data) != len(storage):
        raise ValueError("it ends in a storage")


def _storage_of(identifier: Any) -> tuple[np.dtype, str, int]:
    """Type, key and length in a storage's persistent id."""
    if type(identifier) is not tuple or len(identifier) not in (5, 6):
        raise ValueError("a persistent id is not that of a storage")
    kind, dtype, key, _, length, *view = identifier
    if not is_one_of(kind, "storage") or not isinstance(dtype, np.dtype):
        raise ValueError("a persistent id is not that of a storage")
    if type(key) is not str or type(length) is not int or length < 0:
        raise ValueError("the key or the length of a storage is damaged")
    # Only torch before 0.4 has storages that are views of others.
    if view not in ([], [None]):
        raise ValueError(f"storage {key!r} is a view of another")
    return dtype, key, length


def _typed(
    storage: np.ndarray, dtype: np.dtype, key: str, length: int
) -> np.ndarray:
    if length * dtype.itemsize != len(storage):
        raise ValueError(
            f"storage {key!r} has {len(storage)} bytes, but its tensor is of "
            f"one with {length} x {dtype}"
        )
    typed = storage.view(dtype)
    typed.flags.writeable = False
    return typed


def _tensor(
    unpickler: Unpickler,
    storage: object,
    offset: object,
    shape: Any,
    strides: Any,
    requires_grad: object = None,
    hooks: object = None,
    metadata: object = None,
) -> np.ndarray:
    check_naturals(shape, "a shape")
    check_naturals(strides, "the strides of a tensor")
    if not isinstance(storage, np.ndarray) or len(shape) != len(strides):
        raise ValueError("a tensor has no storage or not a stride per axis")
    if type(offset) is not int or offset < 0:
        raise ValueError("the offset of a tensor is not a natural number")
    if metadata:
        raise ValueError("a tensor is conjugated, negated or of another kind")
    size = math.prod(shape)
    steps = zip(shape, strides, strict=True)
    last = offset + sum((length - 1) * stride for length, stride in steps)
    # More numbers than the storage has: one of them repeated without end.
    if size > storage.size or (size and last >= storage.size):
        raise ValueError(
            f"a tensor of shape {shape} and strides {strides} does not fit "
            f"into its storage of {storage.size}"
        )
    return np.lib.stride_tricks.as_strided(
        storage[offset:],
        shape,
        [stride * storage.itemsize for stride in strides],
    )


def _parameter(
    unpickler: Unpickler,
    data: object,
    requires_grad: object,
    hooks: object,
    state: object = None,
) -> object:
    return data


def _size(unpickler: Unpickler, shape: object) -> object:
    check_naturals(shape, "a shape")
    return shape


def _storage_dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        # Comes with TensorFlow and JAX.
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


_GLOBALS: dict[str, object] = {
    **GLOBALS,
    **{name: Unreadable(*name.split(" ")) for name in _RECORDS},
    **{name: _storage_dtype(dtype) for name, dtype in _STORAGES.items()},
    "torch Size": _size,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
}
