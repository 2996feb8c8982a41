"""From decoded frames to the range a network was trained on."""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class ClipNormalization(keras.layers.Layer):
    """Maps RGB values in 0..255 to `(x - mean) / std`.

    The defaults are those of the paper's code, whose networks read RGB. The
    arithmetic is float32 under every dtype policy; the result has the compute
    dtype.

    Args:
        mean: One number, or one for each channel, in 0..255.
        std: As `mean`; positive.
        **kwargs: Of `keras.layers.Layer`.

    Example:

    >>> clip = np.full((1, 2, 4, 4, 3), 172, "uint8")
    >>> float(ClipNormalization()(clip)[0, 0, 0, 0, 0])
    0.9978213...
    """

    def __init__(self, mean=114.75, std=57.375, **kwargs):
        # Autocasting would round 0..255 to half precision before the mean is
        # taken off.
        super().__init__(autocast=False, **kwargs)
        self.mean = _per_channel("mean", mean)
        self.std = _per_channel("std", std)
        if np.min(self.std) <= 0:
            raise ValueError(f"`std` must be positive. Received: std={std}")

    def call(self, inputs):
        # Keras lets one channel pass where three are expected, and numbers
        # for three would then be broadcast.
        if np.broadcast(self.mean, self.std).size not in (1, inputs.shape[-1]):
            raise ValueError(
                "The input must have one channel for each number of "
                f"mean={self.mean} and std={self.std}. "
                f"Received: shape {tuple(inputs.shape)}"
            )
        x = ops.cast(inputs, "float32")
        mean = ops.convert_to_tensor(self.mean, "float32")
        std = ops.convert_to_tensor(self.std, "float32")
        return ops.cast((x - mean) / std, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "mean": self.mean,
            "std": self.std,
        }


def _per_channel(name, value):
    """A float or a list of floats, which JSON can hold."""
    value = np.asarray(value, "float64")
    if value.ndim > 1 or not np.all(np.isfinite(value)):
        raise ValueError(
            f"`{name}` must be a number or one for each channel. "
            f"Received: {name}={value}"
        )
    return value.tolist()
