"""Gradients on any backend."""

import keras

from tests import checks


def gradients(function, inputs, cotangent):
    """Value of a function of tensors, and its gradients.

    Args:
        function: From tensors to one tensor.
        inputs: Arrays.
        cotangent: Array, the gradient of the value.

    Returns:
        The value and a list of gradients, numpy arrays.
    """
    run = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    value, of_inputs = run[keras.backend.backend()](function, inputs, cotangent)
    return checks.numpy(value), [checks.numpy(x) for x in of_inputs]


def _tensorflow(function, inputs, cotangent):
    import tensorflow as tf

    inputs = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
    return value, tape.gradient(value, inputs, tf.constant(cotangent))


def _jax(function, inputs, cotangent):
    import jax

    @jax.jit
    def run(inputs, cotangent):
        value, pull_back = jax.vjp(function, *inputs)
        return value, pull_back(cotangent)

    return run(inputs, cotangent)


def _torch(function, inputs, cotangent):
    import torch

    inputs = [torch.tensor(x, requires_grad=True) for x in inputs]
    value = function(*inputs)
    value.backward(torch.tensor(cotangent))
    return value.detach(), [x.grad for x in inputs]
