import keras
import numpy as np
import pytest
from keras import layers

from keras_nonlocal import NonLocal
from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from keras_nonlocal.layers.convolution import Conv3D
from keras_nonlocal.layers.pooling import MaxPooling
from keras_nonlocal.layers.pooling import WindowAverage
from keras_nonlocal.visualization.receptive_field import receptive_field


def seen(model, size):
    """Which frames, rows and columns each position depends on, measured.

    All kernels are positive and nothing is added, so that an output is positive
    where it sees a frame (row, column) that is not black.

    Returns:
        For each axis booleans `(positions, size)`.
    """
    # Fresh blocks are the identity, and stay so.
    weights = [
        weight
        for layer in model.layers
        if not isinstance(layer, NonLocal)
        for weight in layer.weights
    ]
    for weight in weights:
        if "moving" not in weight.path and len(weight.shape) > 1:
            # Averages: through many layers sums would overflow.
            weight.assign(np.full(weight.shape, 1 / weight.shape[-2]))
        elif "gamma" in weight.path:
            weight.assign(np.ones(weight.shape))
    clips = []
    for axis, count in enumerate(size):
        for place in range(count):
            clip = np.zeros((*size, model.input_shape[-1]), "float32")
            clip[(slice(None),) * axis + (place,)] = 1
            clips.append(clip)
    outputs = model.predict(np.array(clips), verbose=0, batch_size=32)
    depends = outputs.max(axis=-1) > 0
    found = []
    for axis, part in enumerate(
        np.split(depends, np.cumsum(size)[:-1].tolist())
    ):
        others = [i for i in range(1, part.ndim) if i != axis + 1]
        found.append(part.any(axis=tuple(others)).T)
    return found


def check_as_measured(model, size):
    """Boxes, cut at the border of the clip, are what was measured."""
    field = receptive_field(model, model.output, size)
    # Sequences are over time.
    axes = slice(-len(size), None) if len(size) > 1 else slice(1)
    centres = (field.times, field.rows, field.columns)[axes]
    extents = field.size[axes]
    for axis, depends in enumerate(seen(model, size)):
        assert len(depends) == len(centres[axis])
        for centre, row in zip(centres[axis], depends, strict=True):
            reach = (extents[axis] - 1) / 2
            inside = np.abs(np.arange(size[axis]) - centre) <= reach
            np.testing.assert_array_equal(row, inside)
    return field


def same_with_strides(x):
    x = layers.Conv3D(2, 3, 2, padding="same")(x)
    x = MaxPooling((2, 3, 3), (1, 2, 2), padding="same")(x)
    return Conv3D(2, (3, 1, 1), padding="same", lowering="conv2d")(x)


def explicit_paddings(x):
    x = layers.ZeroPadding3D(((0, 1), (2, 1), (0, 3)))(x)
    x = layers.Conv3D(2, (2, 3, 5), strides=(1, 2, 2), use_bias=False)(x)
    x = layers.BatchNormalization()(layers.ReLU()(x))
    x = layers.Cropping3D(((1, 0), (0, 1), (1, 1)))(x)
    return layers.AveragePooling3D(2, 1)(x)


def dilated_and_windowed(x):
    x = layers.Conv3D(2, 2, dilation_rate=(1, 2, 3), padding="same")(x)
    return WindowAverage((2, 3, 3))(x)


def branches(x):
    """Their centres differ: a window of 3 by "same" begins at the position."""
    wide = layers.Conv3D(2, 3, 2, padding="same")(x)
    thin = layers.Conv3D(2, 1, 2)(x)
    x = layers.Add()([wide, thin])
    x = layers.Concatenate()([x, layers.Conv3D(1, 3, padding="same")(x)])
    return NonLocal()(x)


def up_and_down(x):
    y = layers.Conv3D(2, 2, 2)(x)
    y = layers.Conv3D(2, (1, 3, 3), padding="same")(y)
    return layers.UpSampling3D(2)(y)


def moved_axes(x):
    """Time and rows change places and back; frames one by one."""
    x = layers.Permute((2, 1, 3, 4))(x)
    x = layers.Conv3D(2, (3, 1, 1), strides=(2, 1, 1))(x)
    x = layers.Permute((2, 1, 3, 4))(x)
    inner = keras.Sequential(
        [
            keras.Input(x.shape[2:]),
            layers.TimeDistributed(layers.ZeroPadding1D((2, 0))),
            layers.DepthwiseConv2D(3),
        ]
    )
    return layers.TimeDistributed(inner)(x)


