"""From clips to scores of one kind, whatever a model gives."""

import hashlib
import json
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_nonlocal.layers.network_record import NetworkRecord
from keras_nonlocal.layers.pooling import PositionAverage
from keras_nonlocal.layers.preprocessing import ClipNormalization
from keras_nonlocal.models import graph

OUTPUTS = ("softmax", "sigmoid", "logit")
# Of probabilities, in half precision too.
_TOLERANCE = 1e-2


class Scorer:
    """Calls a model and gives the scores that a protocol averages.

    Args:
        model: A `keras.Model`, or a function as the `serve` of an exported
            one, from uint8 clips `(batch, T, H, W, 3)` to `(batch, classes)`.
        average: `"probability"` or `"logit"`.
        num_classes: Classes of the videos.
        multi_label: Whether a video may have several.
        outputs: What the model gives, one of `OUTPUTS`. Default: what the last
            activation of a Keras model says; functions must give
            probabilities.

    Raises:
        ValueError: If the model does not give what is averaged, or that cannot
            be known.
    """

    def __init__(
        self,
        model: keras.Model | Callable[[np.ndarray], Any],
        average: str,
        num_classes: int,
        multi_label: bool,
        outputs: str | None = None,
    ) -> None:
        if outputs not in (None, *OUTPUTS):
            raise ValueError(
                f"`outputs` must be one of {OUTPUTS} or None. "
                f"Received: outputs={outputs!r}"
            )
        self._num_classes = num_classes
        self._probability = "sigmoid" if multi_label else "softmax"
        wanted = self._probability if average == "probability" else "logit"
        if isinstance(model, keras.Model):
            check_takes_pixels(model)
            model, outputs = _asked_for(model, wanted, outputs)
            self._model = model  # Which `prediction` does not hold.
            self._call = prediction(model)
        else:
            outputs = outputs or self._probability
            self._call = model
        self._outputs, self._wanted = outputs, wanted
        if wanted == "logit" and outputs != "logit":
            raise ValueError(
                "`model` must give logits for a protocol that averages them "
                "(classifier_activation=None). Received: a model that gives "
                f"{outputs} scores"
            )
        if multi_label and outputs == "softmax":
            raise ValueError(
                "`model` must give sigmoid scores or logits for videos that "
                "may have several classes. Received: a model with a softmax"
            )

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """Scores of uint8 clips `(batch, T, H, W, 3)`.

        Returns:
            float64 of shape `(batch, classes)`.

        Raises:
            ValueError: If the model gives another shape, no finite numbers, or
                something else than it should.
        """
        scores = keras.ops.convert_to_numpy(self._call(clips))
        scores = scores.astype("float64")
        expected = (len(clips), self._num_classes)
        if scores.shape != expected:
            raise ValueError(
                f"`model` must give scores of shape {expected}, for each class "
                f"of the videos. Received: shape {scores.shape}"
            )
        if not np.isfinite(scores).all():
            raise ValueError(
                "`model` must give finite scores. Received: "
                f"{scores[~np.isfinite(scores)][0]}"
            )
        if self._outputs != "logit":
            self._check_probabilities(scores)
        elif self._wanted != "logit":
            return _PROBABILITIES[self._wanted](scores)
        return scores

    def _check_probabilities(self, scores: np.ndarray) -> None:
        sums = scores.sum(axis=1)
        is_whole = self._outputs == "sigmoid" or np.all(
            np.abs(sums - 1) < _TOLERANCE
        )
        low, high = scores.min(), scores.max()
        if low < -_TOLERANCE or high > 1 + _TOLERANCE or not is_whole:
            raise ValueError(
                f"`model` must give {self._outputs} scores; if it gives "
                "something else, say so by `outputs`. Received: scores from "
                f"{low:.3g} to {high:.3g} with sums from {sums.min():.3g} to "
                f"{sums.max():.3g}"
            )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities from logits, over the last axis.

    >>> softmax(np.array([0.0, np.log(3)]))
    array([0.25, 0.75])
    """
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * logits))


_PROBABILITIES = {"softmax": softmax, "sigmoid": _sigmoid}


def digest(model: keras.Model) -> str:
    """What tells a network and its weights from others, in hex digits."""
    found = hashlib.sha256()
    for layer in model.layers:
        # Strides and the like have no weights.
        network = layer.network if isinstance(layer, NetworkRecord) else None
        found.update(json.dumps([type(layer).__name__, network]).encode())
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        found.update(json.dumps([list(value.shape), str(value.dtype)]).encode())
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()


def check_takes_pixels(model: keras.Model) -> None:
    """Raises `ValueError` if one of our networks has no preprocessing."""
    kinds = [type(layer) for layer in model.layers]
    if NetworkRecord in kinds and ClipNormalization not in kinds:
        raise ValueError(
            "`model` must take RGB in 0..255: build it with "
            f"include_preprocessing=True. Received: model {model.name!r}"
        )


def _asked_for(
    model: keras.Model, wanted: str, outputs: str | None
) -> tuple[keras.Model, str]:
    """The model, with the wanted activation if it has one that can be changed.

    A network that averages probabilities over positions (fully-convolutional
    testing) has to apply its activation before it does.
    """
    plain, last = _last_layer(model)
    found = outputs_of(model)
    if outputs is not None and found not in (None, outputs):
        raise ValueError(
            f"`outputs` must be None or {found!r}, what the last activation "
            f"of the model gives. Received: outputs={outputs!r}"
        )
    outputs = outputs or found
    if outputs is None:
        raise ValueError(
            "`outputs` must say what the model gives, one of "
            f"{OUTPUTS}: its last layer, {last.name!r}, does not. "
            "Received: outputs=None"
        )
    # Sigmoid and softmax are no forms of each other.
    if outputs == wanted or "logit" not in (outputs, wanted):
        return model, outputs
    if isinstance(last, (PositionAverage, keras.layers.Activation)):
        return _with_activation(plain, last, wanted), wanted
    return model, outputs


def outputs_of(model: keras.Model) -> str | None:
    """What a model's last activation says it gives, one of `OUTPUTS`.

    >>> outputs_of(keras.Sequential([keras.layers.Dense(2, "sigmoid")]))
    >>> entry = keras.Input((3,))
    >>> scores = keras.layers.Dense(2, "sigmoid")(entry)
    >>> outputs_of(keras.Model(entry, scores))
    'sigmoid'
    """
    _, last = _last_layer(model)
    return _OUTPUTS_OF.get(getattr(last, "activation", None))


def _last_layer(
    model: keras.Model,
) -> tuple[keras.Model | None, keras.layers.Layer]:
    """The plain functional model, if it is one, and what gives its scores."""
    plain = graph.functional_graph(model)
    if plain is None:
        return None, model
    if not isinstance(plain.output, keras.KerasTensor):
        raise ValueError(
            "`model` must have one output, scores (batch, classes), and not "
            "several or in a list or dictionary. Received: the model "
            f"{model.name!r} with outputs {plain.output}"
        )
    return plain, plain.output._keras_history.operation


_OUTPUTS_OF = {
    keras.activations.softmax: "softmax",
    keras.activations.sigmoid: "sigmoid",
    keras.activations.linear: "logit",
}


def _with_activation(
    model: keras.Model, last: keras.layers.Layer, wanted: str
) -> keras.Model:
    """A functional model of the same layers, but for the last activation."""
    activation = "linear" if wanted == "logit" else wanted
    other = type(last).from_config(
        {**last.get_config(), "activation": activation}
    )
    return keras.models.clone_model(
        model,
        input_tensors=keras.tree.map_structure(graph.fresh_input, model.input),
        clone_function=lambda layer: other if layer is last else layer,
    )


def prediction(model: keras.Model) -> Callable[[np.ndarray], Any]:
    """What to call a model by on clips of many sizes, for inference.

    The same for a model each time, so that it is traced once. It does not hold
    the model, which must be kept as long as it is called.
    """
    if keras.backend.backend() != "tensorflow":
        return model.predict_on_batch
    if model not in _predictions:
        _predictions[model] = _traced(weakref.ref(model))
    return _predictions[model]


_predictions: weakref.WeakKeyDictionary[
    keras.Model, Callable[[np.ndarray], Any]
] = weakref.WeakKeyDictionary()


def _traced(
    model: Callable[[], keras.Model | None],
) -> Callable[[np.ndarray], Any]:
    import tensorflow as tf

    # `predict` may compile anew for each size, and whole frames have many.
    # There is no control flow of tensors for AutoGraph to convert.
    @tf.function(autograph=False, reduce_retracing=True, jit_compile=False)
    def call(clips: tf.Tensor) -> tf.Tensor:
        found = model()
        if found is None:
            raise ReferenceError("The model that was to be called is gone.")
        return found(clips, training=False)

    return call
