"""Strict loading: each tensor used once, each variable filled, or an error."""

import dataclasses
import json
from typing import Any

import keras
import numpy as np
from absl import logging

from keras_nonlocal.layers.batch_norm import EPSILON
from keras_nonlocal.weights import flags
from keras_nonlocal.weights import layouts
from keras_nonlocal.weights.content import OWN
from keras_nonlocal.weights.content import CheckpointFile
from keras_nonlocal.weights.names import FAMILIES

_CLASSIFIER = "logits"
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


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
        fresh: Layers for which the file has nothing, left as they were.
    """

    path: str
    family: str
    filled: int
    ignored: list[str]
    duplicates: list[str]
    left_out: list[str]
    inflated: list[str]
    folded: list[str]
    fresh: list[str] = dataclasses.field(default_factory=list)


def fill(
    model: keras.Model,
    checkpoint: CheckpointFile,
    network: Any = None,
    may_lack: tuple[str, ...] = (),
    any_classes: bool = False,
) -> LoadReport:
    """Loads a checkpoint into a model; nothing is changed if it does not fit.

    2-D kernels are inflated into 3-D ones, repeated over time and divided by
    the number of frames, as all families do that inflate. Batch norms are
    folded where the model has `Affine` layers. The classifier is left out
    where the model has none.

    Args:
        model: A functional model of this package, or a `MaskRCNN`.
        checkpoint: What `open_checkpoint` gave.
        network: The `Variant` that the model was built from: flags that the
            file contradicts are refused, whether names and shapes show it or
            not.
        may_lack: Beginnings of the names of layers that a file may leave out,
            all that begin alike or none. They stay as they are.
        any_classes: Whether a detector's file may be of another number of
            classes. The layers that depend on it then stay as they are.

    Returns:
        A `LoadReport`.

    Raises:
        ValueError: With all that is missing, left over or of another shape,
            and the flags of `network` that the file contradicts.
    """
    wanted = variables(model)
    tensors = layouts.reordered(checkpoint, wanted)
    left_out = _drop_absent_top(checkpoint, tensors, wanted)
    fresh = _drop_fresh(wanted, tensors, may_lack)
    if any_classes:
        fresh += _drop_other_classes(wanted, tensors)
    folded = _fold(tensors, wanted)
    problems = _Problems(checkpoint)
    problems.compare(wanted, tensors)
    problems.compare_network(network, model)
    values = {}
    for path in sorted(wanted.keys() & tensors.keys()):
        shape = tuple(wanted[path].shape)
        values[path] = _arrange(tensors[path], shape, checkpoint.family)
        problems.check_value(path, tensors[path], values[path], shape)
    problems.raise_if_any()
    for path, variable in wanted.items():
        variable.assign(values[path])
    return LoadReport(
        checkpoint.path,
        checkpoint.family,
        len(wanted),
        checkpoint.ignored,
        [name for same in checkpoint.sources.values() for name in same[1:]],
        left_out,
        sorted(
            _layer(path)
            for path, value in values.items()
            if tensors[path].ndim == 4 and len(wanted[path].shape) == 5
        ),
        folded,
        fresh,
    )


def variables(model: keras.Model) -> dict[str, Any]:
    """The variables of a model by their paths, `layer/variable`.

    Args:
        model: Functional, or made of functional models as `MaskRCNN` is.
    """
    found: dict[str, Any] = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= variables(layer)
            continue
        for variable in layer.weights:
            parts = variable.path.split("/")
            # Whatever scope the model was built in.
            path = "/".join(parts[parts.index(layer.name) :])
            found[path] = variable
    return found


def _layer(path: str) -> str:
    return path.partition("/")[0]


def _drop_absent_top(
    checkpoint: CheckpointFile,
    tensors: dict[str, np.ndarray],
    wanted: dict[str, Any],
) -> list[str]:
    """Drops a classifier that the model has no room for; gives its names."""
    if any(_layer(path) == _CLASSIFIER for path in wanted):
        return []
    top = [path for path in tensors if _layer(path) == _CLASSIFIER]
    for path in top:
        del tensors[path]
    return [name for path in top for name in checkpoint.sources[path]]


def _drop_fresh(
    wanted: dict[str, Any],
    tensors: dict[str, np.ndarray],
    may_lack: tuple[str, ...],
) -> list[str]:
    """Drops what a file may leave out, and does; gives the layers."""
    layers: set[str] = set()
    for start in may_lack:
        if not any(path.startswith(start) for path in tensors):
            paths = [path for path in wanted if path.startswith(start)]
            layers |= {_layer(path) for path in paths}
            for path in paths:
                del wanted[path]
    return sorted(layers)


def _drop_other_classes(
    wanted: dict[str, Any], tensors: dict[str, np.ndarray]
) -> list[str]:
    """Drops what depends on the classes if their numbers differ."""
    here, there = layouts.class_count(wanted), layouts.class_count(tensors)
    if here == there or not layouts.is_detector(tensors):
        return []
    for paths in (wanted, tensors):
        for path in [
            path for path in paths if _layer(path) in layouts.BY_CLASS
        ]:
            del paths[path]
    return list(layouts.BY_CLASS)


def _fold(tensors: dict[str, np.ndarray], wanted: dict[str, Any]) -> list[str]:
    """Folds the batch norms that the model has as `Affine`, in place."""
    folded = []
    for path in [p for p in tensors if p.endswith("/moving_mean")]:
        norm = path.rpartition("/")[0]
        names = [f"{norm}/{name}" for name in _BATCH_NORM]
        gamma_here = wanted.get(names[0])
        if gamma_here is None or path in wanted:
            continue
        shape = tuple(gamma_here.shape)
        if any(
            n not in tensors
            or tensors[n].shape != shape
            or not np.issubdtype(tensors[n].dtype, np.floating)
            for n in names
        ):
            continue  # Is told as missing, left over or of another shape.
        gamma, beta, mean, variance = (
            tensors[name].astype("float64") for name in names
        )
        gamma = gamma / np.sqrt(variance + EPSILON)
        tensors[names[0]] = gamma.astype("float32")
        tensors[names[1]] = (beta - mean * gamma).astype("float32")
        del tensors[names[2]], tensors[names[3]]
        folded.append(norm)
    return folded


def _arrange(
    array: np.ndarray, shape: tuple[int, ...], family: str
) -> np.ndarray | None:
    """A tensor in our layout, inflated where needed; `None` if it can't be."""
    if family == OWN or FAMILIES[family].channels_last:
        # TensorFlow keeps statistics as (1, ..., C).
        if family != OWN and array.shape[:-1] == (1,) * (array.ndim - 1):
            array = array.reshape(array.shape[-len(shape) :])
        return array if array.shape == shape else None
    if array.ndim <= 1:
        return array if array.shape == shape else None
    # (O, I, ...) to (..., I, O); of a transposed convolution (I, O, ...) to
    # (..., O, I).
    array = np.moveaxis(array, (0, 1), (-1, -2))
    if len(shape) == 5 and array.ndim == 4:
        frames = shape[0]
        array = np.repeat(array[np.newaxis], frames, axis=0) / frames
    # A Dense has not the ones of a 1x1x1 convolution.
    ones = array.ndim - len(shape)
    if ones > 0 and array.shape[:ones] == (1,) * ones:
        array = array.reshape(array.shape[ones:])
    return array if array.shape == shape else None


