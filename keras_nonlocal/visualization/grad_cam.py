"""Where in a clip a network finds a class: Grad-CAM, for video.

"Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", Selvaraju et al., ICCV 2017.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.layers.pooling import WindowAverage
from keras_nonlocal.visualization import calls
from keras_nonlocal.visualization.layer_windows import GLOBAL_POOLINGS
from keras_nonlocal.visualization.receptive_field import ReceptiveField
from keras_nonlocal.visualization.receptive_field import ReceptiveFields
from keras_nonlocal.visualization.receptive_field import layout

_HEAD_POOLINGS = (
    WindowAverage,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    *GLOBAL_POOLINGS,
)
# What the score is taken before.
_ENDS = (keras.activations.softmax, keras.activations.sigmoid)


@dataclasses.dataclass(frozen=True, eq=False)
class GradCam:
    """What speaks for a class, and where.

    Attributes:
        class_index: The class.
        score: What the model gives for it, as it gives it: a probability if
            it ends in a softmax or a sigmoid.
        layer: Path of the layer whose output was weighted.
        heat: float32 `(T', H', W')`, at least 0, of no unit: equation 2 of
            the paper, with means over time as well as space. Heat of different
            classes and clips of one network can be compared.
        keys: Where the positions of `heat` are in the clip.
    """

    class_index: int
    score: float
    layer: str
    heat: np.ndarray
    keys: ReceptiveField

    def on_clip(self) -> np.ndarray:
        """Heat at every pixel of the clip, float32 `(T, H, W)`.

        Between the centres of receptive fields it is linear, outside of them
        constant.
        """
        return self.keys.on_clip(self.heat)


def grad_cam(
    model: keras.Model,
    clip: np.ndarray,
    target: int | None = None,
    layer: str | None = None,
) -> GradCam:
    """Where in a clip a network finds one class.

    The features of a layer are added up, each weighted with the mean over all
    positions of the gradient of the class's score; what is left below 0 speaks
    for other classes and is cut off. The score is the one before the softmax
    or sigmoid, where the model's last layer has one (ours, `Dense`,
    `Activation`, `Softmax`); probabilities of other layers are taken as they
    are. Models of several positions, or windows, have the mean of their
    scores.

    Takes any functional model, with and without non-local blocks, nested or
    reloaded; also image models, whose pictures count as clips of one frame.
    TensorFlow only.

    Args:
        model: A functional `keras.Model` or a built `keras.Sequential` with
            one input, and one output `(batch, classes)` or `(batch, features)`.
        clip: `(T, H, W, channels)` or `(1, T, H, W, channels)`, in the range
            that the model takes.
        target: Number of the class. Default: the one of the highest score.
        layer: The layer whose output is weighted, by its path,
            `"model/layer"` if it is in a nested model. Default: the last one
            that has time and space as the clip does and that everything goes
            through, before the average pooling of the head.

    Returns:
        A `GradCam`.

    Raises:
        ValueError: If an argument is not as described, or the score does not
            depend on the layer.
        RuntimeError: On another backend than TensorFlow.

    Example:

    >>> inputs = keras.Input((4, 16, 16, 3))
    >>> x = keras.layers.Conv3D(8, 3, strides=2, name="conv")(inputs)
    >>> x = keras.layers.GlobalAveragePooling3D()(x)
    >>> model = keras.Model(inputs, keras.layers.Dense(5)(x))
    >>> cam = grad_cam(model, np.ones((4, 16, 16, 3), "float32"), target=2)
    >>> cam.layer, cam.heat.shape, cam.on_clip().shape
    ('conv', (1, 7, 7), (4, 16, 16))
    """
    targets = 1 if target is None else [target]
    return grad_cams(model, clip, targets, layer)[0]


def grad_cams(
    model: keras.Model,
    clip: np.ndarray,
    targets: int | Sequence[int] = 5,
    layer: str | None = None,
) -> list[GradCam]:
    """`grad_cam` for several classes, with one pass through the network.

    Args:
        model: As for `grad_cam`.
        clip: As for `grad_cam`.
        targets: Numbers of the classes, or how many of the highest score.
        layer: As for `grad_cam`.

    Returns:
        A `GradCam` for each class, in the order of `targets`, or the highest
        score first.

    Raises:
        ValueError: As for `grad_cam`.
        RuntimeError: As for `grad_cam`.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Grad-CAM needs the TensorFlow backend. Received: "
            f"{keras.backend.backend()}"
        )
    clip = calls.one_clip(model, clip)
    path, node = _find(model, layer)
    run = _Run(node, _top(model))
    scores = run.scores(model, clip)
    is_first = layout(model) == "channels_first"
    fields = ReceptiveFields(
        model, clip.shape[2:] if is_first else clip.shape[1:-1]
    )
    (features,) = node.outputs
    keys, channels = fields.of(features), fields.channel_axis(features)
    cams = []
    for number in _classes(scores, targets):
        heat = run.heat(number, channels).reshape(keys.shape)
        cams.append(GradCam(number, float(scores[number]), path, heat, keys))
    return cams


