"""Convolution of clips, in the fastest form for backend, device and dtype."""

import keras

from keras_nonlocal.ops import convolution

LOWERINGS = ("auto", "conv3d", "conv2d")


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class Conv3D(keras.layers.Conv3D):
    """`keras.layers.Conv3D`, computed by 2-D kernels where that is faster.

    Variables, files and results are those of `keras.layers.Conv3D`.

    Args:
        filters: Number of output channels.
        kernel_size: `(frames, height, width)`, or one number for all.
        strides: As `kernel_size`.
        padding: `"valid"` or `"same"`.
        lowering: `"conv3d"`: as Keras does. `"conv2d"`: kernels that reach
            over space or time alone as 2-D kernels on a view of the clip.
            `"auto"`: as `keras_nonlocal.ops.convolution.choose_lowering` says.
            What has no such view (other kernels, groups, dilation,
            `channels_first`) is always done as Keras does.
        **kwargs: Of `keras.layers.Conv3D`.

    Example:

    >>> clip = np.ones((1, 8, 14, 14, 4), "float32")
    >>> Conv3D(6, (3, 1, 1), lowering="conv2d")(clip).shape
    TensorShape([1, 6, 14, 14, 6])
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1, 1),
        padding="valid",
        lowering="auto",
        **kwargs,
    ):
        super().__init__(
            filters, kernel_size, strides=strides, padding=padding, **kwargs
        )
        if lowering not in LOWERINGS:
            raise ValueError(
                f"`lowering` must be one of {LOWERINGS}. Received: {lowering!r}"
            )
        self.lowering = lowering

    def call(self, inputs):
        if self._lowering(inputs) == "conv3d":
            return super().call(inputs)
        return convolution.convolve(
            inputs,
            self.kernel,
            self.strides,
            self.padding,
            self.bias,
            self.activation,
        )

    def _lowering(self, inputs):
        has_2d_view = (
            convolution.has_2d_view(self.kernel_size)
            and self.groups == 1
            and max(self.dilation_rate) == 1
            and self.data_format == "channels_last"
        )
        if not has_2d_view:
            return "conv3d"
        if self.lowering == "auto":
            return convolution.choose_lowering(self.kernel_size, inputs)
        return self.lowering

    def get_config(self):
        return {**super().get_config(), "lowering": self.lowering}