class _Problems:
    """Everything in which a checkpoint does not fit a model."""

    def __init__(self, checkpoint: CheckpointFile) -> None:
        self._checkpoint = checkpoint
        self._missing: list[str] = []
        self._left_over: list[str] = []
        self._shapes: list[str] = []
        self._values: list[str] = []
        self._fields: list[str] = []
        self._settings: list[str] = []

    def compare(
        self, wanted: dict[str, Any], tensors: dict[str, np.ndarray]
    ) -> None:
        """Names; a wrong number of classes is raised alone."""
        here = layouts.class_count(wanted)
        there = layouts.class_count(tensors)
        if layouts.is_detector(wanted) != layouts.is_detector(tensors):
            self._raise_other_kind(layouts.is_detector(tensors))
        if None not in (here, there) and here != there:
            other = "include_top=False and a classifier of your own"
            if layouts.is_detector(wanted):
                other = layouts.OTHER_CLASSES
            raise ValueError(
                f"{self._checkpoint.path!r} holds {there} classes but "
                f"classes={here} was asked for. Take classes={there}, or "
                f"{other}."
            )
        self._missing = sorted(wanted.keys() - tensors.keys())
        self._left_over = [
            name
            for path in sorted(tensors.keys() - wanted.keys())
            for name in self._checkpoint.sources[path]
        ]

    def _raise_other_kind(self, is_detector: bool) -> None:
        if is_detector:
            raise ValueError(
                f"{self._checkpoint.path!r} is of a detector: only a MaskRCNN "
                "takes it, as `weights`."
            )
        raise ValueError(
            f"{self._checkpoint.path!r} is not of a detector. A MaskRCNN "
            "takes an image network as `backbone_weights`."
        )

    def compare_network(self, network: Any, model: keras.Model) -> None:
        """What names and shapes do not show, as far as the file does."""
        reads_pixels = any(layer.name == "normalize" for layer in model.layers)
        self._fields = flags.contradictions(
            self._checkpoint, network, reads_pixels
        )
        if "network" in self._checkpoint.about:
            return
        self._settings = _other_settings(self._checkpoint, model)
        if self._checkpoint.family == OWN and not self._checkpoint.settings:
            logging.warning(
                "%s does not say which network it is of: only names and "
                "shapes of its weights could be compared.",
                self._checkpoint.path,
            )

    def check_value(
        self,
        path: str,
        array: np.ndarray,
        value: np.ndarray | None,
        shape: tuple[int, ...],
    ) -> None:
        """Shape and numbers of one tensor."""
        if value is None:
            self._shapes.append(
                f"{path} {array.shape} in the file, {shape} here"
            )
        elif not np.issubdtype(value.dtype, np.floating):
            self._values.append(f"{path} is of {value.dtype}")
        elif not _is_finite(value):
            self._values.append(f"{path} has numbers that are not finite")
        elif path.endswith("/moving_variance") and np.min(value) < 0:
            self._values.append(f"{path} is negative")

    def raise_if_any(self) -> None:
        """Raises one error with all of them."""
        lines = [f"{self._checkpoint.path!r} is of another network."]
        if self._missing or self._left_over or self._shapes:
            lines += [
                f"Missing: {_list(self._missing)}",
                f"Left over: {_list(self._left_over)}",
                f"Of another shape: {_list(self._shapes)}",
            ]
        for title, items in (
            ("Not to be used:", self._values),
            ("Fields of the variant to change:", self._fields),
            ("Layers that are set differently:", self._settings),
        ):
            if items:
                lines += [title, *items]
        if len(lines) > 1:
            raise ValueError("\n".join(lines))


