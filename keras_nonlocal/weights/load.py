"""Strict loading: each tensor used once, each variable filled, or an error."""

import dataclasses
import json
from typing import Any

import keras
import numpy as np

from keras_nonlocal.layers.batch_norm import EPSILON
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.weights import flags
from keras_nonlocal.weights.files import OWN
from keras_nonlocal.weights.files import CheckpointFile
from keras_nonlocal.weights.names import FAMILIES

_CLASSIFIER = "logits"
_STATISTICS = ("moving_mean", "moving_variance")


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a file.

    Attributes:
        path: The file.
        family: Its family.
        filled: Number of variables filled.
        ignored: Names in the file that are no weights (optimizer state, ...).
        duplicates: Names of tensors that the file holds a second time.
        left_out: Names of the classifier, if the model has none.
        inflated: Layers whose 2-D kernels were repeated over time.
        folded: Batch norms that were folded into a scale and a shift.
    """

    path: str
    family: str
    filled: int
    ignored: list[str]
    duplicates: list[str]
    left_out: list[str]
    inflated: list[str]
    folded: list[str]


def fill(
    model: keras.Model, checkpoint: CheckpointFile, network: Any = None
) -> LoadReport:
    """Loads a checkpoint into a model; nothing is changed if it does not fit.

    2-D kernels are inflated into 3-D ones, repeated over time and divided by
    the number of frames, as all families do that inflate. Batch norms are
    folded where the model has `Affine` layers. The classifier is left out
    where the model has none.

    Args:
        model: A functional model of this package.
        checkpoint: What `open_checkpoint` gave.
        network: The `Variant` that the model was built from: flags that the
            file contradicts are refused, whether names and shapes show it or
            not.

    Returns:
        A `LoadReport`.

    Raises:
        ValueError: With all that is missing, left over or of another shape,
            and the flags of `network` that the file contradicts.
    """
    wanted = variables(model)
    tensors = dict(checkpoint.tensors)
    has_top = any(_layer(path) == _CLASSIFIER for path in wanted)
    top = [path for path in tensors if _layer(path) == _CLASSIFIER]
    left_out = (
        [] if has_top else [n for p in top for n in checkpoint.sources[p]]
    )
    if not has_top:
        tensors = {p: a for p, a in tensors.items() if p not in top}
    folded = _fold(tensors, wanted)
    values, inflated, other_shapes = {}, [], []
    for path in wanted.keys() & tensors.keys():
        shape = tuple(wanted[path].shape)
        value = _arrange(tensors[path], shape, checkpoint.family)
        if value is None:
            other_shapes.append(
                f"{path} {tensors[path].shape} in the file, {shape} here"
            )
            continue
        if value.ndim == 5 and tensors[path].ndim == 4:
            inflated.append(_layer(path))
        values[path] = value
    _check_classes(checkpoint, wanted, tensors)
    _check(checkpoint, model, network, wanted, tensors, other_shapes)
    for path, variable in wanted.items():
        variable.assign(values[path])
    return LoadReport(
        checkpoint.path,
        checkpoint.family,
        len(wanted),
        checkpoint.ignored,
        [name for same in checkpoint.sources.values() for name in same[1:]],
        left_out,
        sorted(inflated),
        folded,
    )


def variables(model: keras.Model) -> dict[str, Any]:
    """The variables of a functional model by their paths, `layer/variable`."""
    found = {}
    for layer in model.layers:
        for variable in layer.weights:
            parts = variable.path.split("/")
            # Whatever scope the model was built in.
            path = "/".join(parts[parts.index(layer.name) :])
            found[path] = variable
    return found


def _layer(path: str) -> str:
    return path.partition("/")[0]


def _fold(tensors: dict[str, np.ndarray], wanted: dict[str, Any]) -> list[str]:
    """Folds the batch norms that the model has as `Affine`, in place."""
    means = [path for path in tensors if path.endswith("/moving_mean")]
    norms = [path.rpartition("/")[0] for path in means]
    folded = [
        norm
        for norm in norms
        if f"{norm}/gamma" in wanted and f"{norm}/moving_mean" not in wanted
    ]
    for norm in folded:
        mean, variance = (tensors.pop(f"{norm}/{s}") for s in _STATISTICS)
        # In float64: the result is as good as the float32 inputs allow.
        gamma = tensors[f"{norm}/gamma"] / np.sqrt(
            variance.astype("float64") + EPSILON
        )
        beta = tensors[f"{norm}/beta"] - mean * gamma
        tensors[f"{norm}/gamma"] = gamma.astype("float32")
        tensors[f"{norm}/beta"] = beta.astype("float32")
    return folded


def _arrange(
    array: np.ndarray, shape: tuple[int, ...], family: str
) -> np.ndarray | None:
    """A tensor in our layout, inflated where needed; `None` if it can't be."""
    if family == OWN or FAMILIES[family].channels_last:
        # TensorFlow keeps statistics as (1, ..., C).
        if array.size != np.prod(shape, dtype=int):
            return None
        return array if array.shape == shape else array.reshape(shape)
    if array.ndim <= 1:
        return array if array.shape == shape else None
    # (O, I, ...) to (..., I, O).
    array = np.moveaxis(array, (0, 1), (-1, -2))
    if len(shape) == 5 and array.ndim == 4:
        frames = shape[0]
        array = np.repeat(array[np.newaxis], frames, axis=0) / frames
    # A Dense has not the ones of a 1x1x1 convolution.
    ones = array.ndim - len(shape)
    if ones > 0 and array.shape[:ones] == (1,) * ones:
        array = array.reshape(array.shape[ones:])
    return array if array.shape == shape else None