class _Run:
    """Computes a network and keeps what its heat is computed from.

    Args:
        node: The call whose output is weighted.
        top: The call that gives the scores.
    """

    def __init__(self, node: Any, top: Any) -> None:
        self._node, self._top = node, top
        self._features: Any = None
        self._logits: Any = None
        # What comes before the features is not recorded.
        self._tape = tf.GradientTape(
            persistent=True, watch_accessed_variables=False
        )

    def scores(self, model: keras.Model, clip: np.ndarray) -> np.ndarray:
        """What the model gives, float32 `(classes,)`."""
        with self._tape:
            (scores,) = calls.run(model, [clip], self._apply)
        return np.asarray(scores[0], "float32")

    def _apply(self, path: str, node: Any, given: list[Any]) -> list[Any]:
        args, kwargs = calls.arguments(node, given)
        if node is self._top:
            scored = _before_activation(node.operation)
            self._logits = scored(*args, **kwargs)
        results = keras.tree.flatten(node.operation(*args, **kwargs))
        if node is self._node:
            (self._features,) = results
            self._tape.watch(self._features)
        return results

    def heat(self, number: int, channels: int) -> np.ndarray:
        """Equation 2 of the paper for one class.

        Args:
            number: Of the class.
            channels: The features' axis of channels.
        """
        with self._tape:
            score = self._logits[0, number]
        gradient = self._tape.gradient(score, self._features)
        if gradient is None:
            raise ValueError(
                "`layer` must be one that the scores depend on. Received: "
                f"{self._node.operation.name!r}"
            )
        features, gradient = (
            np.moveaxis(np.asarray(values, "float32"), channels, -1)[0]
            for values in (self._features, gradient)
        )
        weights = gradient.reshape(-1, gradient.shape[-1]).mean(axis=0)
        return np.maximum(features @ weights, 0)


