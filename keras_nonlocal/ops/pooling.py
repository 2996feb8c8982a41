"""Pooling of clips `(batch, T, H, W, channels)`, through 2-D views.

A 3-D maximum is a maximum over space followed by one over time. The 2-D
kernels exist where 3-D ones do not (float16 on a CPU, LiteRT) and refuse an
input that is smaller than the window, so that no empty result goes on.
"""

from keras import ops


def max_pool(x, pool_size, strides=None, padding="valid"):
    """Maximum over windows of a clip.

    Args:
        x: `(batch, T, H, W, channels)`; T, H, W may be unknown.
        pool_size: `(t, h, w)`.
        strides: `(t, h, w)`, by default `pool_size`.
        padding: `"valid"`, none, or `"same"`, TensorFlow's rule.

    Returns:
        `(batch, T', H', W', channels)`, sizes rounded down, or up with "same".

    Raises:
        ValueError: If the clip is known to be smaller than the window and is
            not padded.

    Example:

    >>> max_pool(np.ones((1, 8, 56, 56, 4), "float32"), (2, 2, 2)).shape
    TensorShape([1, 4, 28, 28, 4])
    """
    strides = strides or pool_size
    if padding == "valid":
        check_fits(x.shape[1:4], pool_size)
    batch, frames, height, width, channels = ops.shape(x)
    if tuple(pool_size[1:]) + tuple(strides[1:]) != (1, 1, 1, 1):
        x = ops.reshape(x, (-1, height, width, channels))
        x = _max_pool(x, pool_size[1:], strides[1:], padding)
        _, height, width, _ = ops.shape(x)
        x = ops.reshape(x, (batch, frames, height, width, channels))
    if (pool_size[0], strides[0]) != (1, 1):
        x = ops.reshape(x, (batch, frames, height * width, channels))
        x = _max_pool(x, (pool_size[0], 1), (strides[0], 1), padding)
        x = ops.reshape(x, (batch, -1, height, width, channels))
    return x


def _max_pool(x, pool_size, strides, padding):
    return ops.max_pool(x, pool_size, strides, padding, "channels_last")


def check_fits(sizes, pool_size):
    """Raises a ValueError if a known size is smaller than the window.

    Args:
        sizes: `(frames, height, width)` of a clip, `None` where unknown.
        pool_size: `(t, h, w)` of the window.
    """
    if any(
        size is not None and size < window
        for size, window in zip(sizes, pool_size, strict=True)
    ):
        raise ValueError(
            f"A window of {tuple(pool_size)} does not fit into a clip of "
            f"{tuple(sizes)} (frames, height, width): give the network longer "
            "or larger clips."
        )


def position_means(x, window):
    """Averages over all frames and a sliding `window x window` in space.

    The stride is 1. A side shorter than the window is averaged whole, so any
    size gives at least one position. This is the last pooling of the networks,
    whose kernel is (T, 7, 7).

    Args:
        x: `(batch, T, H, W, channels)`; T, H, W may be unknown.
        window: Side of the window, in positions.

    Returns:
        `(batch, H', W', channels)` with `H' = max(H - window, 0) + 1`.
    """
    x = ops.mean(x, axis=1)
    _, height, width, _ = ops.shape(x)
    rows = _averaging_matrix(height, window, x.dtype)
    columns = _averaging_matrix(width, window, x.dtype)
    return ops.einsum("bhwc,ph,qw->bpqc", x, rows, columns)


def _averaging_matrix(size, window, dtype):
    """`(positions, size)`: row p averages `window` entries from p on."""
    if isinstance(size, int):
        window = min(window, size)
    else:
        window = ops.minimum(window, size)
    first = ops.reshape(ops.arange(size - window + 1, dtype="int32"), (-1, 1))
    entry = ops.reshape(ops.arange(size, dtype="int32"), (1, -1))
    inside = ops.logical_and(entry >= first, entry < first + window)
    return ops.cast(inside, dtype) / ops.cast(window, dtype)