@pytest.mark.parametrize("size", [(4, 10, 12), (5, 9, 11)])
@pytest.mark.parametrize(
    "build",
    [
        same_with_strides,
        explicit_paddings,
        dilated_and_windowed,
        branches,
        up_and_down,
        moved_axes,
    ],
)
def test_as_measured(build, size):
    if build is up_and_down:
        size = (4, 8, 12)
    entry = keras.Input((*size, 2))
    model = keras.Model(entry, build(entry))
    if build is dilated_and_windowed:
        # Holes of a kernel are in its box: only the ends are compared.
        field = receptive_field(model, model.output)
        for rows, centres in zip(
            seen(model, size),
            (field.times, field.rows, field.columns),
            strict=True,
        ):
            middle = rows[len(rows) // 2]
            ends = np.flatnonzero(middle)[[0, -1]]
            assert ends.mean() == centres[len(rows) // 2]
        return
    check_as_measured(model, size)


@pytest.mark.parametrize(
    "arguments",
    [
        {"stem": "stride1"},
        {"stem": "stride4", "pool1_padding": 1, "inflation": "3x3x3"},
    ],
)
def test_networks_of_the_paper_as_measured(arguments):
    variant = Variant(depth=26, width=2, num_nonlocal=1, **arguments)
    network = ResNet3D(variant, include_top=False, include_preprocessing=False)
    model = keras.Model(network.input, network.get_layer("res3_1").output)
    field = check_as_measured(model, (8, 44, 20))
    assert field.stride == ((2 if variant.stem == "stride1" else 8), 8, 8)


def test_context_of_whole_channels_is_left_out():
    """A squeeze-and-excitation does not make every position see all."""
    entry = keras.Input((16, 16, 4))
    x = layers.Conv2D(4, 3, name="conv")(entry)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(4, 1, activation="sigmoid")(gate)
    x = layers.Multiply(name="gated")([x, gate])
    assert receptive_field(keras.Model(entry, x), "gated").size == (1, 3, 3)


@keras.saving.register_keras_serializable(package="test")
class EveryThird(layers.Layer):
    def call(self, inputs):
        return inputs[:, 1::3]

    def compute_output_shape(self, shape):
        return (shape[0], (shape[1] + 1) // 3, shape[2])


class Telling(EveryThird):
    def receptive_windows(self, sizes):
        return [(1, 3, -1)]


def test_layers_of_others():
    entry = keras.Input((9, 2))

    def field(layer):
        outputs = layers.ReLU(name="relu")(layer(entry))
        return receptive_field(keras.Model(entry, outputs), "relu")

    with pytest.raises(ValueError, match=r"'third' \(EveryThird\)"):
        field(EveryThird(name="third"))
    np.testing.assert_array_equal(field(Telling()).times, [1, 4, 7])
    with pytest.raises(ValueError, match="Conv1DTranspose"):
        field(layers.Conv1DTranspose(2, 3, padding="same"))


def test_causal_convolution_as_measured():
    entry = keras.Input((9, 2))
    x = layers.Conv1D(2, 3, padding="causal")(entry)
    x = layers.Conv1D(2, 2, 2, padding="causal")(x)
    field = check_as_measured(keras.Model(entry, x), (9,))
    assert field.times.tolist() == [-1.5, 0.5, 2.5, 4.5, 6.5]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_up_sampling_as_measured(interpolation):
    entry = keras.Input((4, 3, 2))
    x = layers.UpSampling2D((2, 4), interpolation=interpolation)(entry)
    field = check_as_measured(keras.Model(entry, x), (4, 3))
    assert field.stride == (1, 0.5, 0.25)


def test_branches_of_other_strides_as_measured():
    entry = keras.Input((9, 9, 2))
    wide = layers.Conv2D(2, 5)(entry)
    x = layers.Add()([layers.Conv2D(2, 1, 2)(entry), wide])
    field = check_as_measured(keras.Model(entry, x), (9, 9))
    # The wide windows hold the other branch's, and decide.
    assert field.stride == (1, 1, 1)
    assert field.rows.tolist() == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("size", [(1, 8, 8), (2, 8, 8), (8, 1), (1, 1)])
def test_gates_of_any_size(size):
    """One frame, or an axis of size 1, leaves a gate what it is."""
    rank = len(size)
    convolution = getattr(layers, f"Conv{rank}D")
    pooling = getattr(layers, f"GlobalAveragePooling{rank}D")
    entry = keras.Input((*size, 4))
    x = convolution(4, 3, padding="same")(entry)
    gate = convolution(4, 1, activation="sigmoid")(pooling(keepdims=True)(x))
    model = keras.Model(entry, layers.Multiply(name="gated")([x, gate]))
    field = receptive_field(model, "gated")
    assert field.shape == (1, 1, *size)[-3:]
    assert field.size == ((3, 3, 3) if rank == 3 else (1, 3, 3))


def test_branches_of_one_position_are_no_gates():
    entry = keras.Input((1, 1, 4))
    thin = layers.Conv2D(4, 1)(entry)
    wide = layers.Conv2D(4, 3, padding="same")(entry)
    for branches in ([thin, wide], [wide, thin]):
        model = keras.Model(entry, layers.Add(name="sum")(branches))
        assert receptive_field(model, "sum").size == (1, 3, 3)


def refused(outputs, entry, match):
    with pytest.raises(ValueError, match=match):
        receptive_field(keras.Model(entry, outputs), outputs)


def test_positions_taken_or_turned_are_not_the_identity():
    entry = keras.Input((6, 6, 3))
    for outputs in (
        entry[:, ::-1],
        entry[..., ::-1, :],
        entry[::-1, :],
        entry[:, None, :, 0],
    ):
        refused(outputs, entry, r"\(GetItem\)")
    # Of channels alone, and what takes everything.
    for outputs in (entry[..., ::-1], entry[:, 0:, :6], entry[:, :, :, 0]):
        field = receptive_field(keras.Model(entry, outputs), outputs)
        assert field.rows.tolist() == [0, 1, 2, 3, 4, 5]


def test_axes_of_the_clip_are_not_channels():
    entry = keras.Input((4, 3, 16, 16))
    layer = layers.Conv2D(3, 3, 2, data_format="channels_first")
    refused(
        layers.TimeDistributed(layer)(entry),
        entry,
        r"\(TimeDistributed\) takes axes of the clip for channels",
    )
    clip = keras.Input((6, 6, 6))
    moved = layers.Permute((3, 1, 2))(clip)
    for layer in (layers.Conv2D(6, 1), layers.Dense(6), NonLocal()):
        with pytest.raises(ValueError, match="axes of the clip for channels"):
            receptive_field(
                keras.Model(clip, layer(moved)),
                layer.name,
                None,
                "channels_last",
            )