def _check_classes(
    checkpoint: CheckpointFile,
    wanted: dict[str, Any],
    tensors: dict[str, np.ndarray],
) -> None:
    bias = f"{_CLASSIFIER}/bias"
    if bias not in wanted or bias not in tensors:
        return
    here, there = wanted[bias].shape[0], tensors[bias].size
    if here != there:
        raise ValueError(
            f"{checkpoint.path!r} holds {there} classes but classes={here} was "
            f"asked for. Take classes={there}, or include_top=False and a "
            "classifier of your own."
        )


def _check(
    checkpoint: CheckpointFile,
    model: keras.Model,
    network: Any,
    wanted: dict[str, Any],
    tensors: dict[str, np.ndarray],
    other_shapes: list[str],
) -> None:
    missing = sorted(wanted.keys() - tensors.keys())
    left_over = [
        name
        for path in sorted(tensors.keys() - wanted.keys())
        for name in checkpoint.sources[path]
    ]
    contradictions = []
    if isinstance(network, Variant):
        reads_pixels = any(layer.name == "normalize" for layer in model.layers)
        contradictions = flags.contradictions(checkpoint, network, reads_pixels)
    settings = _other_settings(checkpoint, model)
    if not (missing or left_over or other_shapes or contradictions or settings):
        return
    lines = [f"{checkpoint.path!r} is of another network."]
    if missing or left_over or other_shapes:
        lines += [
            f"Missing: {_list(missing)}",
            f"Left over: {_list(left_over)}",
            f"Of another shape: {_list(sorted(other_shapes))}",
        ]
    if contradictions:
        lines += ["Fields of the variant to change:", *contradictions]
    if settings:
        lines += ["Layers that are set differently:", *settings]
    raise ValueError("\n".join(lines))


def _list(items: list[str]) -> str:
    return f"{', '.join(items)} ({len(items)})" if items else "nothing"


# Settings that may differ from those a file was saved with: they belong to
# training, or to what is made of the logits.
_FREE = {
    "activation",
    "dtype",
    "name",
    "norm",
    "rate",
    "seed",
    "synchronized",
    "trainable",
    "units",
}
# Layers that an argument of the constructors adds or leaves out.
_FREE_LAYERS = {"normalize", "avg_pool", "max_pool"}
_TOP_LAYERS = {"pool5", "dropout", "logits", "predictions"}


def _other_settings(
    checkpoint: CheckpointFile, model: keras.Model
) -> list[str]:
    """How the layers of a `.keras` file are set differently from a model's."""
    if checkpoint.settings is None:
        return []
    theirs = {
        name: _settings(layer)
        for name, layer in checkpoint.settings.items()
        if layer["class_name"] != "InputLayer"
    }
    ours = {
        # By way of JSON, as the file: tuples become lists.
        layer.name: _settings(
            json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
        )
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    }
    free = set(_FREE_LAYERS)
    if _CLASSIFIER not in ours:
        free |= _TOP_LAYERS
    # Layers without weights count too: one of them pads pool1.
    different = [
        f"{name}: only {'here' if name in ours else 'in the file'}"
        for name in sorted((ours.keys() ^ theirs.keys()) - free)
    ]
    for name in ours.keys() & theirs.keys():
        different += [
            f"{name}: {key} is {theirs[name].get(key)!r} in the file, "
            f"{value!r} here"
            for key, value in ours[name].items()
            if theirs[name].get(key) != value
        ]
    return different


def _settings(layer: dict[str, Any]) -> dict[str, Any]:
    """Of a serialised layer, what changes its results."""
    return {
        key: value
        for key, value in layer["config"].items()
        if key not in _FREE and not key.endswith("_initializer")
    }
