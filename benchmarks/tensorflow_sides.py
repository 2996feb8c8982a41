"""Sides on TensorFlow: plain Keras, and this package."""

import dataclasses
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from benchmarks import inputs
from keras_nonlocal.export.clips import export_saved_model
from keras_nonlocal.models.folding import fold_batch_norm
from keras_nonlocal.models.macs import count_macs
from keras_nonlocal.models.rematerialization import rematerialize
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.ops import pairwise
from keras_nonlocal.training.optimizers import SGD

NETWORK = "nl_i3d_r50_8x8"
CLASSES = 400


def matmul(size, dtype):
    """A square matrix product."""
    a, b = inputs.normal((2, size, size))
    a, b = tf.cast(a, dtype), tf.cast(b, dtype)
    product = tf.function(tf.matmul)
    return lambda: product(a, b)


def plain_operation(mode, queries, keys, depth, width, backward):
    """Equation 1 as one writes it in Keras, the affinity stored."""

    def operation(theta, phi, g, w_f):
        if mode == "concatenation":
            of_queries = ops.einsum("bnd,dk->bnk", theta, w_f[:depth])
            of_keys = ops.einsum("bmd,dk->bkm", phi, w_f[depth:])
            weights = ops.relu(of_queries + of_keys) / keys
        else:
            weights = ops.einsum("bnd,bmd->bnm", theta, phi)
            if mode == "dot_product":
                weights = weights / keys
            else:
                weights = ops.softmax(weights * inputs.scale(depth))
        return ops.einsum("bnm,bmd->bnd", weights, g)

    return _operation(operation, mode, queries, keys, depth, width, backward)


def our_operation(mode, queries, keys, depth, width, backward, algorithm):
    """The package's, by a forced algorithm or by its own choice."""

    def operation(theta, phi, g, w_f):
        return pairwise.pairwise_sums(
            mode,
            theta,
            phi,
            g,
            scale=inputs.scale(depth),
            w_f=w_f if mode == "concatenation" else None,
            algorithm=algorithm,
        )

    return _operation(operation, mode, queries, keys, depth, width, backward)


def _operation(function, mode, queries, keys, depth, width, backward):
    tensors, cotangent = inputs.operation(queries, keys, depth, width)
    tensors = [tf.constant(tensor) for tensor in tensors]
    cotangent = tf.constant(cotangent)
    sources = tensors if mode == "concatenation" else tensors[:3]

    @tf.function
    def forward(*tensors):
        return function(*tensors)

    @tf.function
    def forward_and_backward(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = function(*tensors)
        return [y, *tape.gradient(y, tensors[: len(sources)], cotangent)]

    run = forward_and_backward if backward else forward
    return lambda: run(*tensors)


def write_weights(path, variant, clips):
    """Writes random weights of a network, by path: what all sides load.

    The scales keep activations of an untrained network in range.

    Returns:
        Multiply-adds of a clip by (frames, size), for each of `clips`.
    """
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    values = {}
    model = _network(variant)
    for weight in model.weights:
        value = np.asarray(keras.ops.convert_to_numpy(weight.value))
        if weight.path.endswith("gamma"):
            ends_branch = "branch2c" in weight.path or "norm" in weight.path
            value = rng.uniform(0.5, 1.0, value.shape)
            value *= 0.3 if ends_branch else 1.0
        elif weight.path.endswith("variance"):
            value = rng.uniform(0.5, 2.0, value.shape)
        elif value.ndim == 1:
            value = rng.normal(0.0, 0.1, value.shape)
        values[weight.path] = value.astype("float32")
    np.savez(path, **values)
    return {
        (frames, size): count_macs(model, (frames, size, size, 3))
        for frames, size in clips
    }


def inference(weights, variant, batch, frames, size, form, precision):
    """A network's logits.

    Args:
        weights: File of `write_weights`.
        variant: Fields of `Variant` to change in the benchmark's network.
        batch: Clips of a call.
        frames: Of a clip.
        size: Its height and width.
        form: "plain"; "folded": batch norm folded into the kernels; "frozen":
            the frozen export, loaded.
        precision: A Keras dtype policy.
    """
    keras.config.set_dtype_policy(precision)
    model = load(weights, variant, frames, size)
    clips = tf.constant(inputs.clips(batch, frames, size))
    if form == "frozen":
        return _served(model, clips)
    if form == "folded":
        model = fold_batch_norm(model)
    call = tf.function(lambda x: model(x, training=False))
    return lambda: call(clips)


def training(weights, variant, batch, frames, size, form, precision):
    """A step of stochastic gradient descent; arguments as of `inference`.

    The form is "plain", or what is computed again in the backward pass:
    "norms" or "blocks".
    """
    keras.config.set_dtype_policy(precision)
    model = load(weights, variant, frames, size)
    if form != "plain":
        model = rematerialize(model, form)
    model.compile(
        SGD(1e-4, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    clips = inputs.clips(batch, frames, size)
    labels = inputs.labels(batch, model.output_shape[-1])
    return lambda: model.train_on_batch(clips, labels)


def load(weights, variant, frames, size):
    """The benchmark's network with its weights."""
    model = _network(variant, frames, size)
    with np.load(weights) as values:
        for weight in model.weights:
            weight.assign(values[weight.path])
    return model


def _served(model, clips):
    """What a frozen export gives."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "frozen")
        export_saved_model(model, path, frozen=True)
        loaded = tf.saved_model.load(path)
    clips = tf.cast(clips, tf.uint8)
    return lambda: loaded.serve(clips)


def _network(variant, frames=None, size=None):
    variant = dataclasses.replace(VARIANTS[NETWORK], **variant)
    return ResNet3D(
        variant,
        input_shape=(frames, size, size, 3),
        classes=CLASSES,
        classifier_activation=None,
    )
