"""The control of every comparison: as many parameters, no attention."""

import keras
from keras import ops

from keras_nonlocal.layers.batch_norm import make_norm
from keras_nonlocal.layers.network_record import NetworkRecord
from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.models.graph import rebuild
from keras_nonlocal.ops.pairwise import MODES

# By how much the two blocks may differ in parameters.
TOLERANCE = 0.02


@keras.saving.register_keras_serializable(package="keras_nonlocal_zoo")
class MatchedControl(keras.layers.Layer):
    """A residual block of 1x1x1 convolutions, the size of a `NonLocal` block.

    `z_i = norm(W_2 relu(W_1 x_i)) + x_i`: each position sees itself alone. What
    a network gains by a non-local block over this one it does not gain by
    parameters or depth. A fresh block returns its input exactly, as a fresh
    `NonLocal` does, and its options start as those of `NonLocal`.

    Channels come last, in inputs of rank 3, 4 or 5.

    Args:
        mode: The pairwise function of the block to match.
        inter_channels: Width of theta, phi and g of the block to match.
            Default: half the input's channels, at least 1.
        norm: What follows W_2, as for `NonLocal`: `"batch"`, `"sync_batch"`,
            `"affine"` or `None`.
        kernel_initializer: Of W_1 and W_2. Default: normal with standard
            deviation 0.01. Where `norm` is no batch norm, W_2 starts at 0.
        **kwargs: Of `keras.layers.Layer`.

    Raises:
        ValueError: When built, if the input has another rank, or so few
            channels that no width is within 2 % of the other block.

    Example:

    >>> block = MatchedControl()
    >>> block(np.ones((2, 4, 7, 7, 64), "float32")).shape
    TensorShape([2, 4, 7, 7, 64])
    """

    def __init__(
        self,
        mode="embedded_gaussian",
        inter_channels=None,
        norm="batch",
        kernel_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if mode not in MODES:
            raise ValueError(
                f"`mode` must be one of {MODES}. Received: {mode!r}"
            )
        if inter_channels is not None and inter_channels < 1:
            raise ValueError(
                "`inter_channels` must be positive or None. "
                f"Received: {inter_channels}"
            )
        self.mode = mode
        self.inter_channels = inter_channels
        self.norm = norm
        self.kernel_initializer = keras.initializers.get(
            kernel_initializer or keras.initializers.RandomNormal(stddev=0.01)
        )
        self.out_norm = None
        if norm is not None:
            self.out_norm = make_norm(
                norm,
                gamma_initializer="zeros",
                name="norm",
                dtype=self.dtype_policy,
            )

    def build(self, input_shape):
        if len(input_shape) not in (3, 4, 5) or input_shape[-1] is None:
            raise ValueError(
                "MatchedControl takes inputs of rank 3, 4 or 5 with a known "
                f"number of channels. Received: shape {tuple(input_shape)}"
            )
        channels = input_shape[-1]
        width = matched_width(channels, self.inter_channels, self.mode)
        starts_at_zero = self.norm in ("affine", None)
        self.inner = self._convolution("inner", width, channels)
        self.out = self._convolution(
            "out", channels, width, "zeros" if starts_at_zero else None
        )
        if self.out_norm is not None:
            self.out_norm.build(input_shape)

    def call(self, inputs, training=None):
        z = self.out(ops.relu(self.inner(inputs)))
        if self.out_norm is not None:
            z = self.out_norm(z, training=training)
        return inputs + z

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "mode": self.mode,
            "inter_channels": self.inter_channels,
            "norm": self.norm,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }

    def _convolution(self, name, width, channels, kernel_initializer=None):
        """A 1x1x1 convolution; on channels-last positions that is a Dense."""
        # One instance gives the same values twice; a plain function may not.
        clone = getattr(self.kernel_initializer, "clone", None)
        layer = keras.layers.Dense(
            width,
            kernel_initializer=kernel_initializer
            or (clone() if clone else self.kernel_initializer),
            name=name,
            dtype=self.dtype_policy,
        )
        layer.build((None, channels))
        return layer


def matched_width(channels, inter_channels=None, mode="embedded_gaussian"):
    """The inner width that makes a control as large as a non-local block.

    Args:
        channels: Of the input.
        inter_channels: Of the non-local block; `None` as for `NonLocal`.
        mode: Its pairwise function.

    Returns:
        An int. The norm, which both blocks have, does not count.

    Raises:
        ValueError: If no width is within 2 %: there are too few channels.

    Example:

    >>> matched_width(512)  # 525568 parameters and 525312.
    512
    """
    width = inter_channels or max(channels // 2, 1)
    num_embeddings = 1 if mode == "gaussian" else 3
    wanted = num_embeddings * (channels + 1) * width
    wanted += 2 * width if mode == "concatenation" else 0
    # W_z and W_2 have the same bias.
    wanted += width * channels
    inner = max(round(wanted / (2 * channels + 1)), 1)
    difference = abs(inner * (2 * channels + 1) - wanted)
    if difference > TOLERANCE * (wanted + channels):
        raise ValueError(
            "A control must be within 2 % of the parameters of its non-local "
            "block, which takes more channels. Received: "
            f"channels={channels}, inter_channels={inter_channels}"
        )
    return inner


def with_controls(model):
    """Puts a control in the place of every non-local block of a network.

    Args:
        model: A functional model with `NonLocal` layers, channels last. Its
            other layers go over to the result, with their weights.

    Returns:
        A `keras.Model`, not compiled, whose controls are named after the
        blocks: "control_res4_1" for "nonlocal_res4_1". Any record of which
        published network `model` is has gone.

    Raises:
        ValueError: If there is no such layer, or one is channels first.
    """
    blocks = [x for x in model.layers if isinstance(x, NonLocal)]
    if not blocks or any(x.data_format != "channels_last" for x in blocks):
        raise ValueError(
            "`model` must have NonLocal layers, channels last. Received: "
            f"{model.name!r} with {len(blocks)} of them"
        )

    def take(layer):
        return _control_for(layer) if layer in blocks else layer

    def call(layer, *args, **kwargs):
        # The result is another network than the one on record.
        is_record = isinstance(layer, NetworkRecord)
        return args[0] if is_record else layer(*args, **kwargs)

    return rebuild(model, take, call)


def _control_for(block):
    return MatchedControl(
        mode=block.mode,
        inter_channels=block.inter_channels,
        norm=block.norm,
        kernel_initializer=block.kernel_initializer,
        name=f"control_{block.name.removeprefix('nonlocal_')}",
        dtype=block.dtype_policy,
    )