def _top(model: keras.Model) -> Any:
    """The call that gives the model's scores."""
    graph = calls.graph_of(model)
    shapes = [tuple(tensor.shape) for tensor in graph.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ValueError(
            "`model` must have one output, scores (batch, classes) or features "
            f"(batch, channels). Received: {shapes}"
        )
    # Every call stands for what it gives.
    (top,) = calls.run(
        graph, [None], lambda path, node, given: [node] * len(node.outputs)
    )
    return top


def _before_activation(operation: Any) -> Any:
    """What gives an operation's result without its softmax or sigmoid."""
    if isinstance(operation, keras.layers.Softmax):
        return lambda inputs, *args, **kwargs: inputs
    activation = getattr(operation, "activation", None)
    if activation not in _ENDS or not isinstance(operation, keras.Layer):
        return operation
    plain = type(operation).from_config(
        {**operation.get_config(), "activation": "linear"}
    )
    plain.build(operation.input.shape)
    plain.set_weights(operation.get_weights())
    return plain


class _Call(NamedTuple):
    """A call of a layer.

    Attributes:
        path: Of the layer.
        node: The call, as `calls.run` names it.
        is_map: Whether its output has as many axes as a clip.
        is_cut: Whether everything goes through its output.
    """

    path: str
    node: Any
    is_map: bool
    is_cut: bool


def _find(model: keras.Model, layer: str | None) -> tuple[str, Any]:
    """Path and call of the layer to weight."""
    trail = _trail(model)
    if layer is None:
        return _default(model, trail)
    # Of several calls the last.
    paths = {call.path: call.node for call in trail if call.is_map}
    if layer not in paths:
        close = difflib.get_close_matches(layer, paths, cutoff=0)
        raise ValueError(
            "`layer` must be the path of a layer whose output has time and "
            f"space as the clip does. Received: {layer!r}. Close: {close}"
        )
    return layer, paths[layer]


def _trail(model: keras.Model) -> list[_Call]:
    """The calls of a model, in the order of computing."""
    rank = len(calls.graph_of(model).inputs[0].shape)
    found: list[tuple[str, Any, list[object]]] = []
    # The call after which a value is no longer needed.
    last: dict[object, int] = {}

    def apply(path: str, node: Any, given: list[object]) -> list[object]:
        last.update((value, len(found)) for value in given)
        outputs = [object() for _ in node.outputs]
        found.append((path, node, outputs))
        return outputs

    entry = object()
    ends = calls.run(model, [entry], apply)
    last.update((value, len(found)) for value in ends)
    trail = []
    needed = {entry}
    for number, (path, node, outputs) in enumerate(found):
        needed = {
            value
            for value in (*needed, *outputs)
            if last.get(value, number) > number
        }
        is_map = len(outputs) == 1 and _is_map(node.outputs[0], rank)
        trail.append(_Call(path, node, is_map, needed == {outputs[0]}))
    return trail


def _is_map(tensor: keras.KerasTensor, rank: int) -> bool:
    is_float = keras.backend.is_float_dtype(tensor.dtype)
    return len(tensor.shape) == rank and is_float


def _default(model: keras.Model, trail: list[_Call]) -> tuple[str, Any]:
    """The last maps before the average pooling of the head.

    What comes after it may still have the axes of a clip: logits in several
    places, which are averaged at the very end. Branches, as those of an
    Inception module, are not the head.
    """
    chosen = branch = None
    for path, node, is_map, is_cut in reversed(trail):
        if is_cut and isinstance(node.operation, _HEAD_POOLINGS):
            chosen = branch = None
        elif not is_map:
            continue
        elif chosen is None and not is_cut:
            if branch is None and _mixes_positions(node.operation):
                branch = path
        elif _mixes_positions(node.operation):
            chosen = chosen or (path, node)
            break
        else:
            chosen = chosen or (path, node)
    if branch:
        raise ValueError(
            "`layer` must be given for a model of branches that do not meet "
            "while they have time and space. Received: layer=None; the last "
            f"layer of one of them is {branch!r}"
        )
    if chosen is None:
        raise ValueError(
            "`model` must have a layer whose output has time and space as its "
            f"input does. Received: {model.name!r}, which has none"
        )
    return chosen


def _mixes_positions(operation: Any) -> bool:
    windows = [
        getattr(operation, name, None) or ()
        for name in ("kernel_size", "pool_size")
    ]
    return isinstance(operation, NonLocal) or any(
        size > 1 for window in windows for size in window
    )


def _classes(scores: np.ndarray, targets: int | Sequence[int]) -> list[int]:
    """Numbers of classes that exist."""
    if isinstance(targets, (int, np.integer)):
        if targets < 1:
            raise ValueError(
                f"`targets` must be positive. Received: targets={targets}"
            )
        return np.argsort(-scores, kind="stable")[:targets].tolist()
    wrong = [n for n in targets if not 0 <= n < len(scores)]
    if wrong:
        raise ValueError(
            f"`targets` must be from 0 to {len(scores) - 1}. Received: {wrong}"
        )
    return [int(number) for number in targets]
