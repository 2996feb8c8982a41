"""Pooling layers of the networks."""

import keras

from keras_nonlocal.ops import pooling


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class MaxPooling(keras.layers.Layer):
    """Max pooling of clips, on every device and dtype.

    The same as `keras.layers.MaxPooling3D`, written with 2-D kernels: see
    `keras_nonlocal.ops.pooling`.

    Args:
        pool_size: `(frames, height, width)`.
        strides: `(frames, height, width)`, by default `pool_size`.
        padding: `"valid"`, or `"same"`, which is TensorFlow's rule on every
            backend.
        **kwargs: Of `keras.layers.Layer`.

    Example:

    >>> MaxPooling((2, 1, 1))(np.ones((1, 8, 5, 5, 3), "float32")).shape
    TensorShape([1, 4, 5, 5, 3])
    """

    def __init__(self, pool_size, strides=None, padding="valid", **kwargs):
        super().__init__(**kwargs)
        if padding not in ("valid", "same"):
            raise ValueError(
                f'`padding` must be "valid" or "same". Received: {padding!r}'
            )
        self.pool_size = tuple(pool_size)
        self.strides = tuple(strides or pool_size)
        self.padding = padding

    def call(self, inputs):
        return pooling.max_pool(
            inputs, self.pool_size, self.strides, self.padding
        )

    def compute_output_shape(self, input_shape):
        batch, *sizes, channels = input_shape
        windows = self.pool_size
        if self.padding == "same":
            windows = (1, 1, 1)
        pooling.check_fits(sizes, windows)
        pooled = (
            size if size is None else (size - window) // stride + 1
            for size, window, stride in zip(
                sizes, windows, self.strides, strict=True
            )
        )
        return (batch, *pooled, channels)

    def get_config(self):
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
        }


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class PositionPooling(keras.layers.Layer):
    """Last pooling of the networks: features for each position of a window.

    Averages over all frames and a window that slides over the frame with
    stride 1 ("pool5"). At the training size there is one position; larger
    inputs give several, on each of which the classifier runs (the paper's
    fully-convolutional test).

    Args:
        window: Side of the window; `None` averages the whole frame.
        **kwargs: Of `keras.layers.Layer`.

    Example:

    >>> PositionPooling(7)(np.ones((1, 4, 8, 10, 3), "float32")).shape
    TensorShape([1, 2, 4, 3])
    """

    def __init__(self, window=None, **kwargs):
        super().__init__(**kwargs)
        self.window = window

    def call(self, inputs):
        if self.window is None:
            return keras.ops.mean(inputs, axis=(1, 2, 3), keepdims=True)[:, 0]
        return pooling.position_means(inputs, self.window)

    def compute_output_shape(self, input_shape):
        batch, _, height, width, channels = input_shape
        return (batch, self._count(height), self._count(width), channels)

    def _count(self, size):
        if self.window is None:
            return 1
        return size if size is None else max(size - self.window, 0) + 1

    def get_config(self):
        return {**super().get_config(), "window": self.window}


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class PositionAverage(keras.layers.Layer):
    """Scores of a clip from the logits at each position.

    Args:
        activation: Turns logits into scores, for example `"softmax"`.
        average: What is averaged over positions: `"probability"` (activation
            first: the paper's code, SlowFast) or `"logit"`.
        **kwargs: Of `keras.layers.Layer`.

    Example:

    >>> PositionAverage("softmax")(np.zeros((1, 2, 4, 5), "float32")).shape
    TensorShape([1, 5])
    """

    def __init__(self, activation=None, average="probability", **kwargs):
        # Half precision scores lose classes; Keras keeps its heads in float32
        # for the same reason.
        super().__init__(**{"dtype": "float32", **kwargs})
        if average not in ("probability", "logit"):
            raise ValueError(
                '`average` must be "probability" or "logit". '
                f"Received: {average!r}"
            )
        self.activation = keras.activations.get(activation)
        self.average = average

    def call(self, inputs):
        if self.average == "logit" or tuple(inputs.shape[1:3]) == (1, 1):
            return self.activation(keras.ops.mean(inputs, axis=(1, 2)))
        return keras.ops.mean(self.activation(inputs), axis=(1, 2))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[3])

    def get_config(self):
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
            "average": self.average,
        }


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class WindowAverage(keras.layers.Layer):
    """Averages over a window that slides over frames and space with stride 1.

    An axis shorter than the window is averaged whole, so that any clip gives
    at least one position.

    Args:
        window: `(frames, side, side)`; the window is square.
        **kwargs: Of `keras.layers.Layer`.

    Example:

    >>> WindowAverage((2, 7, 7))(np.ones((1, 8, 7, 9, 3), "float32")).shape
    TensorShape([1, 7, 1, 3, 3])
    """

    def __init__(self, window, **kwargs):
        super().__init__(**kwargs)
        self.window = tuple(window)
        if len(self.window) != 3 or self.window[1] != self.window[2]:
            raise ValueError(
                "`window` must be (frames, side, side). "
                f"Received: {self.window}"
            )

    def call(self, inputs):
        batch, frames, height, width, channels = keras.ops.shape(inputs)
        x = keras.ops.reshape(inputs, (-1, 1, height, width, channels))
        x = pooling.position_means(x, self.window[1])
        _, height, width, _ = keras.ops.shape(x)
        # Frames as rows of a picture that is one pixel wide.
        x = keras.ops.reshape(
            x, (batch, 1, frames, 1, height * width * channels)
        )
        x = pooling.position_means(x, self.window[0])
        return keras.ops.reshape(x, (batch, -1, height, width, channels))

    def compute_output_shape(self, input_shape):
        batch, *sizes, channels = input_shape
        positions = (
            size if size is None else max(size - window, 0) + 1
            for size, window in zip(sizes, self.window, strict=True)
        )
        return (batch, *positions, channels)

    def get_config(self):
        return {**super().get_config(), "window": self.window}
