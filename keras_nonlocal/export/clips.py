"""SavedModels of networks that take clips."""

import os
import pathlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_nonlocal.export.saved_model import writing
from keras_nonlocal.layers.preprocessing import ClipNormalization
from keras_nonlocal.models.folding import fold_batch_norm

_TOLERANCE = 1e-5
# Of the largest score, for a frozen graph of half precision: folded kernels are
# rounded anew, and operations that run as one round once.
_HALF_TOLERANCE = 0.05
# A graph is a protocol buffer, of less than 2 GiB.
_MAX_BYTES = 2**31 - 2**24
# A clip of this many frames, rows and columns passes every network.
_AMPLE = 256


def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    about: dict | None = None,
    overwrite: bool = False,
    frozen: bool = False,
) -> None:
    """Writes a SavedModel that takes uint8 RGB clips.

    The serving signature is `(batch, frames, height, width, 3)` uint8 to
    `(batch, classes)` float32; every size that the model's input leaves open is
    dynamic. What was written is loaded again and compared with the model before
    it is moved to `path`.

    Args:
        model: A functional model of this package, with its preprocessing.
        path: Folder to write.
        about: What to write beside the graph, JSON: class names, clip and the
            like; `read_about` gives it back.
        overwrite: Whether an existing folder may be replaced.
        frozen: Whether to write the model as it serves fastest: its norms
            folded (`fold_batch_norm`) and its weights constants of the graph,
            not variables. In half precision the scores then differ from the
            model's by its rounding.

    Raises:
        FileExistsError: If the folder exists and `overwrite` is not set.
        ValueError: If the model does not take RGB in 0..255, if what was
            written differs from the model, or if the weights are too large
            (2 GiB) for constants.
    """
    if not any(isinstance(layer, ClipNormalization) for layer in model.layers):
        raise ValueError(
            "The serving signature takes RGB in 0..255: build the model with "
            f"include_preprocessing=True. Received: model {model.name!r}"
        )
    with writing(path, about, overwrite) as written:
        _write(model, written, frozen)
        _verify(model, written, frozen)


def _write(model: keras.Model, path: pathlib.Path, frozen: bool) -> None:
    signature = tf.TensorSpec(model.input_shape, tf.uint8, name="clip")
    smallest = [_smallest(model, axis) for axis in (1, 2, 3)]
    predict = _frozen(model) if frozen else model

    def serve(clip: tf.Tensor) -> tf.Tensor:
        is_large_enough = tf.debugging.assert_greater_equal(
            tf.shape(clip)[1:4],
            smallest,
            f"The network takes clips of at least {smallest} frames, rows and "
            "columns. Received fewer",
        )
        with tf.control_dependencies([is_large_enough]):
            clip = tf.cast(clip, tf.float32)
        return predict(clip, training=False)

    if frozen:
        # Keras's archive holds the variables of a model, of which none is left.
        module = tf.Module()
        module.serve = tf.function(serve, input_signature=[signature])
        names = ("serve", "serving_default")
        signatures = dict.fromkeys(names, module.serve)
        tf.saved_model.save(module, os.fspath(path), signatures)
        return
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(name="serve", fn=serve, input_signature=[signature])
    archive.write_out(os.fspath(path), verbose=False)


def _frozen(model: keras.Model) -> Callable[..., tf.Tensor]:
    """The model without norms, its weights constants of the graph it is in."""
    folded = fold_batch_norm(model)
    trainable, others = (
        [keras.ops.convert_to_numpy(weight) for weight in weights]
        for weights in (
            folded.trainable_variables,
            folded.non_trainable_variables,
        )
    )
    size = sum(value.nbytes for value in [*trainable, *others])
    if size > _MAX_BYTES:
        raise ValueError(
            f"`frozen` is for models of up to {_MAX_BYTES} bytes of weights. "
            f"Received: {model.name!r}, of {size}"
        )

    def predict(clip: tf.Tensor, training: bool) -> tf.Tensor:
        outputs, _ = folded.stateless_call(
            [tf.constant(value) for value in trainable],
            [tf.constant(value) for value in others],
            clip,
            training=training,
        )
        return outputs

    return predict


def _smallest(model: keras.Model, axis: int) -> int:
    """The fewest frames, rows or columns that pass through the network."""
    shape = [given or _AMPLE for given in (1, *model.input_shape[1:])]
    for size in range(1, shape[axis]):
        smaller = shape.copy()
        smaller[axis] = size
        try:
            model.compute_output_shape(smaller)
        except ValueError:
            continue
        return size
    return shape[axis]


def _verify(model: keras.Model, path: pathlib.Path, frozen: bool) -> None:
    """Compares the written graph with the model on two random clips."""
    shape = [2, *(2 * _smallest(model, axis) for axis in (1, 2, 3)), 3]
    shape = [
        given or size
        for given, size in zip(model.input_shape, shape, strict=True)
    ]
    clip = np.random.default_rng(0).integers(0, 256, shape, "uint8")
    loaded = tf.saved_model.load(os.fspath(path))
    # As a graph, like the export: in half precision the two forms round
    # differently.
    expected = np.asarray(tf.function(model)(clip, training=False))
    error = np.max(np.abs(np.asarray(loaded.serve(clip)) - expected))
    largest = float(np.max(np.abs(expected)))
    limit = _TOLERANCE * max(1.0, largest)
    if frozen and any(_is_half(layer) for layer in model.layers):
        limit = _HALF_TOLERANCE * largest
    if not error <= limit:
        raise ValueError(
            f"The exported model differs from {model.name!r} by {error:.2g}, "
            f"more than {limit:.2g}; nothing was written."
        )


def _is_half(layer: keras.layers.Layer) -> bool:
    return layer.compute_dtype in ("float16", "bfloat16")
