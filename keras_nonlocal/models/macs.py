"""Counting multiply-adds."""

import math

import keras
from keras import layers

KERNEL_LAYERS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.Dense,
)


def count_macs(model, input_shape):
    """Multiply-adds of one forward pass of a functional model.

    Counts convolutions, dense layers and the two matrix products of every
    non-local block, as the paper's code does; norms, activations, pooling and
    additions are not counted. A layer of another package takes part by having
    a method `count_macs(input_shape)`.

    Args:
        model: A functional `keras.Model` with one input.
        input_shape: Of the input, without the batch axis, all sizes known.

    Returns:
        An int, for a batch of one.

    Raises:
        ValueError: If a size is unknown, or if the model holds a layer with
            kernels that this function cannot count.

    Example:

    >>> inputs = keras.Input((None, None, 3))
    >>> outputs = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    >>> count_macs(keras.Model(inputs, outputs), (10, 10, 3))
    10800
    """
    input_shape = tuple(input_shape)
    if None in input_shape:
        raise ValueError(
            f"`input_shape` must have no unknown sizes. Received: {input_shape}"
        )
    counted = [layer for layer in _leaves(model) if _is_counted(layer)]
    if not counted:
        return 0
    ends = keras.Model(
        model.inputs, [[layer.input, layer.output] for layer in counted]
    )
    shapes = ends.compute_output_shape((1, *input_shape))
    return sum(
        _layer_macs(layer, shape_in, shape_out)
        for layer, (shape_in, shape_out) in zip(counted, shapes, strict=True)
    )


def _leaves(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            raise ValueError(
                "`model` must be flat; count nested models by themselves. "
                f"Received: a model holding the model {layer.name!r}"
            )
        yield layer


def _is_counted(layer):
    if hasattr(layer, "count_macs") or isinstance(layer, KERNEL_LAYERS):
        return True
    if any(len(weight.shape) > 1 for weight in layer.weights):
        raise ValueError(
            f"Cannot count the layer {layer.name!r} "
            f"({type(layer).__name__}): give it a `count_macs(input_shape)`."
        )
    return False


def _layer_macs(layer, shape_in, shape_out):
    if hasattr(layer, "count_macs"):
        return layer.count_macs(shape_in)
    # Every output position costs one kernel; a Dense runs at each of them.
    channels_first = getattr(layer, "data_format", "") == "channels_first"
    positions = shape_out[2:] if channels_first else shape_out[1:-1]
    return math.prod(positions) * math.prod(layer.kernel.shape)
