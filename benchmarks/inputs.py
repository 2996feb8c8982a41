"""What every side of a case gets: the same numbers."""

import numpy as np


def normal(shape, seed=0):
    """Standard normal float32."""
    return np.random.default_rng(seed).standard_normal(shape, "float32")


def operation(queries, keys, depth, width):
    """Theta, phi, g and w_f, and the gradient by the sums; batch 1.

    The affinities have a variance of one, as trained networks' do.
    """
    return (
        normal((1, queries, depth), 1),
        normal((1, keys, depth), 2),
        normal((1, keys, width), 3),
        normal((2 * depth, 1), 4) * depth**-0.5,
    ), normal((1, queries, width), 5)


def scale(depth):
    """Of the affinities before the softmax."""
    return depth**-0.5


def clips(batch, frames, size):
    """RGB in 0..255, channels last."""
    shape = (batch, frames, size, size, 3)
    values = np.random.default_rng(0).integers(0, 256, shape)
    return values.astype("float32")


def labels(batch, classes):
    """A class for each clip."""
    return np.random.default_rng(1).integers(0, classes, batch)
