"""Batch normalisation of channels-last tensors of any rank."""

from keras import backend
from keras import config
from keras import ops


def batch_norm_train(x, gamma, beta, epsilon):
    """Normalises by the statistics of the batch.

    Args:
        x: `(batch, ..., channels)`, rank 3 or more.
        gamma: Scale, `(channels,)`.
        beta: Shift, `(channels,)`.
        epsilon: Added to the variance.

    Returns:
        The normalised `x`, the mean and the (biased) variance of the batch,
        the last two `(channels,)` and float32.
    """
    if _has_fused(x):
        return _fused_train(x, gamma, beta, epsilon)
    axes = tuple(range(len(x.shape) - 1))
    full = _at_least_float32(x)
    mean, variance = ops.moments(full, axes)
    y = ops.batch_normalization(full, mean, variance, -1, beta, gamma, epsilon)
    return ops.cast(y, x.dtype), mean, variance


def batch_norm_apply(x, gamma, beta, mean, variance, epsilon):
    """Normalises `x` `(batch, ..., channels)` by given statistics."""
    if _has_fused(x):
        y, _, _ = _fused(x, gamma, beta, epsilon, mean, variance)
        return y
    full = _at_least_float32(x)
    y = ops.batch_normalization(full, mean, variance, -1, beta, gamma, epsilon)
    return ops.cast(y, x.dtype)


def _at_least_float32(x):
    is_half = backend.standardize_dtype(x.dtype) in ("float16", "bfloat16")
    return ops.cast(x, "float32") if is_half else x


def _fused_train(x, gamma, beta, epsilon):
    y, mean, variance = _fused(x, gamma, beta, epsilon)
    # The kernel gives the unbiased variance; the moving variance of Keras, on
    # every backend, is of the biased one.
    # Counted in float: an int32 product of the sizes can wrap.
    count = 1.0
    for size in ops.shape(x)[:-1]:
        count = count * ops.cast(size, variance.dtype)
    return y, mean, variance * (count - 1.0) / count


def _has_fused(x):
    is_double = backend.standardize_dtype(x.dtype) == "float64"
    return config.backend() == "tensorflow" and not is_double


def _fused(x, gamma, beta, epsilon, mean=None, variance=None):
    """TensorFlow's one-kernel form, which takes `(batch, H, W, channels)`.

    `keras.ops` has no equal: written with it, the norm is several passes over
    memory and takes about twice the time in training.
    """
    from tensorflow import raw_ops

    shape = ops.shape(x)
    training = mean is None
    empty = ops.zeros((0,), gamma.dtype)
    y, mean, variance, *_ = raw_ops.FusedBatchNormV3(
        x=ops.reshape(x, (shape[0], -1, 1, shape[-1])),
        scale=gamma,
        offset=beta,
        mean=empty if training else mean,
        variance=empty if training else variance,
        epsilon=epsilon,
        is_training=training,
    )
    return ops.reshape(y, shape), mean, variance
