"""Every way in which a backend runs a function of tensors."""

import keras

from tests.checks import numpy


def result(function, *arrays):
    """What a function gives: eager, compiled on JAX, where that is faster.

    Args:
        function: From tensors to a tensor, or a structure of them.
        *arrays: Its arguments, numpy arrays.

    Returns:
        Numpy arrays.
    """
    if keras.backend.backend() == "jax":
        import jax

        value = jax.jit(function)(*arrays)
    else:
        value = function(*(keras.ops.convert_to_tensor(x) for x in arrays))
    return keras.tree.map_structure(numpy, value)


def results(function, *arrays):
    """What a function gives in each way, `{way: numpy arrays}`.

    As `result`; on TensorFlow also in a graph that knows of its arguments only
    their ranks and a last axis of 4, and in the same compiled by XLA.
    """
    ways = {"plain": result(function, *arrays)}
    if keras.backend.backend() == "tensorflow":
        ways["graph"] = _in_graph(function, arrays, jit=False)
        ways["XLA"] = _in_graph(function, arrays, jit=True)
    return ways


def _in_graph(function, arrays, jit):
    import tensorflow as tf

    signature = []
    for x in arrays:
        shape = [None] * x.ndim
        if x.shape[-1:] == (4,):
            shape[-1] = 4
        signature.append(tf.TensorSpec(shape, x.dtype))
    graph = tf.function(function, signature, autograph=False, jit_compile=jit)
    return keras.tree.map_structure(numpy, graph(*arrays))