def _is_finite(value: np.ndarray) -> bool:
    """Whether all numbers are finite in float32, which they become."""
    with np.errstate(over="ignore"):
        return bool(np.all(np.isfinite(value.astype("float32"))))


def _list(items: list[str]) -> str:
    items = [item[:200] for item in items]
    return f"{', '.join(items)} ({len(items)})" if items else "nothing"


# Settings that may differ from those a file was saved with: they belong to
# training, to what is made of the logits, or to how the same is computed.
_FREE = {
    "activation",
    "algorithm",
    "chunk_size",
    "dtype",
    "lowering",
    "name",
    "norm",
    "rate",
    "seed",
    "synchronized",
    "trainable",
    "units",
}
# Layers that an argument of the constructors adds or leaves out.
_FREE_LAYERS = {"normalize", "network", "avg_pool", "max_pool"}
_TOP_LAYERS = {"pool5", "dropout", "logits", "mean_logits", "predictions"}


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
    for name in sorted(ours.keys() & theirs.keys()):
        # What one of the two does not have is of another version, or of a
        # norm that was folded.
        different += [
            f"{name}: {key} is {theirs[name][key]!r} in the file, "
            f"{ours[name][key]!r} here"
            for key in sorted(ours[name].keys() & theirs[name].keys())
            if theirs[name][key] != ours[name][key]
        ]
    return different


def _settings(layer: dict[str, Any]) -> dict[str, Any]:
    """Of a serialised layer, what changes its results."""
    return {
        key: value
        for key, value in layer["config"].items()
        if key not in _FREE and not key.endswith("_initializer")
    }
